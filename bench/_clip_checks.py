"""Whether frames are those that were wanted: held against small pictures of an independent decode.

Libraries resize in their own way, so frames are compared as means of squares of pixels, and with those of the frames
before and after: who has those instead is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SQUARE = 8
TOLERANCE = 8.0
"""Mean difference of a picture, of 255. Clips of 10 bits come to 3.5 between libraries that are both right."""
WRONG_FRAME = 255.0


def small(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Means of squares: (..., H, W, 3) to float32 (..., H / SQUARE, W / SQUARE, 3)."""
    *lead, height, width, channels = frames.shape
    squares = frames.reshape(*lead, height // SQUARE, SQUARE, width // SQUARE, SQUARE, channels)
    return squares.mean((-4, -2), dtype=np.float32)


def off_by(frames: NDArray[np.uint8], reference: NDArray[Any]) -> float:
    """How far a clip is off in its worst frame; `WRONG_FRAME` where one is nearer to the frame before or after.

    Args:
        frames: uint8 (T, 3, H, W).
        reference: uint8 (T, 3, h, w, 3): `small` of the frame before, of the one wanted, and of the one after.
    """
    differences = np.abs(small(np.moveaxis(frames, 1, -1))[:, None] - reference).mean((-3, -2, -1))
    before, wanted, after = np.moveaxis(differences, 1, 0)
    # Pictures that stand still differ by noise alone.
    is_other = (np.minimum(before, after) + 0.25 < wanted).any()
    return WRONG_FRAME if is_other else round(float(wanted.max()), 3)
