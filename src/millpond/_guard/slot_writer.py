"""The sender's side of a slot: parts are put one after the other, or were made in it and are found there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from millpond._guard.slot_file import Mapping
from millpond._workers.surroundings import STREAMED_BYTES, streams_copies
from millpond.errors import ArenaFull

_ALIGNMENT = 64
"""A cache line, and what torch's own allocator gives."""

_STREAMS = streams_copies()
"""Found out when a zygote imports this: its workers' environment may become the training process's."""

MapSlot = Callable[[int], Mapping]
"""Gives at least the first so many bytes of a slot; OSError where they cannot be mapped."""


class SlotWriter:
    """Fills a slot from its start on. Parts are (start, stop) in bytes.

    Args:
        map_slot: Gives the slot's memory.
        limit_bytes: Most that may be written; None: as much as there is.
    """

    def __init__(self, map_slot: MapSlot, limit_bytes: int | None = None) -> None:
        self._map_slot = map_slot
        self._limit_bytes = limit_bytes
        self._end = 0
        self._reserved: dict[int, tuple[int, int]] = {}  # address -> part

    def reserve(self, size_bytes: int) -> int:
        """The address of a part to be written to in place, as long as the slot stays mapped; `put` will find it.

        Raises:
            ArenaFull: It passes the limit.
            OSError: No room for the mapping.
        """
        start, stop = self._next(size_bytes)
        mapping = self._map_slot(stop)
        self._end = stop
        assert mapping.address is not None
        self._reserved[mapping.address + start] = start, stop
        return mapping.address + start

    def put(self, pieces: Sequence[Any]) -> tuple[int, int]:
        """A part made of these buffers in a row, copied, or found where it lies already; raises as `reserve` does."""
        if self._reserved and len(pieces) == 1:
            found = self._reserved.get(_address_of(pieces[0]))
            if found is not None and found[0] + pieces[0].nbytes <= found[1]:
                return found[0], found[0] + pieces[0].nbytes
        size_bytes = sum(map(len, pieces))
        start, stop = self._next(size_bytes)
        slot = self._map_slot(stop).bytes
        self._end = stop
        if len(pieces) == 1:
            _copy(slot[start:stop], memoryview(pieces[0]))
            return start, stop
        at = start
        for piece in pieces:
            slot[at : at + len(piece)] = piece
            at += len(piece)
        return start, stop

    def _next(self, size_bytes: int) -> tuple[int, int]:
        start = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        stop = start + size_bytes
        if self._limit_bytes is not None and stop > self._limit_bytes:
            raise ArenaFull(
                f"a batch of more than {stop >> 20} MiB does not fit into memory={self._limit_bytes >> 20} MiB: raise "
                "memory=, or make batches smaller",
                wanted_bytes=stop,
                free_bytes=self._limit_bytes,
                holders={},
            )
        return start, stop


def _address_of(buffer: memoryview) -> int:
    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address


def _copy(target: memoryview, source: memoryview) -> None:
    """Copy bytes, many; `target` is aligned.

    numpy's loop over words is faster than memmove, to which memoryviews and numpy's copies come down: 81 us against 99
    for 3.2 MB that were just written (AMD Zen 4, where memmove is `rep movsb`). For much more, memmove is faster, where
    it goes past the cache.
    """
    if _STREAMS and source.nbytes >= STREAMED_BYTES:
        target[:] = source
        return
    words = source.nbytes // 8
    from_words = np.frombuffer(source, np.uint64, words)
    if not from_words.flags.aligned:
        target[:] = source
        return
    np.positive(from_words, out=np.frombuffer(target, np.uint64, words))
    target[8 * words :] = source[8 * words :]
