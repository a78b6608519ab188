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
    stop: int
    waiting_parts: int
    slot: int = -1  # its block, in the gathered layout
    unfinished_batches: int = 0


@dataclass(slots=True)
class _Batch:
    waiting: int  # (sample, part) pairs that have not come
    slot: int = -1
    failures: dict[int, Exception] = field(default_factory=dict)


class _Touches:
    """Which batches each segment has rows in, and how many; found for the whole epoch at once.

    Attributes:
        positions: int64 (M,), for each entry of the plan the position of its batch among those of its segment.
    """

    def __init__(self, plan: EpochPlan, segment_of: NDArray[np.int64]) -> None:
        # One sort for the epoch: numpy's fixed cost per call would be most of what a task costs the training process.
        pairs, inverse, counts = np.unique(
            segment_of * plan.num_batches + plan.batches, return_inverse=True, return_counts=True
        )
        self._batches = pairs % max(plan.num_batches, 1)
        self._counts = counts
        self._bounds = np.searchsorted(pairs, np.arange(plan.num_segments + 1) * plan.num_batches)
        self.positions = inverse - self._bounds[segment_of]

    def batches_of(self, segment: int) -> list[int]:
        """Ascending."""
        batches: list[int] = self._batches[self._bounds[segment] : self._bounds[segment + 1]].tolist()
        return batches

    def counts_of(self, segment: int) -> list[int]:
        """Rows in each of `batches_of`."""
        counts: list[int] = self._counts[self._bounds[segment] : self._bounds[segment + 1]].tolist()
        return counts


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
        sizes = plan.batch_sizes
        self._batches = {
            batch: _Batch(waiting=int(sizes[batch]) * num_parts) for batch in range(plan.first_batch, plan.num_batches)
        }
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
        self._entries = np.lexsort((plan.rows, plan.batches))
        self._entry_bounds = np.searchsorted(plan.batches[self._entries], np.arange(plan.num_batches + 1)).tolist()
        self._segment_of = np.repeat(np.arange(plan.num_segments), np.diff(plan.segment_bounds))
        self._touches = _Touches(plan, self._segment_of)

    @property
    def open_slots(self) -> int:
        """Slots of the pond that are in use; where there is no outlet, those that the user holds included."""
        return self._pond_slots - len(self._free_pond)

    def batches_of(self, segment: int) -> list[int]:
        """The batches that a segment of the plan's order has rows in, ascending."""
        return self._touches.batches_of(segment)

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
        rows = self._plan.rows[entries]
        good = np.asarray([int(row) not in state.failures for row in rows], dtype=bool)
        entries, rows = entries[good], rows[good]
        if self._gathered:
            segments = self._segment_of[entries]
            slots = np.asarray([self._segments[int(k)].slot for k in segments], dtype=np.int64)
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
        first, stop = int(plan.segment_bounds[k]), int(plan.segment_bounds[k + 1])
        rows = plan.rows[first:stop]
        touched = self._touches.batches_of(k)
        segment = _Segment(first, stop, self._num_parts, unfinished_batches=len(touched))
        if self._gathered:
            if not self._free_pond:
                return False
            segment.slot = self._free_pond.popleft()
            slots = np.full(stop - first, segment.slot, dtype=np.int64)
            rows = np.arange(stop - first)
        else:
            unopened = [batch for batch in touched if self._batches[batch].slot < 0]
            if len(unopened) > len(self._free_pond):
                return False
            for batch in unopened:
                self._batches[batch].slot = self._free_pond.popleft()
            slot_of = np.asarray([self._batches[batch].slot for batch in touched], dtype=np.int64)
            slots = slot_of[self._touches.positions[first:stop]]
        self._segments[k] = segment
        self._open = SegmentTask(-1, 0, plan.samples[first:stop], slots, rows, k)
        self._next_segment, self._next_part = k + 1, 0
        return True

    def _new_id(self) -> int:
        self._next_task_id += 1
        return self._next_task_id

    def _entries_of(self, batch: int) -> NDArray[np.int64]:
        """Entries of the plan that make up `batch`, by row."""
        return self._entries[self._entry_bounds[batch] : self._entry_bounds[batch + 1]]

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
        counts = self._touches.counts_of(task.segment)
        for batch, came in zip(self._touches.batches_of(task.segment), counts, strict=True):
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
            for k in np.unique(self._segment_of[self._entries_of(task.batch)]).tolist():
                self._let_go_of_block(k)
        else:
            self._free_pond.append(state.slot)
        self._finished[task.batch] = self._ready(task.batch, task.outlet_slot)

    def _let_go_of_block(self, k: int) -> None:
        segment = self._segments[k]
        segment.unfinished_batches -= 1
        if segment.unfinished_batches == 0:
            self._free_pond.append(segment.slot)
            del self._segments[k]

    def take_ready(self) -> ReadyBatch | None:
        """The next batch in order, if it is ready; its slot stays taken until `release`."""
        ready = self._finished.pop(self._next_delivery, None)
        if ready is not None:
            self._next_delivery += 1
        return ready

    def release(self, slot: int) -> None:
        """The user has let go of a delivered batch's slot."""
        (self._free_pond if self._free_outlet is None else self._free_outlet).append(slot)
