"""The page's colours stand out from their background, and lines are told apart by people who see fewer colours."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

Colour = NDArray[np.float64]

SERIES = ("first", "second", "third", "fourth", "fifth")
# Machado, Oliveira and Fernandes 2009, of full severity: what is left of linear RGB.
SIGHTS = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Oklab (https://bottosson.github.io/posts/oklab): distances are as far as they look.
TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def palettes() -> list[dict[str, Colour]]:
    """Light and dark, as linear RGB."""
    page = files("millpond._observe").joinpath("report_template.html").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(\s+--page.*?)\}", page, re.DOTALL)
    return [{name: linear(code) for name, code in re.findall(r"--(\w+): #(\w{6})", block)} for block in blocks]


def linear(code: str) -> Colour:
    shown = np.array([int(code[at : at + 2], 16) / 255 for at in (0, 2, 4)])
    return np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)


def contrast(one: Colour, other: Colour) -> float:
    """As the Web Content Accessibility Guidelines have it: 1 to 21."""
    dim, bright = sorted(float(colour @ [0.2126, 0.7152, 0.0722]) + 0.05 for colour in (one, other))
    return bright / dim


def seen(colour: Colour, sight: object) -> Colour:
    lab: Colour = TO_LAB @ np.cbrt(TO_CONES @ np.clip(np.asarray(sight, np.float64) @ colour, 0, 1))
    return lab


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_text_and_lines_stand_out_from_what_is_behind_them(palette: dict[str, Colour]) -> None:
    assert all(contrast(palette[text], palette["card"]) > 4.5 for text in ("ink", "quiet", "limit"))
    assert all(contrast(palette[text], palette["page"]) > 4.5 for text in ("ink", "quiet"))
    assert all(contrast(palette[line], palette["card"]) > 3 for line in SERIES)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_lines_are_told_apart_by_every_sight(palette: dict[str, Colour], sight: str) -> None:
    shown = [seen(palette[line], SIGHTS[sight]) for line in SERIES]
    assert min(np.linalg.norm(one - other) for one, other in combinations(shown, 2)) > 0.1  # greys 1/10 apart
