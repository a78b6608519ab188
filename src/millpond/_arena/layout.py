"""Where the fields of a slot lie. Pure arithmetic, the same in every process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millpond._values import Field

FIELD_ALIGNMENT = 64
"""Bytes: a cache line, and what torch's own allocator gives."""

SLOT_ALIGNMENT = 4096
"""Bytes: a page, so that no two slots share one."""


def aligned(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`."""
    return -(-size // alignment) * alignment


@dataclass(frozen=True, slots=True)
class Placement:
    """One field of a slot: shape with the leading rows, and its offset in bytes from the slot's start."""

    field: Field
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """A slot that holds some rows of every field, each field in one contiguous piece.

    Attributes:
        placements: Field name -> where it lies.
        slot_bytes: Size of a slot, a multiple of `SLOT_ALIGNMENT`.
    """

    placements: dict[str, Placement]
    slot_bytes: int

    @classmethod
    def of(cls, fields: Sequence[tuple[Field, int]]) -> SlotLayout:
        """Lay out fields, each with its number of rows."""
        placements, offset = {}, 0
        for field, rows in fields:
            placements[field.name] = Placement(field, (rows, *field.shape), offset)
            offset = aligned(offset + rows * field.sample_bytes, FIELD_ALIGNMENT)
        return cls(placements, aligned(max(offset, 1), SLOT_ALIGNMENT))


@dataclass(frozen=True, slots=True)
class SlotPool:
    """`count` slots of one layout, `offset` bytes into the arena."""

    layout: SlotLayout
    offset: int
    count: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all slots."""
        return self.layout.slot_bytes * self.count

    def offset_of(self, slot: int) -> int:
        """Where a slot starts, in bytes from the arena's start."""
        if not 0 <= slot < self.count:
            raise IndexError(f"slot {slot} of {self.count}")
        return self.offset + slot * self.layout.slot_bytes

    def view(self, buffer: memoryview, slot: int, name: str) -> NDArray[np.generic]:
        """The rows of a field in a slot, (rows, ...), over `buffer`; writable where the buffer is."""
        placement = self.layout.placements[name]
        count = math.prod(placement.shape)
        flat = np.frombuffer(buffer, np.dtype(placement.field.dtype), count, self.offset_of(slot) + placement.offset)
        return flat.reshape(placement.shape)
