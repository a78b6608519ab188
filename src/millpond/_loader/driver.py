"""What moves an epoch forward, as far as it does not matter where: `worker_driver` runs tasks in workers from a thread
of its own, `inline_driver` in the caller.

Both hold the pond alone. The consumer (the training loop) sees `next_ready`, and lends slots to the user through
`leases`, whose ends may come at any moment, in any thread; one that it does not lend it gives back with `release`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from millpond._arena.leases import Leases, Waker
from millpond._loader.jobs import Job, Piece
from millpond._loader.prefetch import Prefetcher
from millpond._loader.timeline import Timeline
from millpond._loader.work import CopyTask, Outcome, Place, ReadTask
from millpond._observe.spans import LOSSES, Span
from millpond._plan.epoch import EpochPlan
from millpond._plan.pond import FinishTask, Layout, Pond, ReadyBatch, SegmentTask
from millpond._workers.lifecycle import Attempt


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

    @property
    def has_outlet(self) -> bool:
        """Whether batches leave in slots of their own."""
        return self._outlet_slots > 0

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
        timeline: Takes notes.
        learn: Takes what readers learned.
        prefetch: Makes what fetches ahead, given what to call when a task's bytes are there; None: nothing need be.
        keep_learned: Makes it known to readers that open their files anew; tells whether there was anything.
    """

    slots: Slots
    bundles: Sequence[tuple[str, ...]]
    layout: Layout
    cuts: NDArray[np.int64]
    timeline: Timeline
    learn: Callable[[object], None]
    keep_learned: Callable[[], bool]
    prefetch: Callable[[Callable[[], None]], Prefetcher] | None = None


class Driver(Protocol):
    """Moves epochs forward, one at a time.

    Attributes:
        leases: Of slots; the end of one gives its slot back.
    """

    leases: Leases[int]

    def counters(self) -> dict[str, int]:
        """What workers and fetches counted."""

    def start(self, plan: EpochPlan) -> None:
        """Begin an epoch; the one before must have been cancelled or be over."""

    def next_ready(self) -> ReadyBatch:
        """The next batch in order; raises what stopped the epoch, or DeadlineExceeded."""

    def release(self, slot: int) -> None:
        """Give a slot back that was not lent."""

    def cancel(self) -> None:
        """End the epoch early; ready batches that were not taken are dropped."""

    def open_slots(self) -> int:
        """Slots of the pond in use."""

    def used_slots(self) -> tuple[int, int]:
        """Slots in use, of the pond and of the outlet; with what the user holds."""

    def fetched_bytes(self) -> int:
        """Of the ring that is fetched into, what is taken."""

    def close(self) -> None:
        """End everything; idempotent."""


