"""A pattern that says which (episode, camera, frame) a picture is, and survives codecs and a resize to 224x224.

The upper left quarter of the picture holds 8 x 8 cells, dark for 0 and bright for 1, row by row, most significant bit
first: 16 bits of episode, 8 of camera, 24 of frame, and a CRC-16 over these six bytes. Cells are placed by fractions
of the picture, so a resize moves nothing; only the middle of a cell is read, so blurred edges do no harm. A cell that
is neither dark nor bright (two frames blended, a grey picture) is an error, as is a wrong checksum.
"""

from __future__ import annotations

import binascii
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

GRID = 8
EXTENT = 0.5  # of the height and of the width
DARK_LUMA = 40  # limited range: 16 is black, 235 white
BRIGHT_LUMA = 215
_UNDECIDED = (88.0, 168.0)  # in RGB, where the two are near 28 and 232
_PROBES = (0.375, 0.5, 0.625)  # where a cell is looked at, as fractions of its extent

MIN_HEIGHT = MIN_WIDTH = 64  # below, a cell is smaller than the 4 x 4 of the smallest transform


def pattern_bits(episode: int, camera: int, frame: int) -> NDArray[np.bool_]:
    """The cells of a picture, bool (8, 8).

    Raises:
        ValueError: A number does not fit into its bits.
    """
    for name, value, bits in (("episode", episode, 16), ("camera", camera, 8), ("frame", frame, 24)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} {value} does not fit into the pattern's {bits} bits")
    payload = episode.to_bytes(2, "big") + camera.to_bytes(1, "big") + frame.to_bytes(3, "big")
    checked = payload + _checksum(payload).to_bytes(2, "big")
    return np.unpackbits(np.frombuffer(checked, dtype=np.uint8)).reshape(GRID, GRID).astype(np.bool_)


def draw_pattern(luma: NDArray[np.uint8], episode: int, camera: int, frame: int) -> None:
    """Draw the cells into a luma plane in place.

    Args:
        luma: uint8, (H, W), limited range; at least 64 x 64.
        episode: Up to 65,535.
        camera: Up to 255.
        frame: Within the episode, up to 16,777,215.
    """
    height, width = luma.shape
    if height < MIN_HEIGHT or width < MIN_WIDTH:
        raise ValueError(f"a picture of {height} x {width} is too small for the pattern; at least 64 x 64")
    rows, columns = _cell_map(height, width)
    cells = np.where(pattern_bits(episode, camera, frame), np.uint8(BRIGHT_LUMA), np.uint8(DARK_LUMA))
    luma[: len(rows), : len(columns)] = cells[rows][:, columns]


def read_pattern(picture: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Read the identity back from pixels.

    Args:
        picture: uint8, (H, W, 3) RGB, of any size down to 64 x 64.

    Returns:
        (episode, camera, frame).

    Raises:
        ValueError: A cell is neither dark nor bright, or the checksum is wrong: this picture is not a whole frame.
    """
    rows, columns = _probe_points(*picture.shape[:2])
    probes = picture[rows][:, columns].reshape(GRID, len(_PROBES), GRID, -1).mean(axis=(1, 3))
    if ((probes > _UNDECIDED[0]) & (probes < _UNDECIDED[1])).any():
        raise ValueError("no pattern: a cell is neither dark nor bright (a blend, or no synthetic picture)")
    data = np.packbits(probes > _UNDECIDED[0]).tobytes()
    payload, checksum = data[:6], int.from_bytes(data[6:], "big")
    if _checksum(payload) != checksum:
        raise ValueError(f"the pattern's checksum is {checksum:#06x}, its bits give {_checksum(payload):#06x}")
    return int.from_bytes(payload[:2], "big"), payload[2], int.from_bytes(payload[3:], "big")


def _checksum(payload: bytes) -> int:
    # The start value makes the checksum of zeros non-zero: a black picture is not (0, 0, 0).
    return binascii.crc_hqx(payload, 0xFFFF)


@lru_cache(maxsize=16)
def _cell_map(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cell of each row and of each column within the extent: a pixel belongs to the cell that holds its middle."""
    return _cells_along(height), _cells_along(width)


def _cells_along(length: int) -> NDArray[np.int64]:
    middles = np.arange(length) + 0.5
    cells = np.floor(middles[middles < length * EXTENT] * GRID / (length * EXTENT))
    return np.asarray(cells, dtype=np.int64)


@lru_cache(maxsize=16)
def _probe_points(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    fractions = (np.arange(GRID)[:, None] + np.asarray(_PROBES)).ravel() * EXTENT / GRID
    return np.floor(fractions * height).astype(np.int64), np.floor(fractions * width).astype(np.int64)
