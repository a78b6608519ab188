"""`millpond.Loader`: the front of it all."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from millpond._amounts import parse_bytes
from millpond._datasets.base import VALIDITY_FIELD, Dataset
from millpond._loader.arguments import check_arguments
from millpond._loader.demand import demand_of
from millpond._loader.iteration import EpochIterator, Policy, Progress
from millpond._loader.plan_choice import choose_plan
from millpond._loader.probe import Transformed, probe_transform
from millpond._loader.ranks import (
    cores_of_a_rank,
    knows_all_cuts,
    rank_and_world_size,
    ration_of,
    require_even,
    require_same_rank,
    sharding_of,
)
from millpond._loader.running import Counts, Running, Wishes, open_running
from millpond._loader.state import STATE_VERSION, identity_of, order_parameters, plan_of_order, require_same
from millpond._loader.statistics import LoaderStatistics
from millpond._loader.timeline import Timeline
from millpond._loader.work import Transform
from millpond._observe.spans import Span
from millpond._observe.trace import TraceWriter
from millpond._once import computed_once
from millpond._plan.books import Books
from millpond._plan.memory import MemoryPlan, candidates, plan_within
from millpond._quarantine import Quarantine
from millpond._workers.recycling import Recycling
from millpond._workers.verdicts import TaskLimits
from millpond.errors import ClosedError, UsageError

logger = logging.getLogger("millpond")


class Loader:
    """Batches of a dataset, each frame decoded once per epoch, in memory of fixed size.

    Order is a function of (seed, epoch, dataset, batch_size, memory, mixing) alone: neither the number of workers nor
    timing changes it. Arena and workers are made when the first epoch begins, and live until `close`.

    With ranks each has a run of the samples, the same in every epoch, and all give equally many batches of exactly
    `batch_size` rows. Their `is_valid`, bool (B,), is False for rows that only fill a batch up: they repeat others of
    it, or are zero where it has none. A single rank, and `canonical_shards`, have it, too. Without `canonical_shards`
    the order of several ranks depends on `num_workers` as well, and on whether there is a transform, or a store.

    Args:
        dataset: A `LeRobotDataset` or a `ClipDataset`; or whatever has their interface, which may change.
        batch_size: Samples of a batch; with several ranks, of each.
        shuffle: Shuffle the epoch; False gives the dataset's order.
        seed: Of the order.
        num_workers: Decoding processes; None: one per core this process may use, shared by the ranks of a machine that
            torchrun started; 0 decodes in this process.
        memory: Budget for arena, batches in flight, workers and tables: bytes, or "2GiB". Of one rank.
        drop_last: Leave out a last batch that would be short.
        mixing: The least distinct episodes per batch over a full shuffle's that is wanted. None: 0.95 where the budget
            allows it with every GOP decoded once, else the best there is. A number may cut GOPs, and decode them more
            than once, to get there.
        transform: A function from a sample (dict of numpy arrays; frames uint8 (..., C, H, W)) to a dict of arrays, run
            in the workers. Shapes and dtypes must be the same for every sample, but for fields of the dataset that vary
            in length and are given back with their `*_length`; text may be given back as it came.
        on_error: "raise" stops at the first bad sample. "skip" leaves it out, closes the batch up, and writes it to the
            quarantine file. "placeholder" writes it there as well, and leaves its row zero: every batch keeps its size
            (also one that lost every row) and has `is_valid`, bool (B,), so that distributed ranks stay in step.
        max_errors: Samples of an epoch that may be skipped: a count (int) or a fraction of the epoch (float). One more
            raises `TooManyErrors`. None: any number.
        quarantine: Path of that file.
        held_batches: Batches that you may hold at once; more are copied to the heap.
        timeout: Seconds that a task (a segment, or the transform of a batch) may take in a worker; one that takes
            longer is killed, and done again in the smallest pieces (a GOP, a clip, a sample of the transform). Those
            that hang twice fail, with the stack of where they hung. None: for ever.
        stall_timeout: Seconds that reading may go without decoding a frame or reading a packet, and else the same; a
            transform has `timeout` alone. None: no such limit.
        max_restarts: Replacements of dead workers that completed tasks have not made up for (one each); more end the
            epoch.
        max_tasks_per_worker: A worker that has carried out so many is followed by a new one. None: never.
        max_worker_anon: A worker whose own (anonymous) memory is larger after a task is followed by a new one: bytes,
            or "500MiB"; the arena does not count, what is shared with the zygote does. None: never.
        video_fetch_workers: Requests under way at once, where the dataset lies in an object store.
        output: "torch", "numpy", or "auto": torch where it is installed.
        trace: File that a trace of plan, fetches, decodes, gathering and the consumer is written to, for
            https://ui.perfetto.dev or chrome://tracing; replaces what is there, and ends at 1 GiB. Each loader needs a
            file of its own; of several ranks each adds its number to the name.
        rank: Of this process, from 0. None: of torch.distributed where it is initialized, else RANK.
        world_size: Ranks. None: of torch.distributed where it is initialized, else WORLD_SIZE. 1, without `rank`: there
            are none, whatever those say.
        uneven: What becomes of a last batch that is not full on all ranks: "pad" fills it up (without ranks it stays
            short), "drop" leaves it out (as `drop_last` does), "error" refuses the dataset.
        canonical_shards: Fixes the order of the global batches (those of all ranks together) whatever the number of
            ranks, which must divide this one: global step k has the same samples on 1, 2 or 8 ranks of as many rows in
            all, and a state that 8 ranks saved goes on with 2. None: the order is of this number of ranks.
        horizon_batches: With `canonical_shards`: a segment's samples leave within about so many batches. More mix
            better, and need more `memory`. None: 32.

    Raises:
        DataError: Under on_error="raise", data that no sample stands for: rows of an episode that the metadata does not
            know.
        ValueError: The budget cannot work (the message says which can), or the mixing cannot be reached; or ranks,
            shards and rows do not divide.
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
        on_error: Literal["raise", "skip", "placeholder"] = "raise",
        max_errors: float | None = None,
        quarantine: str | os.PathLike[str] = "millpond-quarantine.jsonl",
        held_batches: int = 2,
        timeout: float | None = 300.0,
        stall_timeout: float | None = 60.0,
        max_restarts: int = 100,
        max_tasks_per_worker: int | None = None,
        max_worker_anon: int | str | None = None,
        video_fetch_workers: int = 16,
        output: Literal["auto", "torch", "numpy"] = "auto",
        trace: str | os.PathLike[str] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Literal["pad", "drop", "error"] = "pad",
        canonical_shards: int | None = None,
        horizon_batches: int | None = None,
    ) -> None:
        if isinstance(dataset, str | os.PathLike):
            raise TypeError(f"dataset must be a dataset, not a path: give LeRobotDataset({str(dataset)!r})")
        check_arguments(
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            mixing=mixing,
            transform=transform,
            on_error=on_error,
            max_errors=max_errors,
            held_batches=held_batches,
            timeout=timeout,
            stall_timeout=stall_timeout,
            max_restarts=max_restarts,
            max_tasks_per_worker=max_tasks_per_worker,
            max_worker_anon=max_worker_anon,
            video_fetch_workers=video_fetch_workers,
            output=output,
            uneven=uneven,
            canonical_shards=canonical_shards,
        )
        memory_bytes = parse_bytes(memory)
        if len(dataset) == 0:
            raise ValueError("the dataset has no samples")
        ranked = rank_and_world_size(rank, world_size)
        self.rank, self.world_size = ranked or (0, 1)
        self._is_told_its_rank = world_size is not None
        self._sharding = sharding_of(
            ranked,
            batch_size=batch_size,
            drop_last=drop_last,
            uneven=uneven,
            canonical_shards=canonical_shards,
            horizon_batches=horizon_batches,
        )
        if uneven == "error":
            require_even(dataset, self._sharding)
        # Asked first: what one rank has looked at by then, others may not have.
        self._knows_cuts = knows_all_cuts(dataset) or not self._sharding.is_sharded
        self._ration = ration_of(dataset, self._sharding)
        mine = self._ration.dataset
        for problem in mine.lost:
            if on_error == "raise":
                raise problem
            logger.warning("not served: %s", str(problem))
        self.dataset = dataset
        self.batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._mixing = mixing
        self._num_workers = cores_of_a_rank() if num_workers is None else num_workers
        self._as_tensors = output == "torch" or (output == "auto" and importlib.util.find_spec("torch") is not None)
        self._limits = TaskLimits(math.inf if timeout is None else timeout, stall_timeout)
        self._max_restarts = max_restarts
        self._video_fetch_workers = video_fetch_workers
        self._recycling = Recycling(
            max_tasks_per_worker, None if max_worker_anon is None else parse_bytes(max_worker_anon)
        )
        self._transform = transform
        if transform is None:
            self._given = Transformed({field.name: field for field in mine.fields})
        else:
            self._given = probe_transform(mine, transform, in_worker=self._num_workers > 0, limits=self._limits)
        self._fields = self._given.fields
        if (self._sharding.fills_up or on_error == "placeholder") and VALIDITY_FIELD in self._fields:
            reason = 'on_error="placeholder"' if on_error == "placeholder" else "a loader of ranks"
            raise ValueError(f"{reason} adds {VALIDITY_FIELD!r} to batches, and samples have it already")
        self._policy = Policy(
            on_error,
            int(max_errors * self._num_samples) if isinstance(max_errors, float) else max_errors,
            Quarantine(Path(quarantine).absolute()),
            kept=None if transform is None else self._given.kept_by_dataset,
            full_rows=batch_size if self._sharding.fills_up else None,
            whose=f" of rank {self.rank}" if self.world_size > 1 else "",
        )
        self._demand = demand_of(
            self._ration,
            batch_size=batch_size,
            outlet_fields=None if transform is None else tuple(self._fields.values()),
            shuffle=shuffle,
            seed=seed,
            horizon_batches=self._sharding.horizon_batches,
            held_batches=held_batches,
            num_workers=self._num_workers,
            fetch_workers=video_fetch_workers,
        )
        self._plan = choose_plan(self._demand, memory_bytes, mixing)
        self._pid = os.getpid()
        self._closed = False
        self._running: Running | None = None
        self._past = Counts()  # of those that were closed
        self._last_iterator: weakref.ref[EpochIterator] | None = None
        self._next = (0, 0)  # epoch and batch with which the next iterator begins
        self._begun: tuple[int, int] | None = None  # those of the last one; None where set_epoch or a state has spoken
        self._begun_books: Books | None = None  # as they were then, of an epoch that was resumed
        self._progress = Progress()
        self._timeline = Timeline(
            max(1, self._num_workers),
            fetches_ahead=mine.byte_source is not None,
            sink=None if trace is None else TraceWriter(self._trace_path(Path(trace).absolute())),
        )
        weakref.finalize(self, self._timeline.close)
        self._resumed_books: Books | None = None
        self._books: Books | None = None

    @property
    def _num_samples(self) -> int:
        """Of this rank's epoch."""
        return sum(shard.num_samples for shard in self._ration.shards)

    def _trace_path(self, path: Path) -> Path:
        if self.world_size == 1:
            return path
        stem, dot, suffix = path.name.partition(".")
        return path.with_name(f"{stem}-rank{self.rank}{dot}{suffix}")

    def memory_plan(self) -> MemoryPlan:
        """The arithmetic of the budget; `print` it. Nothing is allocated for it."""
        return self._plan

    def memory_plans(self, memory: int | str | None = None) -> list[MemoryPlan]:
        """Every plan that a budget (None: this loader's) can run: the trade of memory, mixing and decodes per frame."""
        budget = self._plan.memory_bytes if memory is None else parse_bytes(memory)
        return list(candidates(self._demand, budget, splits=True))

    def __len__(self) -> int:
        """Batches of a whole epoch; fewer come where bad samples are skipped and there is one rank."""
        return self._ration.num_batches

    def __repr__(self) -> str:
        whose = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return f"Loader({self.dataset!r}, {len(self)} batches of {self.batch_size} rows{whose})"

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Begin an epoch: the one that was set or loaded, else the one after the last that was asked for a batch.

        A resumed epoch goes on at the batch where it was saved.
        """
        self._check_usable()
        last = self._live_iterator()
        if last is not None and not last.try_finish():
            raise UsageError(
                "this loader is being iterated already; finish that iterator or close() it first, "
                "or make a second Loader"
            )
        if not self._is_told_its_rank:
            require_same_rank(self.rank, self.world_size)
        if self._running is None:
            self._running = open_running(self, self._wishes())
        if self._begun == self._progress.position and not self._progress.is_asked:
            # It was tried out, as frameworks do, to see whether there can be an iterator.
            self._next, self._resumed_books = self._begun, self._begun_books
        epoch, first_batch = self._begun = self._next
        self._progress.is_asked = False
        self._begun_books = None if self._resumed_books is None else replace(self._resumed_books)
        began_ns = time.monotonic_ns()
        plan = plan_within(self._demand, self._plan, self._running.cutting, epoch)
        plan = plan.resumed_at(first_batch) if first_batch else plan
        self._timeline.note(Span("plan", 0, began_ns, time.monotonic_ns(), "epoch order", {"epoch": epoch}))
        planned = len(plan.samples) + plan.num_dropped
        books = self._resumed_books or Books(planned=planned, dropped=plan.num_dropped)
        self._books, self._resumed_books = books, None
        self._next, self._progress.position = (epoch + 1, 0), self._next
        iterator = EpochIterator(
            self._ration.dataset,
            self._running.driver,
            self._running.outbox,
            plan,
            books,
            epoch,
            self._policy,
            self._progress,
            self._timeline,
        )
        self._last_iterator = weakref.ref(iterator)
        return iterator

    def _live_iterator(self) -> EpochIterator | None:
        iterator = self._last_iterator() if self._last_iterator is not None else None
        return None if iterator is None or iterator.is_over else iterator

    def _wishes(self) -> Wishes:
        return Wishes(
            dataset=self._ration.dataset,
            plan=self._plan,
            cutting=self._demand.cut(target_samples=self._plan.segment_samples, split=self._plan.splits_gops),
            batch_size=self.batch_size,
            num_workers=self._num_workers,
            transform=self._transform,
            kept=self._given.kept,
            delivered_fields=self._fields,
            limits=self._limits,
            max_restarts=self._max_restarts,
            recycling=self._recycling,
            as_tensors=self._as_tensors,
            video_fetch_workers=self._video_fetch_workers,
            timeline=self._timeline,
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the next epoch's number."""
        if not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"epoch must be an integer of at least 0, not {epoch!r}")
        self._next, self._begun = (epoch, 0), None
        self._resumed_books = None
        if self._live_iterator() is None:
            self._progress.position = self._next

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, after the batch that was taken last: small, plain, JSON, the same on every rank."""
        epoch, batch = self._progress.position
        books = self._resumed_books or self._books
        return {
            "version": STATE_VERSION,
            **self._identity,
            "epoch": epoch,
            "batch": batch,
            "books": asdict(books) if books is not None and batch and not self._sharding.is_sharded else None,
            "order": None if self._sharding.is_sharded else order_parameters(self._plan),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken, also with another number of workers.

        With `canonical_shards` also on another number of ranks, if they have as many rows in all; several ranks without
        it have fitted their orders to memory and workers, which must be the same. The books of several ranks' epoch are
        then of the rest of it.

        Raises:
            ValueError: The state is of another dataset, batch size, seed, number of ranks or memory plan.
        """
        self._check_usable()
        if self._live_iterator() is not None:
            raise UsageError("load_state_dict while the loader is being iterated; close() the iterator first")
        require_same(state, self._identity, len(self))
        if not self._sharding.is_sharded and state["order"] != order_parameters(self._plan):
            self._plan = plan_of_order(self._demand, state["order"], self._plan.memory_bytes)
            self._close_running()
        self._next = self._progress.position = (state["epoch"], state["batch"])
        self._begun = None
        self._resumed_books = Books(**state["books"]) if state["books"] else None

    @computed_once
    def _identity(self) -> dict[str, Any]:
        return identity_of(
            self.dataset,
            self._sharding,
            self._demand,
            memory_bytes=self._plan.memory_bytes,
            mixing=self._mixing,
            shuffle=self._shuffle,
            knows_cuts=self._knows_cuts,
        )

    @property
    def open_slots(self) -> int:
        """The level of the pond, in slots that are in use now. Costs nothing."""
        return self._running.driver.open_slots() if self._running else 0

    def statistics(self) -> LoaderStatistics:
        """What was done so far, and how it goes now. Any thread; it costs some 50 microseconds."""
        running, past = self._running, self._past
        counts = past.plus(running.counts()) if running else past
        recent = self._timeline.recent(goes_on=self._live_iterator() is not None)
        counters = dict(counts.counters)
        return LoaderStatistics(
            epochs=self._progress.epochs,
            batches=self._progress.batches,
            samples=self._progress.samples,
            samples_per_second=recent.samples_per_second,
            wait=self._timeline.waits(),
            wait_seconds=self._timeline.times().wait / 1e9,
            limited_by=self._timeline.limiting_stage(recent),
            pond_slots=self._plan.pond_slots,
            open_slots=self.open_slots,
            arena_bytes=running.arena_bytes if running else 0,
            arena_used_bytes=running.used_bytes() if running else 0,
            held_batches=running.outbox.held_batches if running else 0,
            heap_copies=counts.heap_copies,
            skipped=self._progress.skipped,
            failed=self._progress.failed,
            bytes_read=counters.get("bytes_read", 0),
            bytes_fetched=counters.get("bytes_fetched", 0),
            retries=counters.get("retries", 0),
            counters=counters,
            worker_restarts=counts.restarts,
            worker_recycles=counts.recycles,
            worker_pids=running.worker_pids() if running else (),
            books=None if self._books is None else replace(self._books),
        )

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, and runs no more epochs."""
        return self._closed

    def timeline(self) -> tuple[Span, ...]:
        """What plan, fetches, workers and consumer did last: 4,096 spans at most, in the order in which they ended."""
        return self._timeline.spans()

    def close(self) -> None:
        """End workers and let go of the arena; idempotent, blocking. Batches that you hold stay valid."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        iterator = self._live_iterator()
        if iterator is not None:
            iterator.close()
        self._close_running()
        self._timeline.close()
        self._ration.dataset.close()
        self.dataset.close()

    def _close_running(self) -> None:
        if self._running is not None:
            self._running.close()
            past = self._past.plus(self._running.counts())
            self._running, self._past = None, past

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(
                f"this loader belongs to process {self._pid}; a forked child ({os.getpid()}) must make its own"
            )
        if self._closed:
            raise ClosedError("this loader is closed")
