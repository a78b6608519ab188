"""Pages as a browser shows them: drawn without a complaint or a request, light and dark, on a screen and on a phone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from browser import Screen, Tab, chromium, chromium_path
from millpond._observe.report import write_report
from report_pages import all_in_one

SCREENS = {"light": Screen(1280, 900), "dark": Screen(1280, 900, "dark"), "phone": Screen(360, 740)}

MEASURES = """({
    drawn: [...document.querySelectorAll("figure")].map(figure => figure.querySelectorAll(
        ".trace.bars path, .scatterlayer .trace").length),
    wide: document.documentElement.scrollWidth,
    seen: innerWidth,
    outside: [...document.querySelectorAll("figure, section, .headlines div")].filter(
        box => box.getBoundingClientRect().right > innerWidth).length,
    scrolls: [...document.querySelectorAll(".wide > div")].every(box => getComputedStyle(box).overflowX === "auto"),
})"""

RESIZED = """new Promise(then => {
    const places = [...document.querySelectorAll("figure > div")];
    const look = () => places.every(place => place.querySelector(".main-svg").clientWidth === place.clientWidth)
        ? then() : requestAnimationFrame(look);
    look();
})"""


@dataclass(frozen=True)
class Seen:
    """A page on each screen."""

    requests: list[str]
    complaints: list[str]
    measures: Mapping[str, Any]
    pictures: Mapping[str, bytes]
    shown_lines: list[int]


def look_at(tab: Tab, page: Path) -> Seen:
    tab.show_on(SCREENS["light"])
    requests = tab.open(page)
    measures, pictures = {}, {}
    for name, screen in SCREENS.items():
        tab.show_on(screen)
        tab.evaluate(RESIZED)
        measures[name], pictures[name] = tab.evaluate(MEASURES), tab.screenshot()
    shown = "document.querySelector('.legend').parentNode.querySelectorAll('.scatterlayer .trace').length"
    press = f"(document.querySelector('.legend button').click(), {shown})"
    return Seen(requests, tab.complaints(), measures, pictures, [tab.evaluate(each) for each in (shown, press, press)])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Looked at by a browser that has ended before the first test begins."""
    program = chromium_path()
    if program is None:
        pytest.skip("no Chromium: it is looked for in $CHROMIUM, and on the path")
    page = tmp_path_factory.mktemp("pages") / "report.html"
    write_report(all_in_one(), page)
    with chromium(program, tmp_path_factory.mktemp("chromium")) as browser:
        if not browser.has_started():
            pytest.skip(f"{program} is there and does not start")
        return look_at(Tab(browser), page)


def pixels(png: bytes) -> NDArray[np.uint8]:
    with av.open(io.BytesIO(png), "r") as container:
        return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))


def colours(picture: NDArray[np.uint8]) -> int:
    """How many there are."""
    return len(np.unique(picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)))


def test_a_page_asks_for_nothing_and_complains_of_nothing(seen: Seen) -> None:
    assert (seen.requests, seen.complaints) == ([], [])


def test_every_chart_is_drawn_and_nothing_is_wider_than_the_screen(seen: Seen) -> None:
    for name, screen in SCREENS.items():
        measured = seen.measures[name]
        assert len(measured["drawn"]) == len(all_in_one().charts)
        assert all(measured["drawn"])
        assert measured["wide"] <= measured["seen"] == screen.width
        assert (measured["outside"], measured["scrolls"]) == (0, True)


def test_it_is_dark_where_the_reader_is_and_never_blank(seen: Seen) -> None:
    light, dark, phone = (pixels(seen.pictures[screen]) for screen in SCREENS)
    assert light.shape == dark.shape == (900, 1280, 3)
    assert phone.shape == (740, 360, 3)
    assert light.mean() > 200 > 60 > dark.mean()
    assert min(map(colours, (light, dark, phone))) > 50


def test_a_line_is_hidden_and_shown_again_by_its_button_in_the_legend(seen: Seen) -> None:
    all_lines, without_one, again = seen.shown_lines
    assert (without_one, again) == (all_lines - 1, all_lines)
