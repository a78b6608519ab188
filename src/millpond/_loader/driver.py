"""What moves an epoch forward, as far as it does not matter where: `worker_driver` runs tasks in workers from a thread
of its own, `inline_driver` in the caller.

Both hold the pond alone. The consumer (the training loop) sees `next_ready`, and gives slots back with `release`, which
a finalizer may call at any moment, in any thread: it only appends to a deque and writes one byte to a wake-up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from millpond._loader.jobs import Job, Piece
from millpond._loader.work import CopyTask, Outcome, ReadTask
from millpond._plan.epoch import EpochPlan
from millpond._plan.pond import FinishTask, Layout, Pond, ReadyBatch, SegmentTask


class Slots:
    """Which slots are out (ready, or with the user), over the life of the arena; an epoch's pond gets the others.

    Args:
        pond_slots: Slots of the pond.
        outlet_slots: Slots for finished batches; 0: batches are handed over on the pond's own.
    """

    def __init__(self, pond_slots: int, outlet_slots: int) -> None:
        self._pond_slots = pond_slots
        self._outlet_slots = outlet_slots
        self.out: set[int] = set()

    def pond_for(self, plan: EpochPlan, num_parts: int, layout: Layout) -> Pond:
        """A pond over every slot that is not out."""
        total = self._outlet_slots or self._pond_slots
        free = [slot for slot in range(total) if slot not in self.out]
        if self._outlet_slots:
            pond = list(range(self._pond_slots))
            return Pond(plan, num_parts=num_parts, layout=layout, pond_slots=pond, outlet_slots=free)
        return Pond(plan, num_parts=num_parts, layout=layout, pond_slots=free, outlet_slots=None)


@dataclass(frozen=True, slots=True)
class Setup:
    """What both drivers are given.

    Attributes:
        slots: Of the arena.
        bundles: The parts that each task of a segment reads.
        layout: Where segments go.
        cuts: int64 (S + 1,), samples at which a task that ends its workers is taken apart.
        learn: Takes what readers learned.
        keep_learned: Makes it known to readers that open their files anew; tells whether there was anything.
    """

    slots: Slots
    bundles: Sequence[tuple[str, ...]]
    layout: Layout
    cuts: NDArray[np.int64]
    learn: Callable[[object], None]
    keep_learned: Callable[[], bool]


class Driver(Protocol):
    """Moves epochs forward, one at a time."""

    counters: Counter[str]

    def start(self, plan: EpochPlan) -> None:
        """Begin an epoch; the one before must have been cancelled or be over."""

    def next_ready(self) -> ReadyBatch:
        """The next batch in order; raises what stopped the epoch, or DeadlineExceeded."""

    def release(self, slot: int) -> None:
        """Give a slot back; any thread."""

    def cancel(self) -> None:
        """End the epoch early; ready batches that were not taken are dropped."""

    def open_slots(self) -> int:
        """Slots of the pond in use."""

    def close(self) -> None:
        """End everything; idempotent."""


class Driving:
    """What both drivers share: the pond, slots on their way back, and telling what came of a task."""

    def __init__(self, setup: Setup) -> None:
        self.counters: Counter[str] = Counter()
        self._setup = setup
        self._generation = 0
        self._returned: deque[int] = deque()
        self._pond: Pond | None = None

    def open_slots(self) -> int:
        """Slots of the pond in use."""
        pond = self._pond
        return 0 if pond is None else pond.open_slots

    def _open_pond(self, plan: EpochPlan) -> None:
        self._take_back()
        if self._setup.keep_learned():
            self._generation += 1  # readers open their files anew, and then know what all of them learned
        self._pond = self._setup.slots.pond_for(plan, len(self._setup.bundles), self._setup.layout)

    def _take_back(self) -> None:
        while self._returned:
            slot = self._returned.popleft()
            self._setup.slots.out.discard(slot)
            if self._pond is not None:
                self._pond.release(slot)

    def _payload(self, task: SegmentTask | FinishTask) -> ReadTask | CopyTask:
        if isinstance(task, SegmentTask):
            return ReadTask(self._setup.bundles[task.part], self._generation, task.samples, task.slots, task.rows)
        return CopyTask(task.outlet_slot, task.samples, task.slots, task.slot_rows, task.rows)

    def _job(self, pond: Pond, task: SegmentTask | FinishTask) -> Job:
        gathered = self._setup.layout == "gathered" and isinstance(task, SegmentTask)
        return Job(pond, task.task_id, self._payload(task), must_end_whole=gathered)

    def _account(self, piece: Piece, outcome: Outcome) -> None:
        for positions, error in outcome.failures:
            piece.fail(positions, error)
        for name, count in outcome.counters.items():  # Counter.update takes five times as long
            self.counters[name] += count
        for learned in outcome.learned:
            self._setup.learn(learned)

    def _take_ready(self) -> ReadyBatch | None:
        assert self._pond is not None
        ready = self._pond.take_ready()
        if ready is not None:
            self._setup.slots.out.add(ready.slot)
        return ready
