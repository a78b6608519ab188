"""In a worker: the slot that a batch is made in.

Tensors made in it are views of shared memory until the batch was sent. One that somebody keeps after that (a collate
function with a memory of its own) becomes the worker's own, or the next batch would be written over it.
"""

from __future__ import annotations

import mmap
from typing import Any

import torch

from millpond._arena.leases import Leases
from millpond._guard.parcels import Parcel
from millpond._guard.slot_file import Mapping, SlotFile
from millpond._guard.slot_writer import SlotWriter

_WIDEST_BYTES = 1 << 36
"""Of a batch. A slot is mapped once, so that tensors in it stay where they are; what is not touched costs addresses."""


class BatchSlot:
    """One slot while one batch is made.

    Args:
        file: Of the slots.
        slot: In it.
        limit_bytes: Most that the batch may have; None: as much as there is.
    """

    def __init__(self, file: SlotFile, slot: int, limit_bytes: int | None) -> None:
        self._file = file
        self._slot = slot
        self._writer = SlotWriter(self._map, limit_bytes)
        self._mapping: Mapping | None = None
        self._extent_bytes = 0
        self._leases: Leases[int] = Leases()  # by address

    def _map(self, size_bytes: int) -> Mapping:
        if self._mapping is None:
            self._mapping = self._file.mapping(self._slot, _WIDEST_BYTES)
        self._extent_bytes = max(self._extent_bytes, size_bytes)
        return self._mapping

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        """A tensor in the slot.

        Raises:
            ArenaFull: It passes the limit.
            OSError: The slot cannot be mapped.
        """
        size_bytes = dtype.itemsize
        for length in shape:
            size_bytes *= length
        address = self._writer.reserve(size_bytes)
        lent = self._leases.lend(address, self._mapping, address, size_bytes)
        return torch.from_numpy(lent).view(dtype).view(shape)

    def send(self, parcel: Parcel) -> bytes:
        """The message of a parcel whose buffers lie in the slot, or are put there."""
        return parcel.send(self._writer)

    def close(self) -> None:
        """The batch was packed, and nobody should have a tensor of it any more.

        Raises:
            OSError: Somebody has, and there is no room to keep it for him: the next batch would be written over it.
        """
        if self._mapping is not None and self._leases.held():
            self._file.forget(self._slot)
            pages = -(-self._extent_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            self._mapping.detach(pages)
