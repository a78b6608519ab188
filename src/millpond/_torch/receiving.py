"""In the training process: batches out of their slots, lent or copied, and what `memory=` allows of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._arena.leases import Leases
from millpond._guard.parcels import unpack
from millpond._guard.result_slots import ResultSlots
from millpond.errors import ArenaFull

logger = logging.getLogger("millpond")


class Receiver:
    """Unpacks batches, and knows what of them is still held.

    Up to `held_batches` of them live on their slots. One more is copied to the heap, so that who keeps batches never
    waits for himself; copies are counted, and said once. With a budget, slots and copies together stay within it.

    Args:
        slots: That batches come in; None where they come in messages.
        held_batches: That may be lent at once.
        memory_bytes: For batches under way, held and copied; None: any.
        num_workers: As many batches are under way while it is not known how large they are.
    """

    def __init__(
        self, slots: ResultSlots | None, *, held_batches: int, memory_bytes: int | None, num_workers: int
    ) -> None:
        self.slots = slots
        self.memory_bytes = memory_bytes
        self.heap_copies = 0
        self.largest_bytes = 0
        self._held_batches = held_batches
        self._least_in_use = num_workers
        self._copies: Leases[tuple[int, int]] = Leases()  # of (number of the copy, bytes)

    @property
    def held_batches(self) -> int:
        """On their slots."""
        return 0 if self.slots is None else self.slots.leased

    @property
    def copied_bytes(self) -> int:
        """Of copies that are held."""
        return sum(size_bytes for _, size_bytes in self._copies.held())

    def has_room(self, in_use: int) -> bool:
        """Whether one more batch may be made, with so many slots in use for others that were not delivered yet."""
        if self.memory_bytes is None:
            return True
        if not self.largest_bytes:
            return in_use < self._least_in_use  # nobody knows yet how large batches are
        return self._used_by(in_use + self.held_batches + 1) <= self.memory_bytes

    def _used_by(self, slots: int) -> int:
        return slots * self.largest_bytes + self.copied_bytes

    def receive(self, message: bytes | memoryview, slot: int | None) -> Any:
        """The value of a parcel's message; the slot is given back when the last array of it is gone.

        Raises:
            ArenaFull: A copy would pass the budget. The slot stays as it is: ask again when others were let go.
        """
        self.largest_bytes = max(self.largest_bytes, 1)  # known, if all of them fit into messages
        if self.slots is None or slot is None:
            return unpack(message)
        reader = _Reader(self, self.slots, slot)
        try:
            value = unpack(message, reader)
        except ArenaFull:
            raise
        except BaseException:
            reader.close()
            raise
        reader.close()
        return value

    def lend(self, slot: int, parts: Sequence[tuple[int, int]]) -> Sequence[Any] | None:
        """Parts of a slot as they lie there; None if they must be copied."""
        assert self.slots is not None
        self.largest_bytes = max(self.largest_bytes, max(stop for _, stop in parts))
        self.slots.take_back()
        return self.slots.lend(slot, parts) if self.slots.leased < self._held_batches else None

    def copy(self, slot: int, parts: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Parts of a slot in memory of their own."""
        assert self.slots is not None
        size_bytes = sum(stop - start for start, stop in parts)
        if self.memory_bytes is not None and self._used_by(self.held_batches + 1) + size_bytes > self.memory_bytes:
            raise self.full(size_bytes)
        self.heap_copies += 1
        if self.heap_copies == 1:
            logger.warning(
                "more than held_batches=%d batches are held at once: they are copied until some are let go",
                self._held_batches,
            )
        for _ in self._copies.ended():
            pass  # nobody waits for them
        heap: NDArray[np.uint8] = np.empty(size_bytes, np.uint8)
        lent = self._copies.lend((self.heap_copies, size_bytes), heap, heap.ctypes.data, size_bytes)
        whole = memoryview(lent)  # type: ignore[arg-type]
        copied, at = [], 0
        for start, stop in parts:
            part = whole[at : at + stop - start]
            part[:] = self.slots.view(slot, start, stop)
            copied.append(part)
            at += stop - start
        return copied

    def full(self, wanted_bytes: int) -> ArenaFull:
        """What is said when what the user holds leaves no room for a batch."""
        assert self.memory_bytes is not None
        copies = sorted(number for number, _ in self._copies.held())
        return ArenaFull(
            f"no room for a batch of {wanted_bytes / 2**20:.1f} MiB in memory={self.memory_bytes / 2**20:.1f} MiB: "
            f"{self.held_batches} batches are held on their slots, and {len(copies)} as copies of "
            f"{self.copied_bytes / 2**20:.1f} MiB. Let go sooner (any one tensor of a batch holds all of it), or raise "
            "memory=",
            wanted_bytes=wanted_bytes,
            free_bytes=max(0, self.memory_bytes - self._used_by(self.held_batches)),
            holders={"slots": self.held_batches, "copies": copies},
        )


class _Reader:
    """Reads one batch out of its slot; see `parcels.SlotReader`."""

    def __init__(self, receiver: Receiver, slots: ResultSlots, slot: int) -> None:
        self._receiver = receiver
        self._slots = slots
        self._slot = slot
        self._is_lent = False

    def view(self, start: int, stop: int) -> memoryview | bytearray:
        """A part, to be read before `close`."""
        return self._slots.view(self._slot, start, stop)

    def take(self, parts: Sequence[tuple[int, int]]) -> Sequence[Any]:
        """Parts that stay: over the slot, or copies."""
        self._is_lent = True  # before it is: an interrupt may lose a slot, and never give one back twice
        lent = self._receiver.lend(self._slot, parts)
        if lent is None:
            self._is_lent = False
            lent = self._receiver.copy(self._slot, parts)
        return lent

    def close(self) -> None:
        """The batch was read."""
        if not self._is_lent:
            self._slots.release(self._slot)
