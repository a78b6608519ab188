"""Where packets of an MPEG transport stream are missing, by the byte that each of them begins with.

The packets count themselves, but only to 15: FFmpeg sees no loss of 16 of them, nor of any number that ends just so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_SYNC = 0x47
_FORMS = ((188, 0), (192, 4), (204, 0))
"""(bytes of a packet, those before its first): as broadcast, on disks (M2TS), with parity."""

_SURE_PACKETS = 5
"""So many in a row are no chance."""

_CHUNK_BYTES = 4 << 20


def lost_places(path: str) -> tuple[int, ...]:
    """Ascending positions in a file at which no packet begins where one must; empty if it has no packets at all."""
    if not os.path.getsize(path):
        return ()
    return tuple(_lost(np.memmap(path, np.uint8, "r")))


def _lost(data: NDArray[np.uint8]) -> Iterator[int]:
    begin = _first_packet(data, 0)
    while begin is not None:
        position, size, lead = begin
        lost = _end_of_run(data, position, size, lead)
        if lost >= len(data):
            return
        yield lost
        begin = _first_packet(data, lost + 1)


def _end_of_run(data: NDArray[np.uint8], position: int, size: int, lead: int) -> int:
    """Where packets that follow each other from `position` on end; beyond the file if none is missing."""
    step = _CHUNK_BYTES // size * size
    for start in range(position, len(data), step):
        wrong = np.flatnonzero(data[start + lead : start + step : size] != _SYNC)
        if len(wrong):
            return start + int(wrong[0]) * size
    return len(data)


def _first_packet(data: NDArray[np.uint8], start: int) -> tuple[int, int, int] | None:
    """The first position from `start` on at which several packets in a row begin, their size and their lead."""
    for chunk in range(start, len(data), _CHUNK_BYTES):
        for at in np.flatnonzero(data[chunk : chunk + _CHUNK_BYTES] == _SYNC).tolist():
            for size, lead in _FORMS:
                heads = data[chunk + at : chunk + at + size * _SURE_PACKETS : size]
                if len(heads) == _SURE_PACKETS and (heads == _SYNC).all():
                    return max(chunk + at - lead, start), size, lead
    return None
