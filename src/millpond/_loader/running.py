"""What a loader has only while it runs: arena, workers, driver, outbox; made for the first epoch, closed once."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cloudpickle

from millpond._arena.layout import SlotLayout, SlotPool
from millpond._arena.memory import ArenaMemory
from millpond._datasets.base import Dataset
from millpond._loader.batches import Outbox
from millpond._loader.demand import block_layout
from millpond._loader.driver import Driver, Setup, Slots
from millpond._loader.inline_driver import InlineDriver
from millpond._loader.prefetch import Prefetcher
from millpond._loader.probe import preload_of
from millpond._loader.timeline import Timeline
from millpond._loader.work import Transform, Work
from millpond._loader.worker_driver import WorkerDriver
from millpond._plan.demand import Cutting, all_segments
from millpond._plan.memory import MemoryPlan
from millpond._values import Field
from millpond._workers.recycling import Recycling
from millpond._workers.supervisor import Supervisor
from millpond._workers.verdicts import TaskLimits
from millpond.settings import Settings


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for, as far as running it needs.

    Attributes:
        dataset: What is read.
        plan: The memory plan that was chosen.
        cutting: What tasks decode.
        batch_size: Rows of a batch.
        num_workers: 0: in this process.
        transform: Applied to each sample, or None.
        kept: What it gives back as it came; see `Work`.
        delivered_fields: Arrays of a batch, by name, as they leave.
        limits: For a task that reads; one of a transform has the total limit alone.
        max_restarts: See `Supervisor`.
        recycling: Of the workers.
        as_tensors: Whether torch tensors are made.
        video_fetch_workers: Requests to a store under way at once.
        timeline: Takes notes.
    """

    dataset: Dataset
    plan: MemoryPlan
    cutting: Cutting
    batch_size: int
    num_workers: int
    transform: Transform | None
    kept: tuple[str, ...]
    delivered_fields: dict[str, Field]
    limits: TaskLimits
    max_restarts: int
    recycling: Recycling
    as_tensors: bool
    video_fetch_workers: int
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class Counts:
    """What workers did, and what was done for want of room.

    Attributes:
        counters: Of workers and fetches.
        heap_copies: Batches that were copied.
        restarts: Of workers that died or hung.
        recycles: Of workers in good order.
    """

    counters: Mapping[str, int] = field(default_factory=dict)
    heap_copies: int = 0
    restarts: int = 0
    recycles: int = 0

    def plus(self, other: Counts) -> Counts:
        """Of both."""
        names = {**self.counters, **other.counters}
        counters = {name: (self.counters.get(name, 0), other.counters.get(name, 0)) for name in names}
        return Counts(
            {name: max(both) if name.startswith("most_") else sum(both) for name, both in counters.items()},
            self.heap_copies + other.heap_copies,
            self.restarts + other.restarts,
            self.recycles + other.recycles,
        )


@dataclass(frozen=True, slots=True)
class Running:
    """The open resources of a loader.

    Attributes:
        cutting: What tasks decode.
        driver: Moves epochs forward.
        outbox: Hands batches over.
        supervisor: Of the workers; None where there are none.
        arena_bytes: Size of the arena.
        used_bytes: Of it, what slots and fetched bytes take now.
        close: Ends all of it; idempotent, also called when the loader is collected or the interpreter ends.
    """

    cutting: Cutting
    driver: Driver
    outbox: Outbox
    supervisor: Supervisor | None
    arena_bytes: int
    used_bytes: Callable[[], int]
    close: Callable[[], object]

    def counts(self) -> Counts:
        """So far; also when it is closed."""
        workers = self.supervisor.statistics() if self.supervisor else None
        replaced = (workers.restarts, workers.recycles) if workers else (0, 0)
        return Counts(self.driver.counters(), self.outbox.heap_copies, *replaced)

    def worker_pids(self) -> tuple[int, ...]:
        """Of those that live."""
        workers = self.supervisor.statistics().workers if self.supervisor else ()
        return tuple(worker.pid for worker in workers if worker.pid)


