"""The pond: which task may start, which batch is ready, which slot is free. Pure; the loader drives it.

Theory of operation. A plan's segments are dispatched in order, one task per part (camera). Where their frames go is one
of two layouts:

direct
    Slots of the pond hold open batches. A segment opens every batch it has a row in; a batch whose rows have all come
    is ready, and is handed over on that very slot.
gathered
    Slots of the pond hold decoded segments (blocks). A batch whose segments have all come is copied together into a
    slot of the outlet by a finish task; a block is free again when the last batch that wants it is finished.

A transform also makes a finish task, from the open batch into the outlet. So a batch is *complete* when its frames are
there, *finished* when it lies where the user will see it, and *delivered* in the order of the plan. Slots that the user
holds come back with `release`.

Task ids are given once. A task may be carried out twice, never at once: the supervisor reaps a dead worker first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from millpond._plan.epoch import EpochPlan

Layout = Literal["direct", "gathered"]

_BLOCK_SAMPLES = 8192
"""Tables of segments and batches are made for so many samples at once: 1 ms, and nothing to hold for an epoch."""


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """Decode one part of one segment.

    Attributes:
        task_id: Unique within the pond.
        part: Index of the part (camera).
        samples: int64 (L,).
        slots: int64 (L,), pond slot per sample: its open batch, or (all the same) the segment's block.
        rows: int64 (L,), row of each sample in that slot.
        segment: Number of the segment in the plan's order.
    """

    task_id: int
    part: int
    samples: NDArray[np.int64]
    slots: NDArray[np.int64]
    rows: NDArray[np.int64]
    segment: int


@dataclass(frozen=True, slots=True)
class FinishTask:
    """Bring a complete batch into a slot of the outlet.

    Attributes:
        task_id: Unique within the pond.
        batch: Number of the batch.
        outlet_slot: Where the batch goes.
        samples: int64 (n,), sample indices of the rows that have data.
        slots: int64 (n,), pond slot from which each row comes.
        slot_rows: int64 (n,), row of each in that slot.
        rows: int64 (n,), row of each in the batch.
    """

    task_id: int
    batch: int
    outlet_slot: int
    samples: NDArray[np.int64]
    slots: NDArray[np.int64]
    slot_rows: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReadyBatch:
    """A batch that lies where the user will see it.

    Attributes:
        batch: Number of the batch.
        slot: In the outlet where the pond finishes batches, else in the pond.
        samples: int64 (n,), the sample of each row, failed ones included.
        failures: row -> why it has no data.
    """

    batch: int
    slot: int
    samples: NDArray[np.int64]
    failures: dict[int, Exception]


@dataclass(slots=True)
class _Segment:
    first: int
    batches: list[int]  # that it has rows in, ascending
    counts: list[int]  # rows in each
    waiting_parts: int
    unfinished_batches: int  # of `batches`: while there are any, its block is wanted


@dataclass(slots=True)
class _Batch:
    waiting: int  # (sample, part) pairs that have not come
    slot: int = -1
    failures: dict[int, Exception] = field(default_factory=dict)


class _Touches:
    """Which batches segments have rows in, and how many; found for a block of segments at once, in their order."""

    def __init__(self, plan: EpochPlan) -> None:
        self._plan = plan
        self._segments = range(0)
        self._bounds: list[int] = []
        self._batches: list[int] = []
        self._counts: list[int] = []
        self._positions: NDArray[np.int64] = np.zeros(0, np.int64)

    def of(self, segment: int) -> tuple[list[int], list[int], NDArray[np.int64]]:
        """Its batches, ascending; its rows in each; and for each of its entries the position of its batch in those."""
        if segment not in self._segments:
            self._look_at_block(segment)
        place = segment - self._segments.start
        first, stop = self._bounds[place : place + 2]
        entries = self._plan.segment_bounds[segment : segment + 2] - self._plan.segment_bounds[self._segments.start]
        positions: NDArray[np.int64] = self._positions[entries[0] : entries[1]] - first
        return self._batches[first:stop], self._counts[first:stop], positions

    def _look_at_block(self, start: int) -> None:
        # One sort for a block: numpy's fixed cost per call would be most of what a task costs the training process.
        bounds = self._plan.segment_bounds
        stop = int(np.searchsorted(bounds, bounds[start] + _BLOCK_SAMPLES))
        stop = min(max(stop, start + 1), self._plan.num_segments)
        self._segments = range(start, stop)
        segment_of = np.repeat(np.arange(len(self._segments)), np.diff(bounds[start : stop + 1]))
        num_batches = self._plan.num_batches
        pairs, self._positions, counts = np.unique(
            segment_of * num_batches + self._plan.batches[bounds[start] : bounds[stop]],
            return_inverse=True,
            return_counts=True,
        )
        self._bounds = np.searchsorted(pairs, np.arange(len(self._segments) + 1) * num_batches).tolist()
        self._batches, self._counts = (pairs % num_batches).tolist(), counts.tolist()


class Pond:
    """The state of one epoch between plan and user.

    Args:
        plan: The order.
        num_parts: Tasks per segment.
        layout: Where segments go.
        pond_slots: Slots for open batches (direct) or blocks (gathered) that are free at the start.
        outlet_slots: Slots for finished batches that are free at the start; None: batches need no finishing.
    """

    def __init__(
        self,
        plan: EpochPlan,
        *,
        num_parts: int,
        layout: Layout,
        pond_slots: list[int],
        outlet_slots: list[int] | None,
    ) -> None:
        if layout == "gathered" and outlet_slots is None:
            raise ValueError("the gathered layout needs outlet slots")
        self._plan = plan
        self._num_parts = num_parts
        self._gathered = layout == "gathered"
        self._pond_slots = len(pond_slots)
        self._free_pond = deque(pond_slots)
        self._free_outlet = None if outlet_slots is None else deque(outlet_slots)
        self._sizes = plan.batch_sizes
        self._batches: dict[int, _Batch] = {}  # those that have been opened, and not left
        self._next_segment = 0
        self._next_part = 0
        self._next_task_id = 0
        self._open: SegmentTask | None = None  # the segment whose parts are being handed out
        self._segments: dict[int, _Segment] = {}
        self._tasks: dict[int, SegmentTask | FinishTask] = {}
        self._complete: set[int] = set()
        self._next_to_finish = plan.first_batch
        self._finished: dict[int, ReadyBatch] = {}
        self._next_delivery = plan.first_batch
        self._entries = _entries_by_row(plan)
        self._touches = _Touches(plan)
        self._blocks = np.full(plan.num_segments if self._gathered else 0, -1, np.int64)  # slot of each segment

    @property
    def open_slots(self) -> int:
        """Slots of the pond that are in use; where there is no outlet, those that the user holds included."""
        return self._pond_slots - len(self._free_pond)

    def batches_of(self, segment: int) -> list[int]:
        """The batches that a segment of the plan's order has rows in, ascending."""
        first, stop = self._plan.segment_bounds[segment : segment + 2]
        batches: list[int] = np.unique(self._plan.batches[first:stop]).tolist()
        return batches

    def next_task(self) -> SegmentTask | FinishTask | None:
        """The task to start now, or None when none can be: everything is out, or no slot is free."""
        return self._next_finish() or self._next_part_task()

    def _next_finish(self) -> FinishTask | None:
        # Strictly in order: a later batch that took the last outlet slot would keep the one before it from leaving.
        batch = self._next_to_finish
        if not self._free_outlet or batch not in self._complete:
            return None
        self._complete.remove(batch)
        self._next_to_finish += 1
        entries = self._entries_of(batch)
        state = self._batches[batch]
        rows = self._plan.rows[entries].astype(np.int64)
        if state.failures:
            good = ~np.isin(rows, list(state.failures))
            entries, rows = entries[good], rows[good]
        if self._gathered:
            segments = self._segments_of(entries)
            slots = self._blocks[segments]
            slot_rows = entries - self._plan.segment_bounds[segments]
        else:
            slots = np.full(len(rows), state.slot, dtype=np.int64)
            slot_rows = rows
        task = FinishTask(
            self._new_id(), batch, self._free_outlet.popleft(), self._plan.samples[entries], slots, slot_rows, rows
        )
        self._tasks[task.task_id] = task
        return task

    def _next_part_task(self) -> SegmentTask | None:
        if self._open is None and not self._try_open_segment():
            return None
        opened = self._open
        assert opened is not None
        task = SegmentTask(self._new_id(), self._next_part, opened.samples, opened.slots, opened.rows, opened.segment)
        self._tasks[task.task_id] = task
        self._next_part += 1
        if self._next_part == self._num_parts:
            self._open = None
        return task

    def _try_open_segment(self) -> bool:
        plan, k = self._plan, self._next_segment
        if k >= plan.num_segments:
            return False
        first, stop = plan.segment_bounds[k : k + 2].tolist()
        batches, counts, positions = self._touches.of(k)
        if self._gathered:
            if not self._free_pond:
                return False
            self._blocks[k] = self._free_pond.popleft()
            slots = np.full(stop - first, self._blocks[k], dtype=np.int64)
            rows = np.arange(stop - first)
            for batch in batches:
                self._open_batch(batch)
        else:
            unopened = [batch for batch in batches if batch not in self._batches]
            if len(unopened) > len(self._free_pond):
                return False
            for batch in unopened:
                self._open_batch(batch).slot = self._free_pond.popleft()
            slot_of = np.asarray([self._batches[batch].slot for batch in batches], dtype=np.int64)
            slots = slot_of[positions]
            rows = plan.rows[first:stop].astype(np.int64)
        self._segments[k] = _Segment(first, batches, counts, self._num_parts, len(batches))
        self._open = SegmentTask(-1, 0, plan.samples[first:stop], slots, rows, k)
        self._next_segment, self._next_part = k + 1, 0
        return True

    def _open_batch(self, batch: int) -> _Batch:
        """Its state, from now on if it has none."""
        state = self._batches.get(batch)
        if state is None:
            state = self._batches[batch] = _Batch(waiting=int(self._sizes[batch]) * self._num_parts)
        return state

    def _new_id(self) -> int:
        self._next_task_id += 1
        return self._next_task_id

    def _entries_of(self, batch: int) -> NDArray[np.int64]:
        """Entries of the plan that make up `batch`, by row."""
        entries = self._entries[batch - self._plan.first_batch]
        there: NDArray[np.int64] = entries[entries >= 0].astype(np.int64)
        return there

    def _segments_of(self, entries: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the segments that entries of the plan are of."""
        return np.searchsorted(self._plan.segment_bounds, entries, side="right") - 1

    def complete(self, task_id: int, failures: dict[int, Exception]) -> None:
        """A task is done.

        Args:
            task_id: Of `next_task`.
            failures: Position in the task's `samples` -> why that sample has no data.
        """
        task = self._tasks.pop(task_id)
        if isinstance(task, FinishTask):
            self._complete_finish(task, failures)
        else:
            self._complete_part(task, failures)

    def fail(self, task_id: int, error: Exception) -> None:
        """A task could not be carried out: all of its samples have no data."""
        self.complete(task_id, dict.fromkeys(range(len(self._tasks[task_id].samples)), error))

    def _complete_part(self, task: SegmentTask, failures: dict[int, Exception]) -> None:
        segment = self._segments[task.segment]
        for position, error in failures.items():
            entry = segment.first + position
            self._batches[int(self._plan.batches[entry])].failures.setdefault(int(self._plan.rows[entry]), error)
        for batch, came in zip(segment.batches, segment.counts, strict=True):
            state = self._batches[batch]
            state.waiting -= came
            if state.waiting == 0:
                self._batch_is_complete(batch, state)
        segment.waiting_parts -= 1
        if segment.waiting_parts == 0 and not self._gathered:
            del self._segments[task.segment]

    def _batch_is_complete(self, batch: int, state: _Batch) -> None:
        if self._free_outlet is None:
            self._finished[batch] = self._ready(batch, state.slot)
        else:
            self._complete.add(batch)

    def _ready(self, batch: int, slot: int) -> ReadyBatch:
        failures = self._batches.pop(batch).failures
        return ReadyBatch(batch, slot, self._plan.samples[self._entries_of(batch)], failures)

    def _complete_finish(self, task: FinishTask, failures: dict[int, Exception]) -> None:
        state = self._batches[task.batch]
        for position, error in failures.items():
            state.failures.setdefault(int(task.rows[position]), error)
        if self._gathered:
            for k in np.unique(self._segments_of(self._entries_of(task.batch))).tolist():
                self._let_go_of_block(k)
        else:
            self._free_pond.append(state.slot)
        self._finished[task.batch] = self._ready(task.batch, task.outlet_slot)

    def _let_go_of_block(self, k: int) -> None:
        segment = self._segments[k]
        segment.unfinished_batches -= 1
        if segment.unfinished_batches == 0:
            self._free_pond.append(int(self._blocks[k]))
            del self._segments[k]

    def take_ready(self) -> ReadyBatch | None:
        """The next batch in order, if it is ready; its slot stays taken until `release`."""
        ready = self._finished.pop(self._next_delivery, None) or self._empty_batch()
        if ready is not None:
            self._next_delivery += 1
        return ready

    def _empty_batch(self) -> ReadyBatch | None:
        """The next batch in order if it has no rows, so that no task brings it, and a slot is free for it."""
        batch = self._next_delivery
        free = self._free_pond if self._free_outlet is None else self._free_outlet
        if batch >= self._plan.num_batches or self._sizes[batch] or not free:
            return None
        self._next_to_finish = batch + 1
        return ReadyBatch(batch, free.popleft(), np.zeros(0, np.int64), {})

    def release(self, slot: int) -> None:
        """The user has let go of a delivered batch's slot."""
        (self._free_pond if self._free_outlet is None else self._free_outlet).append(slot)


def _entries_by_row(plan: EpochPlan) -> NDArray[np.int32]:
    """int32 (batches to come, rows of the largest): which entry of the plan each row is; -1: the batch ends before."""
    width = int(plan.rows.max(initial=-1)) + 1
    entries = np.full((plan.num_batches - plan.first_batch, width), -1, np.int32)
    for at in range(0, len(plan.rows), _BLOCK_SAMPLES):
        rows = plan.rows[at : at + _BLOCK_SAMPLES]
        entries[plan.batches[at : at + len(rows)] - plan.first_batch, rows] = np.arange(at, at + len(rows))
    return entries