class Driving:
    """What both drivers share: the pond, slots on their way back, and telling what came of a task."""

    def __init__(self, setup: Setup, on_ready: Callable[[], None], waker: Waker | None = None) -> None:
        self.leases: Leases[int] = Leases(waker)
        self._counters: Counter[str] = Counter()
        self._setup = setup
        self._prefetch = None if setup.prefetch is None else setup.prefetch(on_ready)
        self._held: list[SegmentTask] = []  # their bytes are under way
        self._generation = 0
        self._returned: deque[int] = deque()
        self._pond: Pond | None = None
        self._num_held_before = 0

    def counters(self) -> dict[str, int]:
        """What workers and fetches counted."""
        fetched = {} if self._prefetch is None else self._prefetch.statistics()
        return {**self._counters, **fetched}

    def open_slots(self) -> int:
        """Slots of the pond in use."""
        pond = self._pond
        if pond is None:
            return 0
        if self._setup.slots.has_outlet:
            return pond.open_slots
        return max(0, pond.open_slots + self._num_held_before - self._num_coming_back())

    def used_slots(self) -> tuple[int, int]:
        """See `Driver`."""
        out = max(0, len(self._setup.slots.out) - self._num_coming_back())
        if self._setup.slots.has_outlet:
            return self.open_slots(), out
        return (out if self._pond is None else self.open_slots()), 0

    def _num_coming_back(self) -> int:
        """Slots that were let go; they are taken back when some are wanted, which may be in the next epoch."""
        return len(self._returned) + self.leases.num_ended

    def fetched_bytes(self) -> int:
        """See `Driver`."""
        return 0 if self._prefetch is None else self._prefetch.held_bytes

    def _open_pond(self, plan: EpochPlan) -> None:
        self._take_back()
        self._setup.slots.out &= self.leases.lent()  # an interrupt may have lost one between its queue and its lease
        if self._setup.keep_learned():
            self._generation += 1  # readers open their files anew, and then know what all of them learned
        self._held = []
        if self._prefetch is not None:
            self._prefetch.begin(None)  # before flows are forgotten: what comes late of the last epoch is not of this
        self._setup.timeline.begin_work(plan.epoch)
        if self._prefetch is not None:
            self._prefetch.begin(plan)
        self._num_held_before = len(self._setup.slots.out)  # the pond does not have them, and will
        self._pond = self._setup.slots.pond_for(plan, len(self._setup.bundles), self._setup.layout)

    def _close_pond(self) -> None:
        """No more of this epoch; tasks may still be under way."""
        self._pond = None
        self._held = []

    def _take_back(self) -> None:
        while self._returned:
            self._take(self._returned.popleft())
        for slot in self.leases.ended():
            self._take(slot)

    def _take(self, slot: int) -> None:
        self._setup.slots.out.discard(slot)
        if self._pond is not None:
            self._pond.release(slot)

    def _next_job(self) -> Job | None:
        """What to start now; None where no slot is free, or all that may start waits for its bytes."""
        began_ns, job = time.monotonic_ns(), self._draw_job()
        timeline = self._setup.timeline
        if job is not None and timeline.flows is not None:  # too many, and too short, for anything but a trace
            timeline.note(Span("plan", 1, began_ns, time.monotonic_ns(), "draw", job.facts()))
        return job

    def _draw_job(self) -> Job | None:
        assert self._pond is not None
        for number, held in enumerate(self._held):
            places = self._places(held)
            if places is not None:
                del self._held[number]
                return self._read_job(held, places)
        while (task := self._pond.next_task()) is not None:
            if isinstance(task, FinishTask):
                payload = CopyTask(task.outlet_slot, task.samples, task.slots, task.slot_rows, task.rows)
                return Job(self._pond, task.task_id, payload, batch=task.batch)
            places = self._places(task)
            if places is not None:
                return self._read_job(task, places)
            self._held.append(task)
        return None

    def _places(self, task: SegmentTask) -> Sequence[Place] | None:
        return () if self._prefetch is None else self._prefetch.places(task.segment, task.part)

    def _read_job(self, task: SegmentTask, places: Sequence[Place]) -> Job:
        assert self._pond is not None
        bundle = self._setup.bundles[task.part]
        payload = ReadTask(bundle, self._generation, task.samples, task.slots, task.rows, tuple(places))
        is_block = self._setup.layout == "gathered"
        return Job(self._pond, task.task_id, payload, place=(task.segment, task.part), must_end_whole=is_block)

    def _complete(self, job: Job) -> None:
        """All of a job's answers are here."""
        if self._prefetch is not None and job.place is not None:
            self._prefetch.release(*job.place, is_bad=bool(job.failures))
        job.pond.complete(job.task_id, job.failures)

    def _account(self, piece: Piece, outcome: Outcome) -> None:
        for positions, error in outcome.failures:
            piece.fail(positions, error)
        for name, count in outcome.counters.items():  # Counter.update takes five times as long
            self._counters[name] += count
        for learned in outcome.learned:
            self._setup.learn(learned)
        self._note(piece, outcome)

    def _note(self, piece: Piece, outcome: Outcome) -> None:
        timeline, ran, stage = self._setup.timeline, outcome.ran, piece.job.stage
        flows_in, flows_out = piece.job.flows(timeline.flows)
        facts = {"epoch": timeline.work_epoch, **piece.facts(), "pid": ran.pid}
        span = Span(stage, ran.worker_index, ran.began_ns, ran.ended_ns, stage, facts, flows_in, flows_out)
        timeline.work(span, outcome.counters.get("read_ns", 0))

    def _note_loss(self, piece: Piece, attempt: Attempt) -> None:
        """A worker did not survive what it was given; it was done again, or given up."""
        facts = {"epoch": self._setup.timeline.work_epoch, **piece.facts(), "pid": attempt.pid}
        began_ns, ended_ns = (int(at * 1e9) for at in (attempt.began_seconds, attempt.ended_seconds))
        name = LOSSES[attempt.cause.name]
        self._setup.timeline.note(Span(piece.job.stage, attempt.worker_index, began_ns, ended_ns, name, facts))

    def _take_ready(self) -> ReadyBatch | None:
        assert self._pond is not None
        ready = self._pond.take_ready()
        if ready is not None:
            self._setup.slots.out.add(ready.slot)
        return ready
