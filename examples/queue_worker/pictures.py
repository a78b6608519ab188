"""Pictures whose content is known: one coloured disc on noisy grey."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from examples.queue_worker.agreed import COLOURS

_WIDTH, _HEIGHT = 160, 120


@dataclass(frozen=True)
class Picture:
    """What must be found in it.

    Attributes:
        label: Of the disc's colour.
        x: Of the disc's centre, as a fraction of the width.
        y: Of the disc's centre, as a fraction of the height.
        jpeg: The file.
    """

    label: str
    x: float
    y: float
    jpeg: bytes


@functools.lru_cache(maxsize=1024)
def picture(number: int) -> Picture:
    """The same for the same number."""
    chance = np.random.default_rng(number)
    label = list(COLOURS)[number % len(COLOURS)]
    radius = int(chance.integers(16, 23))
    x = int(chance.integers(radius, _WIDTH - radius))
    y = int(chance.integers(radius, _HEIGHT - radius))
    pixels = np.repeat(chance.integers(110, 146, (_HEIGHT, _WIDTH, 1)), 3, axis=2).astype(np.uint8)
    rows, columns = np.ogrid[:_HEIGHT, :_WIDTH]
    pixels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = COLOURS[label]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return Picture(label, x / _WIDTH, y / _HEIGHT, file.getvalue())