def open_running(owner: object, wishes: Wishes) -> Running:
    """Make arena, workers and driver, to be closed no later than `owner` is collected."""
    plan = wishes.plan
    pond, outlet = _pools(wishes)
    slots_bytes = pond.size_bytes + (outlet.size_bytes if outlet else 0)
    arena = ArenaMemory.create(slots_bytes + plan.prefetch_bytes, posix=Settings().posix_shared_memory)
    try:
        driver, supervisor = _driver(wishes, arena, pond, outlet)
    except BaseException:
        arena.close()
        raise
    outbox = Outbox(
        arena,
        outlet or pond,
        wishes.delivered_fields,
        held_batches=plan.held_batches,
        heap_bytes=plan.heap_bytes,
        leases=driver.leases,
        release=driver.release,
        as_tensors=wishes.as_tensors,
    )
    close = weakref.finalize(owner, _close, driver, outbox, arena, os.getpid())

    def used_bytes() -> int:
        in_pond, in_outlet = driver.used_slots()
        in_slots = in_pond * pond.layout.slot_bytes + (in_outlet * outlet.layout.slot_bytes if outlet else 0)
        return in_slots + driver.fetched_bytes()

    return Running(wishes.cutting, driver, outbox, supervisor, arena.size_bytes, used_bytes, close)


def _pools(wishes: Wishes) -> tuple[SlotPool, SlotPool | None]:
    plan, rows = wishes.plan, wishes.batch_size
    if plan.layout == "gathered":
        layout = block_layout(wishes.dataset, all_segments(wishes.cutting))
    else:
        layout = SlotLayout.of([(field, rows) for field in wishes.dataset.fields])
    pond = SlotPool(layout, 0, plan.pond_slots)
    if not plan.outlet_slots:
        return pond, None
    leaving = SlotLayout.of([(field, rows) for field in wishes.delivered_fields.values()])
    return pond, SlotPool(leaving, pond.size_bytes, plan.outlet_slots)


def _driver(
    wishes: Wishes, arena: ArenaMemory, pond: SlotPool, outlet: SlotPool | None
) -> tuple[Driver, Supervisor | None]:
    plan, dataset = wishes.plan, wishes.dataset
    work = Work(
        dataset.reader(),
        dataset.fields,
        pond,
        outlet,
        gathered=plan.layout == "gathered",
        transform=wishes.transform,
        arena_bytes=arena.size_bytes,
        kept=wishes.kept,
    )
    size = plan.parts_per_task
    bundles = [dataset.parts[at : at + size] for at in range(0, len(dataset.parts), size)]
    source = dataset.byte_source

    def prefetch(on_ready: Callable[[], None]) -> Prefetcher:
        assert source is not None
        offset = arena.size_bytes - plan.prefetch_bytes
        return Prefetcher(
            source,
            arena.buffer[offset:],
            offset,
            bundles,
            max_requests=wishes.video_fetch_workers,
            timeline=wishes.timeline,
            on_ready=on_ready,
        )

    setup = Setup(
        Slots(plan.pond_slots, plan.outlet_slots),
        bundles,
        plan.layout,
        dataset.cuts(),
        wishes.timeline,
        dataset.learn,
        dataset.keep_learned,
        None if source is None else prefetch,
    )
    if wishes.num_workers == 0:
        work.use(arena)
        return InlineDriver(work, setup), None
    supervisor = Supervisor(
        cloudpickle.dumps(work),
        num_workers=wishes.num_workers,
        descriptors=[arena.descriptor],
        preload=preload_of(dataset),
        limits=wishes.limits,
        max_restarts=wishes.max_restarts,
        recycling=wishes.recycling,
    )
    return WorkerDriver(supervisor, setup, num_workers=wishes.num_workers, limits=wishes.limits), supervisor


def _close(driver: Driver, outbox: Outbox, arena: ArenaMemory, pid: int) -> None:
    if os.getpid() != pid:
        return
    if threading.current_thread().name.startswith("millpond-"):
        # Garbage is collected in any thread: one of those that are ended here would wait for itself, locks in hand.
        threading.Thread(target=_end, args=(driver, outbox, arena), name="millpond-close", daemon=True).start()
    else:
        _end(driver, outbox, arena)


def _end(driver: Driver, outbox: Outbox, arena: ArenaMemory) -> None:
    driver.close()
    outbox.close()
    arena.close()
