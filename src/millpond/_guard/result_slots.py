"""Slots as the caller keeps them: reserved for a call, lent to the user with its result, taken back.

::

    free -reserve-> the call's -lend-> leased -the last view is gone-> free
                               -view / release-----------------------> free
    leased -this process forks-> retired: never used again, whoever returns it

Who may do what: only the thread that drives the guard reserves; whose call it is may write its arguments and read its
result; anybody, a finalizer too, may release. In a forked child results stay readable, and nothing else may be done.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Sequence

from millpond._arena.leases import Leases
from millpond._guard.slot_file import Mapping, SlotFile, create_slot_file

SLOT_KEPT_BYTES = 64 << 20
"""A free slot with more memory than this gives it back: fresh pages cost 1 ms per MiB, and results of this size are
rare."""
ALL_KEPT_BYTES = 256 << 20
"""All free slots together."""
RETIRED_BYTES = 256 << 20
"""With more than this in slots that forked children may read, results are copied and not lent any more."""


class ResultSlots:
    """The slots of one pool of workers; their memory goes with the last result.

    Args:
        max_leases: Slots that may be lent at once.
        keeps_memory: Whether free slots keep theirs, however much it is: for results that are all of one size.

    Raises:
        OSError: This machine has no such memory.
    """

    def __init__(self, max_leases: int, *, keeps_memory: bool = False) -> None:
        self.descriptor = create_slot_file()
        self.is_closed = False
        self._max_leases = max_leases
        self._keeps_memory = keeps_memory
        self._file = SlotFile(self.descriptor)
        self._count = 0
        self._free: list[int] = []  # the last one returned is the first to be used: its memory is in the cache
        self._leases: Leases[int] = Leases()
        self._returned: deque[int] = deque()  # by any thread; taken back by the one that reserves
        self._unread: deque[int] = deque()
        self._leased: set[int] = set()
        self._retired: set[int] = set()
        self._written_bytes: dict[int, int] = {}  # most since the slot was last emptied
        self._forks = 0  # that are under way
        _all_slots.add(self)

    def close(self) -> None:
        """Give the descriptor back; results that were read stay. Idempotent."""
        self.is_closed = True
        self._file.close()

    def reserve(self) -> int:
        """A slot for a call."""
        self.take_back()
        if self._free:
            return self._free.pop()
        self._count += 1
        return self._count - 1

    def release(self, slot: int) -> None:
        """Nobody needs what is in the slot. Any thread, also amid a garbage collection."""
        self._returned.append(slot)

    def release_unread(self, slot: int) -> None:
        """The same, of a slot that nobody has looked into: it may hold a result of any size."""
        self._unread.append(slot)
        self._returned.append(slot)

    def empty(self, slot: int) -> None:
        """Give a slot's memory back to the machine: a worker that was killed may have written any amount to it."""
        self._written_bytes.pop(slot, None)
        self._file.empty(slot)

    def mapping(self, slot: int, size_bytes: int) -> Mapping:
        """For the one whose call it is; OSError where it cannot be mapped."""
        self._note_written(slot, size_bytes)
        return self._file.mapping(slot, size_bytes)

    def lend(self, slot: int, parts: Sequence[tuple[int, int]]) -> list[memoryview] | None:
        """Parts of a slot as writable buffers; the slot is free again when the last view of them is gone.

        Args:
            slot: That a result was written to.
            parts: Where each lies, (start, stop) in bytes.

        Returns:
            None if so many slots are lent that this must not be: the caller copies.
        """
        if len(self._leased) >= self._max_leases or self._bytes_in(self._retired) > RETIRED_BYTES:
            return None
        try:
            size_bytes = max(stop for _, stop in parts)
            mapping = self.mapping(slot, size_bytes)
        except OSError:
            return None
        self._leased.add(slot)
        # Views of views: pickle and numpy may each put another around a part, and the chain holds the lease.
        whole = memoryview(self._leases.lend(slot, mapping, mapping.address or 0, size_bytes))  # type: ignore[arg-type]
        return [whole[start:stop] for start, stop in parts]

    def view(self, slot: int, start: int, stop: int) -> memoryview | bytearray:
        """A part of a slot, to be read before it is released."""
        self._note_written(slot, stop)
        return self._file.view(slot, start, stop)

    @property
    def leased(self) -> int:
        """How many slots are lent now."""
        return len(self._leased.intersection(self._leases.held()))

    @property
    def memory_bytes(self) -> int:
        """What all slots may take together, as far as it is known here."""
        return sum(self._written_bytes.values())

    def _note_written(self, slot: int, size_bytes: int) -> None:
        self._written_bytes[slot] = max(size_bytes, self._written_bytes.get(slot, 0))

    def _bytes_in(self, slots: set[int] | list[int]) -> int:
        return sum(self._written_bytes.get(slot, 0) for slot in slots) if slots else 0

    def take_back(self) -> None:
        """Count what was returned as free. For the thread that reserves."""
        while self._returned and not self._forks:
            slot = self._returned.popleft()
            if slot in self._unread:
                self._unread.remove(slot)
                self.empty(slot)
            self._free_again(slot)
        ended = self._leases.ended()
        while not self._forks and (slot := next(ended, -1)) >= 0:
            self._free_again(slot)

    def _free_again(self, slot: int) -> None:
        if slot in self._retired:
            return
        self._leased.discard(slot)
        self._free.append(slot)
        if self._keeps_memory:
            return
        written = self._written_bytes.get(slot, 0)
        if written > SLOT_KEPT_BYTES or self._bytes_in(self._free) > ALL_KEPT_BYTES:
            self.empty(slot)

    # ---- forks of this process

    def hold_still(self) -> None:
        """Before a fork: no slot changes hands, until it is known which ones the child can see."""
        self._forks += 1

    def retire_leased(self) -> None:
        """After it, in the parent: the child may read what was lent then for as long as it likes."""
        for slot in list(self._leased):  # one by one: other threads add to them
            self._retired.add(slot)
            self._leased.discard(slot)
        self._forks -= 1


_all_slots: weakref.WeakSet[ResultSlots] = weakref.WeakSet()


def _hold_all_still() -> None:
    for slots in list(_all_slots):
        slots.hold_still()


def _retire_all_leased() -> None:
    for slots in list(_all_slots):
        slots.retire_leased()


os.register_at_fork(before=_hold_all_still, after_in_parent=_retire_all_leased)


class ResultReader:
    """Reads one result out of its slot, see `parcels.SlotReader`; closed when that is done.

    Attributes:
        is_lent: Whether the result stays in the slot: then its last view gives it back, and else `close`.
    """

    def __init__(self, slots: ResultSlots, slot: int) -> None:
        self.is_lent = False
        self._slots = slots
        self._slot = slot

    def view(self, start: int, stop: int) -> memoryview | bytearray:
        """A part, to be read before `close`."""
        return self._slots.view(self._slot, start, stop)

    def take(self, parts: Sequence[tuple[int, int]]) -> Sequence[memoryview | bytearray]:
        """Parts that stay: over the slot, or copies."""
        self.is_lent = True  # before it is: an interrupt may lose a slot, and never give one back twice
        lent = self._slots.lend(self._slot, parts)
        if lent is None:
            self.is_lent = False
        return [bytearray(self.view(*part)) for part in parts] if lent is None else lent

    def close(self) -> None:
        """The result was read."""
        if not self.is_lent:
            self._slots.release(self._slot)
