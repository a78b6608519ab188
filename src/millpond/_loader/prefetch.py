"""Fetches what tasks will read before they are given out, in the order of the plan, into memory of fixed size.

Theory of operation. A thread walks through an epoch's plan, segment by segment, ahead of the pond. For each task it
asks the dataset which bytes the task will read, takes room for them in a ring of the arena, waiting until there is
some, and has them fetched, so many requests at a time. A task whose bytes are there is given out with their places, and
its room is free again when it is done. Tasks begin and end nearly in the order of the plan, so a ring loses little.

The thread sleeps while the ring is full, and is woken when a good part of it is free, not at every release; a request
that ends begins the next one itself. Wake-ups are what fetching costs beside the network.

A range that could not be fetched is handed to the task as the error that reading it raises: so it fails just the
samples that need it. A task that wants more than the ring holds gets nothing ahead, and its worker fetches for itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from millpond._datasets.base import ByteSource, WantedRange
from millpond._loader.lanes import Lanes
from millpond._loader.ring import Ring
from millpond._loader.timeline import Timeline
from millpond._loader.work import Place
from millpond._observe.spans import Span
from millpond._plan.epoch import EpochPlan
from millpond._plan.requests import plan_requests
from millpond._values import ByteRange
from millpond.errors import DataError, InternalError, MillpondError

_logger = logging.getLogger("millpond")

MAX_REQUEST_BYTES = 4 << 20
"""Longer ranges are fetched by several requests at once."""

_END_SECONDS = 0.5

_FREE_SHARE = 0.25
"""Of a ring that was full, when it is filled again."""


@dataclass(slots=True, eq=False)
class _Entry:
    """The bytes of one task, which is (segment, part)."""

    epoch: int
    task: tuple[int, int]
    start: int = -1  # in the ring; -1: none were taken
    places: list[Place | None] = field(default_factory=list)  # None: nothing came, who reads it must fetch it
    waiting: int = 0  # requests that have not ended


class _Request(NamedTuple):
    """A part of a range of a task, and where it goes."""

    entry: _Entry
    number: int  # of the range among the entry's places
    piece: WantedRange
    position: int


class Prefetcher:
    """Fetches ahead for one loader. The driver calls `begin`, `places`, `release`; a thread and callbacks do the rest.

    Args:
        source: Of the dataset.
        memory: What the ring is, writable.
        offset: Of `memory` in the arena.
        bundles: The parts that each task of a segment reads.
        max_requests: Under way at once.
        timeline: Takes notes of requests.
        on_ready: Called when a task became ready that the driver asked for in vain; any thread.
    """

    def __init__(
        self,
        source: ByteSource,
        memory: memoryview,
        offset: int,
        bundles: Sequence[tuple[str, ...]],
        *,
        max_requests: int,
        timeline: Timeline,
        on_ready: Callable[[], None],
    ) -> None:
        self._source = source
        self._memory = memory
        self._offset = offset
        self._bundles = bundles
        self._max_requests = max_requests
        self._timeline = timeline
        self._on_ready = on_ready
        self._ring = Ring(len(memory))
        self._lock = threading.RLock()
        self._has_work = threading.Condition(self._lock)  # the thread waits for an epoch, or for room
        self._has_answer = threading.Condition(self._lock)  # `wait` waits
        self._epoch = 0
        self._plan: EpochPlan | None = None
        self._entries: dict[tuple[int, int], _Entry] = {}
        self._waiting: deque[_Request] = deque()
        self._futures: set[Future[Any]] = set()
        self._lanes = Lanes()
        self._is_submitting = False
        self._is_full = False
        self._is_awaited = False
        self._is_closed = False
        self._dead: BaseException | None = None
        self._before = Counter(source.counters())
        self.counters: Counter[str] = Counter(ranges_planned=0, tasks_not_fetched_ahead=0, most_bytes_held=0)
        self._thread = threading.Thread(target=self._run, name="millpond-prefetch", daemon=True)
        self._thread.start()

    def begin(self, plan: EpochPlan | None) -> None:
        """Fetch for another epoch, or for none. No task of the one before may be under way any more."""
        with self._lock:
            self._epoch += 1
            self._plan = plan
            self._entries.clear()
            self._waiting.clear()
            self._ring = Ring(self._ring.size)
            self._is_full = False
            left, self._futures = self._futures, set()
            self._has_work.notify_all()
        for future in left:
            future.cancel()

    def places(self, segment: int, part: int) -> list[Place] | None:
        """Where the bytes of a task are; None if they are still under way: then `on_ready` will be called."""
        with self._lock:
            found = self._find(segment, part)
            self._is_awaited |= found is None
            return found

    def wait(self, segment: int, part: int) -> list[Place]:
        """The same, as soon as they are there; every request has a limit of its own."""
        with self._lock:
            while (found := self._find(segment, part)) is None:
                self._has_answer.wait()
            return found

    def _find(self, segment: int, part: int) -> list[Place] | None:
        if isinstance(self._dead, MillpondError):
            raise self._dead
        if self._dead is not None:
            raise InternalError(f"fetching ahead ended: {self._dead!r}") from self._dead
        entry = self._entries.get((segment, part))
        return None if entry is None or entry.waiting else [place for place in entry.places if place is not None]

    def release(self, segment: int, part: int, *, is_bad: bool = False) -> None:
        """The task is done with its bytes; if some of them were bad, they must not be kept for the next epoch."""
        with self._lock:
            entry = self._entries.pop((segment, part), None)
            if is_bad and entry is not None:
                came = [place[0] for place in entry.places if place is not None and isinstance(place[1], int)]
                for request in self._requests(_Entry(entry.epoch, entry.task), came):
                    self._source.forget(request.piece)
            if entry is not None and entry.start >= 0:
                self._ring.give_back(entry.start)
                if self._is_full and self._ring.taken_bytes <= (1 - _FREE_SHARE) * self._ring.size:
                    self._is_full = False
                    self._has_work.notify_all()

    @property
    def held_bytes(self) -> int:
        """Of the ring, what is taken."""
        return self._ring.taken_bytes

    def statistics(self) -> dict[str, int]:
        """What was fetched since this was made, and what was planned."""
        now = Counter(self._source.counters())
        now.subtract(self._before)
        return {**now, **self.counters}

    def close(self) -> None:
        """End the thread, and what is under way. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._has_work.notify_all()
        self._thread.join(_END_SECONDS)
        while self._thread.is_alive():  # it waits for the table of a file
            self._source.interrupt()
            self._thread.join(_END_SECONDS)
        self.begin(None)
        self._memory.release()

    # ---- the thread

    def _run(self) -> None:
        try:
            while (begun := self._next_epoch()) is not None:
                for segment, part, wanted in self._tasks(begun[1]):
                    if not self._fetch(begun[0], segment, part, wanted):
                        break
        except BaseException as error:  # noqa: BLE001 - whatever it is, the driver must learn of it, not wait
            self._die(error)

    def _die(self, error: BaseException) -> None:
        with self._lock:
            self._dead = error
            self._has_answer.notify_all()
        self._on_ready()

    def _next_epoch(self) -> tuple[int, EpochPlan] | None:
        """Wait for one that was not begun yet."""
        with self._lock:
            while not self._is_closed:
                if self._plan is not None:
                    plan, self._plan = self._plan, None
                    return self._epoch, plan
                self._has_work.wait()
        return None

    def _tasks(self, plan: EpochPlan) -> Iterator[tuple[int, int, list[WantedRange]]]:
        for segment in range(plan.num_segments):
            samples = plan.samples[plan.segment_bounds[segment] : plan.segment_bounds[segment + 1]]
            for part, bundle in enumerate(self._bundles):
                yield segment, part, self._source.wanted(bundle, samples)

    def _fetch(self, epoch: int, segment: int, part: int, wanted: list[WantedRange]) -> bool:
        """Take room for one task and have its bytes fetched; False if another epoch has begun."""
        size = sum(one.stop - one.start for one in wanted)
        if size > self._ring.size:
            self._say_too_large(size)
            wanted = []
        entry = _Entry(epoch, (segment, part))
        with self._lock:
            if not (self._take_room(entry, size) if wanted else self._goes_on(epoch)):
                return False
            self._entries[segment, part] = entry
            requests = self._requests(entry, wanted)
            entry.waiting = len(requests)
            self._waiting.extend(requests)
            self.counters["ranges_planned"] += len(requests)
            self._submit_waiting()
            wakes = not requests and self._answered()
        if wakes:
            self._on_ready()
        return True

    def _goes_on(self, epoch: int) -> bool:
        return epoch == self._epoch and not self._is_closed

    def _take_room(self, entry: _Entry, size: int) -> bool:
        while self._goes_on(entry.epoch):
            start = self._ring.take(size)
            if start is not None:
                entry.start = start
                self.counters["most_bytes_held"] = max(self.counters["most_bytes_held"], self._ring.taken_bytes)
                return True
            self._is_full = True
            self._has_work.wait()
        return False

    def _requests(self, entry: _Entry, wanted: list[WantedRange]) -> list[_Request]:
        position, requests = entry.start, []
        for number, one in enumerate(wanted):
            entry.places.append((one, self._offset + position))
            for request in plan_requests([ByteRange(one.start, one.stop)], 0, MAX_REQUEST_BYTES).requests:
                piece = one._replace(start=request.start, stop=request.stop)
                requests.append(_Request(entry, number, piece, position + request.start - one.start))
            position += one.stop - one.start
        return requests

    def _say_too_large(self, size: int) -> None:
        if not self.counters["tasks_not_fetched_ahead"]:
            _logger.warning(
                "a task reads %.1f MiB, more than the %.1f MiB that are fetched ahead: its worker fetches them, and "
                "waits for them; raise memory=",
                size / 2**20,
                self._ring.size / 2**20,
            )
        self.counters["tasks_not_fetched_ahead"] += 1

    # ---- requests, from the thread and, when one has ended, from the store's

    def _submit_waiting(self) -> None:
        """Begin as many requests as may be under way. Under the lock; not within itself, where one ends at once."""
        if self._is_submitting:
            return
        self._is_submitting = True
        try:
            while self._waiting and len(self._futures) < self._max_requests:
                request = self._waiting.popleft()
                lane, began_ns = self._lanes.take(), time.monotonic_ns()
                future = self._source.submit(request.piece)
                self._futures.add(future)
                future.add_done_callback(partial(self._on_done, request, lane, began_ns))
        finally:
            self._is_submitting = False

    def _note(self, request: _Request, lane: int, began_ns: int, outcome: str) -> None:
        entry, flows = request.entry, self._timeline.flows
        facts: dict[str, int | str] = {
            "segment": entry.task[0],
            "part": request.piece.part,
            "bytes": request.piece.stop - request.piece.start,
            "outcome": outcome,
        }
        flows_out = () if flows is None else flows.fetched(entry.task)
        span = Span("fetch", lane, began_ns, time.monotonic_ns(), "fetch", facts, flows_out=flows_out)
        self._timeline.note(span)

    def _on_done(self, request: _Request, lane: int, began_ns: int, done: Future[Any]) -> None:
        entry = request.entry
        with self._lock:
            self._futures.discard(done)
            self._lanes.give_back(lane)
            if entry.epoch != self._epoch:
                return  # its room may be another's by now
            wanted = entry.places[request.number]
            error = None if done.cancelled() else done.exception()
            if done.cancelled():  # by who closed the dataset under another loader
                entry.places[request.number] = None
            elif error is None:
                data = memoryview(done.result()).cast("B")
                self._memory[request.position : request.position + len(data)] = data
            elif isinstance(error, DataError) and wanted is not None:
                entry.places[request.number] = (wanted[0], error)
            self._note(request, lane, began_ns, "came" if error is None else type(error).__name__)
            entry.waiting -= 1
            try:
                self._submit_waiting()
            except BaseException as failure:  # noqa: BLE001 - see _run
                error = failure
            is_dead = error is not None and not isinstance(error, DataError)
            if is_dead:
                self._dead = error  # before anybody is told that the task is ready: its room was not filled
            wakes = (is_dead or not entry.waiting) and self._answered()
        if wakes or is_dead:
            self._on_ready()

    def _answered(self) -> bool:
        """A task is ready; whether the driver is to be told."""
        self._has_answer.notify_all()
        is_awaited, self._is_awaited = self._is_awaited, False
        return is_awaited
