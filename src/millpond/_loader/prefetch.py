"""Fetches what tasks will read before they are given out, in the order of the plan, into memory of fixed size.

Theory of operation. A thread walks through an epoch's plan, segment by segment, ahead of the pond. For each task it
asks the dataset which bytes the task will read, takes room for them in a ring of the arena, waiting until there is
some, and has them fetched, so many requests at a time. A task whose bytes are there is given out with their places, and
its room is free again when it is done. Tasks begin and end nearly in the order of the plan, so a ring loses little.

A range that could not be fetched is handed to the task as the error that reading it raises: so it fails just the
samples that need it. A task that wants more than the ring holds gets nothing ahead, and its worker fetches for itself.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from millpond._datasets.base import ByteSource, WantedRange
from millpond._loader.work import Place
from millpond._plan.epoch import EpochPlan
from millpond._plan.requests import plan_requests
from millpond._values import ByteRange
from millpond.errors import DataError, InternalError

_logger = logging.getLogger("millpond")

MAX_REQUEST_BYTES = 4 << 20
"""Longer ranges are fetched by several requests at once."""


class Ring:
    """Which part of a fixed piece of memory is taken: taken in order, given back in any, free again in order.

    Args:
        size: Bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken: deque[list[int]] = deque()  # [start, stop, 1 if given back]

    def take(self, size: int) -> int | None:
        """Where `size` bytes in one piece begin; None where there is no such room now."""
        while self._taken and self._taken[0][2]:
            self._taken.popleft()
        if not self._taken:
            start = 0
        else:
            first, last = self._taken[0][0], self._taken[-1][1]
            if last > first:  # taken: first to last, around nothing
                start = last if last + size <= self.size else 0
                if start == 0 and size > first:
                    return None
            else:  # taken: around the end
                start = last
                if last + size > first:
                    return None
        if start + size > self.size:
            return None
        self._taken.append([start, start + size, 0])
        return start

    def give_back(self, start: int) -> None:
        """The piece that begins there is free."""
        for piece in self._taken:
            if piece[0] == start and not piece[2]:
                piece[2] = 1
                return

    @property
    def taken_bytes(self) -> int:
        """In pieces that were not given back."""
        return sum(stop - start for start, stop, is_back in self._taken if not is_back)


@dataclass(slots=True, eq=False)
class _Entry:
    """The bytes of one task."""

    epoch: int
    start: int  # in the ring; -1: none were taken
    places: list[Place] = field(default_factory=list)
    waiting: int = 1  # requests under way, and one for the thread that makes them


