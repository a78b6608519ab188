"""Where packets of an MPEG transport stream are missing, by the byte that each of them begins with.

The packets count themselves, but only to 15: FFmpeg sees no loss of 16 of them, nor of any number that ends just so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

_SYNC = 0x47
_FORMS = ((188, 0), (192, 4), (204, 0))
"""(bytes of a packet, those before its first): as broadcast, on disks (M2TS), with parity."""

_SURE_PACKETS = 5
"""So many in a row are no chance."""

_RUN_BYTES, _SEARCH_BYTES = 4 << 20, 16 << 10
"""Looked at in one go: packets that follow each other; and, where one is missing, bytes until the next is found."""


def lost_places(path: str, progress: Callable[[], None]) -> tuple[int, ...]:
    """Ascending positions in a file at which no packet begins where one must; empty if it has no packets at all.

    Args:
        path: The file.
        progress: Called for every part that was read.
    """
    with open(path, "rb", buffering=0) as file:
        return tuple(_Scan(file.fileno(), progress).lost())


class _Scan:
    """One walk through a file."""

    def __init__(self, descriptor: int, progress: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._size_bytes = os.fstat(descriptor).st_size
        self._progress = progress

    def lost(self) -> Iterator[int]:
        begin = self._first_packet(0)
        while begin is not None:
            position, size, lead = begin
            lost = self._end_of_run(position, size, lead)
            if lost >= self._size_bytes:
                return
            yield lost
            begin = self._first_packet(lost + 1)

    def _end_of_run(self, position: int, size: int, lead: int) -> int:
        """Where packets that follow each other from `position` on end; beyond the file if none is missing."""
        step = _RUN_BYTES // size * size
        for start in range(position, self._size_bytes, step):
            wrong = np.flatnonzero(self._bytes(start, start + step)[lead::size] != _SYNC)
            if len(wrong):
                return start + int(wrong[0]) * size
        return self._size_bytes

    def _first_packet(self, start: int) -> tuple[int, int, int] | None:
        """The first position from `start` on at which several packets in a row begin, their size and their lead."""
        longest = max(size for size, _ in _FORMS) * _SURE_PACKETS
        for chunk in range(start, self._size_bytes, _SEARCH_BYTES):
            data = self._bytes(chunk, chunk + _SEARCH_BYTES + longest)
            for at in np.flatnonzero(data[:_SEARCH_BYTES] == _SYNC).tolist():
                for size, lead in _FORMS:
                    heads = data[at : at + size * _SURE_PACKETS : size]
                    if len(heads) == _SURE_PACKETS and (heads == _SYNC).all():
                        return max(chunk + at - lead, start), size, lead
        return None

    def _bytes(self, start: int, stop: int) -> NDArray[np.uint8]:
        self._progress()
        return np.frombuffer(os.pread(self._descriptor, stop - start, start), np.uint8)
