"""`millpond.Loader`: the front of it all."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal


from millpond._datasets.base import Dataset
from millpond._loader.batches import Outbox
from millpond._loader.demand import block_layout, demand_of, probe_transform
from millpond._loader.driver import Driver, InlineDriver, Slots, WorkerDriver
from millpond._loader.quarantine import Quarantine
from millpond._loader.work import Transform, Work
from millpond._arena.layout import SlotLayout, SlotPool
from millpond._arena.memory import ArenaMemory
from millpond._plan.books import Books
from millpond._plan.epoch import EpochPlan
from millpond._plan.memory import MemoryPlan, candidates, choose, plan_within, smallest_memory
from millpond._plan.pond import ReadyBatch
from millpond._plan.segments import cut_segments
from millpond._values import Field, parse_bytes
from millpond._workers.supervisor import Supervisor
from millpond.errors import ClosedError, UsageError
from millpond.settings import Settings

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class LoaderStatistics:
    """What a loader has done since it was made.

    Attributes:
        epochs: Epochs that were run to their end.
        batches: Batches delivered.
        samples: Samples delivered.
        wait_seconds: How long the consumer waited for batches.
        open_slots: Slots of the pond in use now.
        held_batches: Batches that the user holds on slots now.
        heap_copies: Batches that were copied because more were held.
        counters: What workers counted: frames decoded, packets fed, bytes read.
        worker_restarts: Workers that were replaced.
        worker_pids: Of the live workers.
        books: Of the current or last epoch.
    """

    epochs: int
    batches: int
    samples: int
    wait_seconds: float
    open_slots: int
    held_batches: int
    heap_copies: int
    counters: dict[str, int]
    worker_restarts: int
    worker_pids: tuple[int, ...]
    books: Books | None


class Loader:
    """Batches of a dataset, each frame decoded once per epoch, in memory of fixed size.

    Order is a function of (seed, epoch, dataset, batch_size, memory, mixing) alone: neither the number of workers nor
    timing changes it. Arena and workers are made when the first epoch begins, and live until `close`.

    Args:
        dataset: A `LeRobotDataset`, or whatever has that interface.
        batch_size: Samples of a batch.
        shuffle: Shuffle the epoch; False gives the dataset's order.
        seed: Of the order.
        num_workers: Decoding processes; None: one per core this process may use; 0 decodes in this process.
        memory: Budget for arena, batches in flight, workers and tables: bytes, or "2GiB".
        drop_last: Leave out a last batch that would be short.
        mixing: The least distinct episodes per batch over a full shuffle's that is wanted. None: 0.95 where the budget
            allows it with every GOP decoded once, else the best there is. A number may cut GOPs, and decode them more
            than once, to get there.
        transform: A function from a sample (dict of numpy arrays; frames uint8 (..., C, H, W)) to a dict of arrays, run
            in the workers. Shapes and dtypes must be the same for every sample.
        on_error: "raise" stops at the first bad sample. "skip" leaves it out, closes the batch up, and writes it to the
            quarantine file.
        quarantine: Path of that file.
        held_batches: Batches that you may hold at once; more are copied to the heap.
        timeout: Seconds to wait for a batch, and for a task, before an error says what hangs; None: for ever.
        output: "torch", "numpy", or "auto": torch where it is installed.

    Raises:
        ValueError: The budget cannot work (the message says which can), or the mixing cannot be reached.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int | None = None,
        memory: int | str = "1GiB",
        drop_last: bool = False,
        mixing: float | None = None,
        transform: Transform | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        quarantine: str | os.PathLike[str] = "millpond-quarantine.jsonl",
        held_batches: int = 2,
        timeout: float | None = 300.0,
        output: Literal["auto", "torch", "numpy"] = "auto",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, not {num_workers}")
        if held_batches < 1:
            raise ValueError(f"held_batches must be at least 1, not {held_batches}")
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip", not {on_error!r}')
        if output not in ("auto", "torch", "numpy"):
            raise ValueError(f'output must be "auto", "torch" or "numpy", not {output!r}')
        if len(dataset) == 0:
            raise ValueError("the dataset has no samples")
        self.dataset = dataset
        self.batch_size = batch_size
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._seed = seed
        self._num_workers = available_cores() if num_workers is None else num_workers
        self._on_error = on_error
        self._timeout_seconds = timeout
        self._as_tensors = output == "torch" or (output == "auto" and importlib.util.find_spec("torch") is not None)
        self._quarantine = Quarantine(Path(quarantine))
        self._transform = transform
        self._stored_fields = {field.name: field for field in dataset.fields}
        self._fields = probe_transform(dataset, transform) if transform is not None else self._stored_fields
        self._demand = demand_of(
            dataset,
            batch_size=batch_size,
            outlet_fields=None if transform is None else tuple(self._fields.values()),
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            held_batches=held_batches,
            num_workers=self._num_workers,
        )
        self._plan = self._choose_plan(parse_bytes(memory), mixing)
        self._pid = os.getpid()
        self._closed = False
        self._running: _Running | None = None
        self._active: weakref.ref[EpochIterator] | None = None
        self._next = (0, 0)  # epoch and batch with which the next iterator begins
        self._position = (0, 0)  # epoch and batch of which state_dict tells
        self._resumed_books: Books | None = None
        self._books: Books | None = None
        self._totals = {"epochs": 0, "batches": 0, "samples": 0}
        self._wait_seconds = 0.0

    def _choose_plan(self, memory_bytes: int, mixing: float | None) -> MemoryPlan:
        plans = list(candidates(self._demand, memory_bytes, splits=mixing is not None))
        if not plans and mixing is None:
            plans = list(candidates(self._demand, memory_bytes, splits=True))
        if not plans:
            smallest = smallest_memory(self._demand)
            raise ValueError(
                f"memory={memory_bytes} bytes ({memory_bytes >> 20} MiB) cannot hold {self.batch_size} samples a batch of "
                f"{self._demand.sample_bytes} bytes with {self._num_workers} workers; the smallest that can is "
                f'"{smallest >> 20}MiB". A smaller image_size=, batch_size= or num_workers= needs less'
            )
        chosen = choose(plans, mixing=mixing)
        if chosen is None:
            best = max(plans, key=lambda plan: plan.mixing)
            raise ValueError(
                f"mixing={mixing} cannot be reached within memory={memory_bytes >> 20} MiB: the best is "
                f"{best.mixing:.2f}, with {best.decodes_per_frame:.1f} decodes per frame; raise memory= or lower mixing="
            )
        return chosen

    def memory_plan(self) -> MemoryPlan:
        """The arithmetic of the budget; `print` it. Nothing is allocated for it."""
        return self._plan

    def memory_plans(self) -> list[MemoryPlan]:
        """Every plan that the budget can run: the trade between memory, mixing and decodes per frame."""
        return list(candidates(self._demand, self._plan.memory_bytes, splits=True))

    def __len__(self) -> int:
        """Batches of a whole epoch; fewer come where bad samples are skipped."""
        samples = len(self.dataset)
        return samples // self.batch_size if self._drop_last else math.ceil(samples / self.batch_size)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Begin an epoch: the one that was set or loaded, else the one after the last that was begun.

        A resumed epoch goes on at the batch where it was saved.
        """
        self._check_usable()
        active = self._active and self._active()
        if active is not None and not active.is_over:
            raise UsageError(
                "this loader is being iterated already; finish that iterator or close() it first, or make a second Loader"
            )
        running = self._running or self._open()
        epoch, first_batch = self._next
        plan = plan_within(self._demand, self._plan, running.segments, epoch)
        books = self._resumed_books or Books(planned=len(self.dataset), dropped=plan.num_dropped)
        if first_batch:
            plan = plan.resumed_at(first_batch)
        self._books, self._resumed_books = books, None
        self._next, self._position = (epoch + 1, 0), self._next
        iterator = EpochIterator(self, running, plan, books, epoch)
        self._active = weakref.ref(iterator)
        return iterator

    def set_epoch(self, epoch: int) -> None:
        """Choose the next epoch's number."""
        self._next = self._position = (epoch, 0)
        self._resumed_books = None

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, after the batch that was taken last: small, plain, JSON."""
        epoch, batch = self._position
        books = self._resumed_books or self._books
        return {
            "version": STATE_VERSION,
            "fingerprint": self._fingerprint(),
            "epoch": epoch,
            "batch": batch,
            "books": asdict(books) if books is not None and batch else None,
            "order": self._order_parameters(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken, also with another number of workers.

        Raises:
            ValueError: The state is of another dataset, batch size, seed or memory plan.
        """
        self._check_usable()
        active = self._active and self._active()
        if active is not None and not active.is_over:
            raise UsageError("load_state_dict while the loader is being iterated; close() the iterator first")
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"this state has version {state.get('version')}; this millpond reads {STATE_VERSION}")
        if state["fingerprint"] != self._fingerprint():
            raise ValueError("this state belongs to another dataset, batch_size, seed, shuffle or drop_last")
        if state["order"] != self._order_parameters():
            raise ValueError(
                f"this state was saved with {state['order']}, and memory= and mixing= now give {self._order_parameters()}; "
                "use those that it was saved with"
            )
        self._next = self._position = (state["epoch"], state["batch"])
        self._resumed_books = Books(**state["books"]) if state["books"] else None

    def _order_parameters(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "segment_samples": plan.segment_samples,
            "splits_gops": plan.splits_gops,
            "horizon_batches": plan.horizon_batches,
            "layout": plan.layout,
            "slots": plan.pond_slots,
        }

    def _fingerprint(self) -> str:
        facts = (self.dataset.fingerprint, self.batch_size, self._seed, self._shuffle, self._drop_last)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    @property
    def open_slots(self) -> int:
        """Slots of the pond in use now: its level. Costs nothing."""
        return self._running.driver.open_slots() if self._running else 0

    def statistics(self) -> LoaderStatistics:
        """What was done so far."""
        running = self._running
        workers = running.supervisor.statistics() if running and running.supervisor else None
        return LoaderStatistics(
            **self._totals,
            wait_seconds=self._wait_seconds,
            open_slots=self.open_slots,
            held_batches=running.outbox.held_batches if running else 0,
            heap_copies=running.outbox.heap_copies if running else 0,
            counters=dict(running.driver.counters) if running else {},
            worker_restarts=workers.restarts if workers else 0,
            worker_pids=tuple(worker.pid for worker in workers.workers if worker.pid) if workers else (),
            books=None if self._books is None else replace(self._books),
        )

    def close(self) -> None:
        """End workers and let go of the arena; idempotent, blocking. Batches that you hold stay valid."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        active = self._active and self._active()
        if active is not None:
            active.close()
        if self._running is not None:
            self._running.finalizer()
            self._running = None
        self.dataset.close()

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(
                f"this loader belongs to process {self._pid}; a forked child ({os.getpid()}) must make its own"
            )
        if self._closed:
            raise ClosedError("this loader is closed")

    def _open(self) -> _Running:
        """Make arena, workers and driver."""
        self._running = _Running.open(self)
        return self._running


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Running:
    """What a loader has only while it runs: arena, driver, outbox. Closed once, by `finalizer`."""

    def __init__(self, arena: ArenaMemory, driver: Driver, outbox: Outbox, supervisor: Supervisor | None) -> None:
        self.arena = arena
        self.driver = driver
        self.outbox = outbox
        self.supervisor = supervisor
        self.segments: Any = None
        self.finalizer: Callable[[], object] = lambda: None

    @classmethod
    def open(cls, loader: Loader) -> _Running:
        plan, dataset = loader._plan, loader.dataset
        segments = cut_segments(dataset.cuts(), target_samples=plan.segment_samples, split=plan.splits_gops)
        gathered = plan.layout == "gathered"
        stored = tuple(loader._stored_fields.values())
        rows = [(field, loader.batch_size) for field in stored]
        pond_layout = block_layout(dataset, segments) if gathered else SlotLayout.of(rows)
        pond = SlotPool(pond_layout, 0, plan.pond_slots)
        outlet = None
        if plan.outlet_slots:
            leaving = SlotLayout.of([(field, loader.batch_size) for field in loader._fields.values()])
            outlet = SlotPool(leaving, pond.size_bytes, plan.outlet_slots)
        arena = ArenaMemory.create(
            pond.size_bytes + (outlet.size_bytes if outlet else 0), posix=Settings().posix_shared_memory
        )
        work = Work(
            dataset.reader(),
            stored,
            pond,
            outlet,
            gathered=gathered,
            transform=loader._transform,
            arena_bytes=arena.size_bytes,
        )
        slots = Slots(plan.pond_slots, plan.outlet_slots)
        supervisor = None
        try:
            driver: Driver
            if loader._num_workers == 0:
                work.use(arena)
                driver = InlineDriver(work, slots, dataset.parts, plan.layout, dataset.learn)
            else:
                supervisor = _start_workers(work, arena, loader)
                driver = WorkerDriver(supervisor, slots, dataset.parts, plan.layout, dataset.learn)
        except BaseException:
            arena.close()
            raise
        outbox = Outbox(
            arena,
            outlet or pond,
            loader._fields,
            held_batches=plan.held_batches,
            heap_bytes=plan.heap_bytes,
            release=driver.release,
            as_tensors=loader._as_tensors,
        )
        running = cls(arena, driver, outbox, supervisor)
        running.segments = segments
        # Also when the loader is collected without a close, and when the interpreter ends.
        running.finalizer = weakref.finalize(loader, _close_running, driver, arena, os.getpid())
        return running


def _close_running(driver: Driver, arena: ArenaMemory, pid: int) -> None:
    if os.getpid() == pid:
        driver.close()
        arena.close()


def _start_workers(work: Work, arena: ArenaMemory, loader: Loader) -> Supervisor:
    import cloudpickle

    return Supervisor(
        cloudpickle.dumps(work),
        num_workers=loader._num_workers,
        descriptors=[arena.descriptor],
        preload=("millpond._loader.work", *loader.dataset.reader_modules),
        task_timeout_seconds=loader._timeout_seconds,
    )


class EpochIterator(Iterator[dict[str, Any]]):
    """One epoch of a loader."""

    def __init__(self, loader: Loader, running: _Running, plan: EpochPlan, books: Books, epoch: int) -> None:
        self._loader = loader
        self._running = running
        self._books = books
        self._number = epoch
        self._next_batch = plan.first_batch
        self._num_batches = plan.num_batches
        self.is_over = False
        running.driver.start(plan)

    def __next__(self) -> dict[str, Any]:
        if not self.is_over:
            self._loader._check_usable()
        while not self.is_over:
            if self._next_batch == self._num_batches:
                self._finish()
                break
            batch = self._take()
            if batch is not None:
                return batch
        raise StopIteration

    def _take(self) -> dict[str, Any] | None:
        loader = self._loader
        began = time.perf_counter()
        try:
            ready = self._running.driver.next_ready(loader._timeout_seconds)
        except BaseException:
            self.close()
            raise
        loader._wait_seconds += time.perf_counter() - began
        if ready.failures:
            self._account_failures(ready)
        samples = self._running.outbox.close_up(ready)
        self._next_batch += 1
        loader._position = (self._number, self._next_batch)
        if len(samples) == 0:
            self._running.driver.release(ready.slot)
            return None
        self._books.delivered += len(samples)
        batch = self._running.outbox.hand_over(ready.slot, len(samples))
        if loader._transform is None:
            loader.dataset.decorate(batch, samples)
        loader._totals["batches"] += 1
        loader._totals["samples"] += len(samples)
        return batch

    def _account_failures(self, ready: ReadyBatch) -> None:
        loader = self._loader
        if loader._on_error == "raise":
            self._books.failed += len(ready.failures)
            row = min(ready.failures)
            error, facts = ready.failures[row], loader.dataset.describe(int(ready.samples[row]))
            self._running.driver.release(ready.slot)
            self.close()
            error.add_note(f"sample {int(ready.samples[row])} of epoch {self._number}: {facts}")
            raise error
        for row in sorted(ready.failures):
            sample = int(ready.samples[row])
            description = loader.dataset.describe(sample)
            loader._quarantine.add(
                epoch=self._number, sample=sample, description=description, error=ready.failures[row]
            )
        self._books.skipped += len(ready.failures)

    def _finish(self) -> None:
        self.is_over = True
        loader = self._loader
        loader._position = (self._number + 1, 0)
        loader._totals["epochs"] += 1
        self._books.check()

    def close(self) -> None:
        """End the epoch early; the next one that begins is the following."""
        if self.is_over or os.getpid() != self._loader._pid:
            return
        self.is_over = True
        self._running.driver.cancel()

    def __del__(self) -> None:
        self.close()