class Prefetcher:
    """Fetches ahead for one loader. The driver calls `begin`, `places`, `release`; a thread and callbacks do the rest.

    Args:
        source: Of the dataset.
        memory: What the ring is, writable.
        offset: Of `memory` in the arena.
        bundles: The parts that each task of a segment reads.
        max_requests: Under way at once.
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
        on_ready: Callable[[], None],
    ) -> None:
        self._source = source
        self._memory = memory
        self._offset = offset
        self._bundles = bundles
        self._max_requests = max_requests
        self._on_ready = on_ready
        self._ring = Ring(len(memory))
        self._changed = threading.Condition()
        self._epoch = 0
        self._plan: EpochPlan | None = None
        self._entries: dict[tuple[int, int], _Entry] = {}
        self._futures: set[Future[Any]] = set()
        self._is_awaited = False
        self._is_closed = False
        self._dead: BaseException | None = None
        self._before = Counter(source.counters())
        self.counters: Counter[str] = Counter(ranges_planned=0, tasks_not_fetched_ahead=0, most_bytes_held=0)
        self._thread = threading.Thread(target=self._run, name="millpond-prefetch", daemon=True)
        self._thread.start()

    def begin(self, plan: EpochPlan | None) -> None:
        """Fetch for another epoch, or for none. No task of the one before may be under way any more."""
        with self._changed:
            self._epoch += 1
            self._plan = plan
            self._entries.clear()
            self._ring = Ring(self._ring.size)
            left, self._futures = self._futures, set()
            self._changed.notify_all()
        for future in left:
            future.cancel()

    def places(self, segment: int, part: int) -> list[Place] | None:
        """Where the bytes of a task are; None if they are still under way: then `on_ready` will be called."""
        with self._changed:
            self._require_alive()
            entry = self._entries.get((segment, part))
            if entry is None or entry.waiting:
                self._is_awaited = True
                return None
            return entry.places

    def wait(self, segment: int, part: int) -> list[Place]:
        """The same, as soon as they are there; every request has a limit of its own."""
        with self._changed:
            while True:
                self._require_alive()
                entry = self._entries.get((segment, part))
                if entry is not None and not entry.waiting:
                    return entry.places
                self._changed.wait()

    def release(self, segment: int, part: int) -> None:
        """The task is done with its bytes."""
        with self._changed:
            entry = self._entries.pop((segment, part), None)
            if entry is not None and entry.start >= 0:
                self._ring.give_back(entry.start)
                self._changed.notify_all()

    def statistics(self) -> dict[str, int]:
        """What was fetched since this was made, and what was planned."""
        now = Counter(self._source.counters())
        now.subtract(self._before)
        return {**now, **self.counters}

    def close(self) -> None:
        """End the thread, and what is under way. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()
        self.begin(None)
        self._memory.release()

    def _require_alive(self) -> None:
        if self._dead is not None:
            raise InternalError(f"fetching ahead ended: {self._dead!r}") from self._dead

    # ---- the thread

    def _run(self) -> None:
        try:
            while (epoch := self._next_epoch()) is not None:
                for segment, part, wanted in self._tasks(*epoch):
                    if not self._fetch(epoch[0], segment, part, wanted):
                        break
        except BaseException as error:  # noqa: BLE001 - whatever it is, the driver must learn of it, not wait
            with self._changed:
                self._dead = error
                self._changed.notify_all()
            self._on_ready()

    def _next_epoch(self) -> tuple[int, EpochPlan] | None:
        """Wait for one that was not begun yet."""
        with self._changed:
            while not self._is_closed:
                if self._plan is not None:
                    plan, self._plan = self._plan, None
                    return self._epoch, plan
                self._changed.wait()
        return None

    def _tasks(self, epoch: int, plan: EpochPlan) -> Iterator[tuple[int, int, list[WantedRange]]]:
        for segment in range(plan.num_segments):
            samples = plan.samples[plan.segment_bounds[segment] : plan.segment_bounds[segment + 1]]
            for part, bundle in enumerate(self._bundles):
                yield segment, part, self._source.wanted(bundle, samples)

    def _fetch(self, epoch: int, segment: int, part: int, wanted: list[WantedRange]) -> bool:
        """Take room for one task and have its bytes fetched; False if another epoch has begun."""
        sizes = [one.stop - one.start for one in wanted]
        entry = _Entry(epoch, -1)
        with self._changed:
            if sum(sizes) > self._ring.size:
                self._say_too_large(sum(sizes))
                wanted, sizes = [], []
            while wanted and self._goes_on(epoch):
                start = self._ring.take(sum(sizes))
                if start is not None:
                    entry.start = start
                    break
                self._changed.wait()
            if not self._goes_on(epoch):
                return False
            self._entries[segment, part] = entry
            self.counters["most_bytes_held"] = max(self.counters["most_bytes_held"], self._ring.taken_bytes)
        position = entry.start
        for number, (one, size) in enumerate(zip(wanted, sizes, strict=True)):
            entry.places.append((one, self._offset + position))
            for request in plan_requests([ByteRange(one.start, one.stop)], 0, MAX_REQUEST_BYTES).requests:
                piece = one._replace(start=request.start, stop=request.stop)
                if not self._request(entry, number, piece, position + request.start - one.start):
                    return False
            position += size
        self._one_less(entry)
        return True

    def _goes_on(self, epoch: int) -> bool:
        return epoch == self._epoch and not self._is_closed

    def _say_too_large(self, size: int) -> None:
        if not self.counters["tasks_not_fetched_ahead"]:
            _logger.warning(
                "a task reads %.1f MiB, more than the %.1f MiB that are fetched ahead: its worker fetches them, and "
                "waits for them; raise memory=",
                size / 2**20,
                self._ring.size / 2**20,
            )
        self.counters["tasks_not_fetched_ahead"] += 1

    def _request(self, entry: _Entry, number: int, piece: WantedRange, position: int) -> bool:
        with self._changed:
            while len(self._futures) >= self._max_requests and self._goes_on(entry.epoch):
                self._changed.wait()
            if not self._goes_on(entry.epoch):
                return False
            self.counters["ranges_planned"] += 1
            entry.waiting += 1
            future = self._source.submit(piece)
            self._futures.add(future)
        future.add_done_callback(lambda done: self._on_done(entry, number, position, done))
        return True

    # ---- when a request has ended: in the store's thread, or in ours

    def _on_done(self, entry: _Entry, number: int, position: int, done: Future[Any]) -> None:
        with self._changed:
            self._futures.discard(done)
            if done.cancelled() or entry.epoch != self._epoch:
                self._changed.notify_all()
                return  # its room may be another's by now
            error = done.exception()
            if error is None:
                data = memoryview(done.result()).cast("B")
                self._memory[position : position + len(data)] = data
            elif isinstance(error, DataError):
                entry.places[number] = (entry.places[number][0], error)
            else:
                self._dead = error
        self._one_less(entry)

    def _one_less(self, entry: _Entry) -> None:
        with self._changed:
            entry.waiting -= 1
            wakes = self._is_awaited and (not entry.waiting or self._dead is not None)
            if wakes:
                self._is_awaited = False
            self._changed.notify_all()
        if wakes:
            self._on_ready()
