"""Handing over: a ready slot becomes a dict of arrays or tensors, leased or copied."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._arena.layout import SlotPool
from millpond._arena.leases import Leases, field_of
from millpond._arena.memory import ArenaMemory
from millpond._plan.pond import ReadyBatch
from millpond._values import Field
from millpond.errors import ArenaFull

logger = logging.getLogger("millpond")


class Outbox:
    """Makes batches out of slots, and knows who holds what.

    Up to `held_batches` batches live on their slots. One more is copied to the heap, so that the user who keeps
    batches cannot bring the pond to a standstill; copies are counted and warned of once. Past `heap_bytes` of copies
    `ArenaFull` says what is held.

    Args:
        arena: Where the slots are.
        pool: The slots that batches leave in.
        fields: Of the arrays in them, by name.
        held_batches: Batches that may stay on their slots.
        heap_bytes: Most bytes of copies alive at once.
        leases: Of slots.
        release: Gives a slot back that was not lent.
        as_tensors: Whether torch tensors are made.
    """

    def __init__(
        self,
        arena: ArenaMemory,
        pool: SlotPool,
        fields: dict[str, Field],
        *,
        held_batches: int,
        heap_bytes: int,
        leases: Leases[int],
        release: Callable[[int], None],
        as_tensors: bool,
    ) -> None:
        self._whole = np.frombuffer(arena.buffer, np.uint8)
        self._arena = arena
        self._address = self._whole.ctypes.data
        self._pool = pool
        self._fields = fields
        self._held_batches = held_batches
        self._heap_limit = heap_bytes
        self._leases = leases
        self._release = release
        self._as_tensors = as_tensors
        if as_tensors:
            import torch

            self._from_numpy = torch.from_numpy
        self._facts = [
            (name, pool.layout.placements[name].offset, field.shape, np.dtype(field.dtype), _batch_axes(field))
            for name, field in fields.items()
        ]
        self._lent: dict[int, int] = {}  # slot -> the last batch that left on it
        self._copies: Leases[tuple[int, int]] = Leases()  # of (number of the copy, batch)
        self.heap_copies = 0
        self._has_warned = False

    @property
    def held_batches(self) -> int:
        """Batches that the user holds on slots."""
        return len(self._leases.held())

    @property
    def copied_bytes(self) -> int:
        """Bytes of copies that the user holds."""
        return len(self._copies.held()) * self._pool.layout.slot_bytes

    def close_up(self, ready: ReadyBatch) -> NDArray[np.int64]:
        """Move the rows that have data to the front, in order, and zero the rest; returns the samples that stay."""
        if not ready.failures:
            return ready.samples
        good = np.asarray([row not in ready.failures for row in range(len(ready.samples))])
        for name in self._fields:
            rows = self._pool.view(self._arena.buffer, ready.slot, name)
            target = 0
            for row in np.flatnonzero(good):
                if row != target:
                    rows[target] = rows[row]
                target += 1
            rows[target:] = 0
        kept: NDArray[np.int64] = ready.samples[good]
        return kept

    def blank(self, ready: ReadyBatch) -> NDArray[np.bool_]:
        """Zero the rows that have no data, where they are; bool (n,), which rows are valid."""
        valid = np.ones(len(ready.samples), np.bool_)
        valid[list(ready.failures)] = False
        for name in self._fields:
            self._pool.view(self._arena.buffer, ready.slot, name)[: len(valid)][~valid] = 0
        return valid

    def fill_up(self, ready: ReadyBatch, valid: NDArray[np.bool_], padding: NDArray[np.int64]) -> None:
        """Make some rows copies of the valid ones, in turn; zeros where there are none."""
        if not len(padding):
            return
        good = np.flatnonzero(valid)
        sources = np.resize(good, len(padding)) if len(good) else good
        for name in self._fields:
            rows = self._pool.view(self._arena.buffer, ready.slot, name)
            rows[padding] = 0
            for target, source in zip(padding.tolist(), sources.tolist(), strict=False):
                rows[target] = rows[source]

    def delivered(self, array: NDArray[Any]) -> Any:
        """A small array of its own memory as batches have them: a tensor, or itself."""
        return self._from_numpy(array) if self._as_tensors else array

    def require_room(self, ready: ReadyBatch) -> None:
        """Before `hand_over`: raise ArenaFull where a copy has no room, and warn once where there must be one."""
        if self.held_batches < self._held_batches:
            return
        if self._pool.layout.slot_bytes > self._heap_limit - self.copied_bytes:
            raise self._full(ready.batch)
        if not self._has_warned:
            self._has_warned = True  # first: where warnings are errors the batch is asked for again
            warnings.warn(
                f"more than held_batches={self._held_batches} batches are held at once (any one array of a batch holds "
                "all of it): batches are copied to the heap until some are let go; raise held_batches= to lease them",
                RuntimeWarning,
                stacklevel=4,  # the user's loop: require_room, _hand_over and __next__ are ours
            )

    def hand_over(self, ready: ReadyBatch, rows: int) -> dict[str, Any]:
        """The first `rows` rows of a batch; its slot is given back when the last array of it is gone.

        From now on the slot is no more the caller's, also where this raises.
        """
        if self.held_batches >= self._held_batches:
            return self._copy(ready, rows)
        slot = ready.slot
        self._lent[slot] = ready.batch
        address = self._address + self._pool.offset_of(slot)
        return self._present(self._leases.lend(slot, self._whole, address, self._pool.layout.slot_bytes), rows)

    def close(self) -> None:
        """Keep the arena alive for leases only: an exception that holds this object shall not hold the memory too."""
        self._whole = np.empty(0, np.uint8)

    def _copy(self, ready: ReadyBatch, rows: int) -> dict[str, Any]:
        wanted = self._pool.layout.slot_bytes
        start = self._pool.offset_of(ready.slot)
        heap = self._whole[start : start + wanted].copy()
        self._release(ready.slot)
        self.heap_copies += 1
        for _ in self._copies.ended():
            pass  # nobody waits for them
        return self._present(self._copies.lend((self.heap_copies, ready.batch), heap, heap.ctypes.data, wanted), rows)

    def _full(self, batch: int) -> ArenaFull:
        wanted, free = self._pool.layout.slot_bytes, max(0, self._heap_limit - self.copied_bytes)
        on_slots = sorted(self._lent[slot] for slot in self._leases.held())
        copied = sorted(batch for _, batch in self._copies.held())
        return ArenaFull(
            f"no room for batch {batch} ({wanted / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are left of memory=): "
            f"batches {_spelled(on_slots)} are held on their slots, and {_spelled(copied)} as copies. Let go sooner "
            "(any one array of a batch holds all of it), or raise memory= or held_batches=",
            wanted_bytes=wanted,
            free_bytes=free,
            holders={"slots": on_slots, "copies": copied},
        )

    def _present(self, whole: NDArray[np.uint8], rows: int) -> dict[str, Any]:
        """The fields of a slot's bytes, as the user gets them."""
        batch: dict[str, Any] = {}
        for name, offset, shape, dtype, axes in self._facts:
            value = field_of(whole, offset, (rows, *shape), dtype)
            if axes is not None:
                value = value.transpose(axes)
            batch[name] = self._from_numpy(value) if self._as_tensors else value
        return batch


def _batch_axes(field: Field) -> tuple[int, ...] | None:
    """Stored (B, ..., H, W, C) frames as (B, ..., C, H, W); None for what stays as it is."""
    axes = field.delivered_axes
    return None if axes is None else (0, *(axis + 1 for axis in axes))


def _spelled(batches: list[int]) -> str:
    """Their numbers, the first of them where they are many."""
    shown = ", ".join(map(str, batches[:8]))
    return f"{shown}, ... ({len(batches)} in all)" if len(batches) > 8 else shown or "none"
