"""Fetching ahead: a ring against a model of cells, and a prefetcher whose requests the test answers by hand."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from millpond._datasets.base import WantedRange
from millpond._loader import prefetch
from millpond._loader.prefetch import Prefetcher
from millpond._loader.ring import Ring
from millpond._loader.timeline import Timeline
from millpond._loader.work import Place
from millpond._plan.epoch import EpochPlan
from millpond._plan.memory import LEAST_PREFETCH_BYTES, MIB, MOST_PREFETCH_BYTES, MemoryPlan
from millpond._plan.segments import Segments
from millpond.errors import CorruptMedia, DataError, InternalError, UnsupportedFormat, UsageError
from planned import plan_epoch
from test_plan_memory import chosen, demand

OFFSET = 1000
PATIENCE_SECONDS = 20.0


# ---- the ring


class CellModel:
    """A ring as a row of cells: each belongs to the piece that took it until that, and all before it, came back."""

    def __init__(self, size: int) -> None:
        self.owner = [0] * size
        self.pieces: list[tuple[int, int, int]] = []  # number, start, size; those that are free again are not here
        self.back: set[int] = set()
        self.last = 0

    def take(self, number: int, size: int) -> int | None:
        """Behind the last piece, or else where the cells begin."""
        for start in (self.last, 0) if self.pieces else (0,):
            cells = self.owner[start : start + size]
            if len(cells) == size and not any(cells):
                self.owner[start : start + size] = [number] * size
                self.pieces.append((number, start, size))
                self.last = start + size
                return start
        return None

    def give_back(self, number: int) -> None:
        self.back.add(number)
        while self.pieces and self.pieces[0][0] in self.back:
            number, start, size = self.pieces.pop(0)
            self.owner[start : start + size] = [0] * size


ACTS = st.lists(
    st.one_of(st.tuples(st.just("take"), st.integers(1, 6)), st.tuples(st.just("back"), st.integers(0, 5))), max_size=40
)


@settings(max_examples=400)
@given(size=st.integers(1, 12), acts=ACTS)
def test_a_ring_gives_the_room_that_there_is_and_none_twice(size: int, acts: list[tuple[str, int]]) -> None:
    ring, model, held = Ring(size), CellModel(size), list[tuple[int, int, int]]()
    for number, (act, value) in enumerate(acts, 1):
        if act == "take":
            start = ring.take(value)
            assert start == model.take(number, value)
            if start is not None:
                assert 0 <= start <= start + value <= size
                assert all(start + value <= other or other + length <= start for _, other, length in held)
                held.append((number, start, value))
        elif held:
            number, start, _ = held.pop(value % len(held))
            ring.give_back(start)
            model.give_back(number)
        assert ring.taken_bytes == sum(length for _, _, length in held)
    for _, start, _ in held:
        ring.give_back(start)
    assert (ring.take(size), ring.taken_bytes) == (0, size)


def test_the_last_byte_before_the_oldest_piece_is_room() -> None:
    ring = Ring(10)
    assert [ring.take(4), ring.take(4)] == [0, 4]
    ring.give_back(0)
    assert [ring.take(3), ring.take(1), ring.take(1)] == [0, 3, None]


def test_a_ring_gives_a_piece_back_only_once_where_another_begins_there_later() -> None:
    ring = Ring(10)
    assert [ring.take(6), ring.take(4), ring.take(1)] == [0, 6, None]
    ring.give_back(0)
    assert ring.take(6) == 0
    ring.give_back(0)  # the later one: the first piece is free already
    assert ring.take(1) is None  # behind [6, 10), which is still taken, there is [0, 6) until that is free again
    ring.give_back(6)
    assert ring.take(10) == 0


# ---- a source that the test answers for


class Asked(NamedTuple):
    """A request under way."""

    wanted: WantedRange
    future: Future[Any]

    def answer(self) -> None:
        self.future.set_result(content(self.wanted))


def content(wanted: WantedRange) -> bytes:
    """What is in those bytes of that file: every position differs from its neighbours, and files from one another."""
    places = np.arange(wanted.start, wanted.stop, dtype=np.uint32)
    return bytes(((places * 2654435761 + 97 * (ord(wanted.part) + wanted.file)) >> 7).astype(np.uint8))


class HandSource:
    """A `ByteSource`: a sample has `sample_bytes` bytes of each part, and nothing comes before the test says so.

    Attributes:
        asked: What was submitted, in order.
        most_under_way: Requests at once.
        log: What was called: "wanted 0", "submit 0", by first sample.
    """

    def __init__(self, sample_bytes: int = 10) -> None:
        self.sample_bytes = sample_bytes
        self.extra: dict[int, list[WantedRange]] = {}  # by first sample, in place of the usual
        self.broken: dict[str, Exception] = {}
        self.asked: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.log: list[str] = []
        self.futures: list[Future[Any]] = []
        self.most_under_way = 0
        self.count = Counter(requests=7, bytes_fetched=700)
        self.silent: int | None = None  # the first sample of which `wanted` waits until it is interrupted
        self.interrupted = threading.Event()
        self.forgotten: list[WantedRange] = []

    def wanted(self, parts: Sequence[str], samples: NDArray[np.int64]) -> list[WantedRange]:
        first, stop = int(samples[0]), int(samples[-1]) + 1
        self._note(f"wanted {first}")
        if first == self.silent:
            assert self.interrupted.wait(PATIENCE_SECONDS)
        if first in self.extra:
            return self.extra[first]
        return [WantedRange(part, 0, first * self.sample_bytes, stop * self.sample_bytes) for part in parts]

    def submit(self, wanted: WantedRange) -> Future[Any]:
        self._note(f"submit {wanted.start // self.sample_bytes}")
        future: Future[Any] = Future()
        self.futures.append(future)
        self.most_under_way = max(self.most_under_way, sum(not one.done() for one in self.futures))
        self.count.update(requests=1, bytes_fetched=wanted.stop - wanted.start)
        self.asked.put(Asked(wanted, future))
        return future

    def segment_bytes(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        return (stops - starts) * self.sample_bytes

    def forget(self, wanted: WantedRange) -> None:
        self.forgotten.append(wanted)

    def interrupt(self) -> None:
        self.interrupted.set()

    def counters(self) -> dict[str, int]:
        return dict(self.count)

    def _note(self, what: str) -> None:
        self.log.append(what)
        self.events.put(what)
        if what in self.broken:
            raise self.broken[what]

    def next(self) -> Asked:
        """The next request, once it is made."""
        return self.asked.get(timeout=PATIENCE_SECONDS)

    def until(self, what: str) -> None:
        """Wait for an entry of the log."""
        while self.events.get(timeout=PATIENCE_SECONDS) != what:
            pass


class Rig:
    """A prefetcher over a source, its memory, and what it called."""

    def __init__(self, source: HandSource, ring_bytes: int, max_requests: int, bundles: Sequence[tuple[str, ...]]):
        self.source = source
        self.memory = bytearray(ring_bytes)
        self.ready = threading.Semaphore(0)
        self.num_ready = 0
        self.when_ready: Callable[[], object] = lambda: None
        self.timeline = Timeline(1, fetches_ahead=True)
        self.prefetcher = Prefetcher(
            source,
            memoryview(self.memory),
            OFFSET,
            bundles,
            max_requests=max_requests,
            timeline=self.timeline,
            on_ready=self._on_ready,
        )

    def _on_ready(self) -> None:
        self.num_ready += 1
        self.when_ready()
        self.ready.release()

    def places(self, segment: int, part: int = 0) -> list[Place]:
        """As soon as they are there, as a driver waits for them."""
        while (places := self.prefetcher.places(segment, part)) is None:
            assert self.ready.acquire(timeout=PATIENCE_SECONDS), self.source.log
        return places

    def bytes_at(self, place: Place) -> bytes:
        wanted, start = place
        assert isinstance(start, int)
        return bytes(self.memory[start - OFFSET : start - OFFSET + wanted.stop - wanted.start])

    def holds(self, places: Sequence[Place]) -> bool:
        """Whether every byte is what the file has there."""
        return all(self.bytes_at(place) == content(place[0]) for place in places)


@contextmanager
def rig(
    source: HandSource | None = None,
    *,
    ring_bytes: int = 1000,
    max_requests: int = 4,
    bundles: Sequence[tuple[str, ...]] = (("a",),),
) -> Iterator[Rig]:
    made = Rig(source or HandSource(), ring_bytes, max_requests, bundles)
    try:
        yield made
    finally:
        closer = threading.Thread(target=made.prefetcher.close, daemon=True)
        closer.start()
        closer.join(PATIENCE_SECONDS)
        assert not closer.is_alive(), "close() hangs"


def plan_of(num_segments: int, length: int = 2, *, shuffle: bool = False, epoch: int = 0) -> EpochPlan:
    starts = np.arange(num_segments) * length
    return plan_epoch(
        Segments(starts, starts + length),
        np.zeros(num_segments * length, np.int64),
        batch_size=4,
        horizon_batches=0,
        shuffle=shuffle,
        seed=5,
        epoch=epoch,
    )


# ---- what is fetched, in what order, and where it goes


def test_requests_are_made_in_the_order_of_the_plan_part_by_part() -> None:
    plan = plan_of(6, shuffle=True)
    firsts = plan.samples[plan.segment_bounds[:-1]].tolist()
    assert firsts != sorted(firsts)
    with rig(bundles=(("a", "b"), ("c",)), max_requests=100) as r:
        r.prefetcher.begin(plan)
        got = [r.source.next().wanted for _ in range(18)]
    assert [(one.part, one.start // 10) for one in got] == [(part, first) for first in firsts for part in "abc"]


def test_every_byte_is_where_its_place_says() -> None:
    with rig(bundles=(("a", "b"), ("c",))) as r:
        r.prefetcher.begin(plan_of(3))
        for segment in range(3):
            for part, names in enumerate(("ab", "c")):
                asked = [r.source.next() for _ in names]
                for one in reversed(asked):
                    assert r.prefetcher.places(segment, part) is None
                    one.answer()
                places = r.places(segment, part)
                assert [one.part for one, _ in places] == list(names)
                assert [one.wanted for one in asked] == [one for one, _ in places]
                assert r.holds(places)


def test_a_long_range_is_fetched_by_several_requests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "MAX_REQUEST_BYTES", 64)
    with rig(HandSource(100)) as r:
        r.prefetcher.begin(plan_of(1))
        pieces = [r.source.next() for _ in range(4)]
        assert [one.wanted.start for one in pieces] == [0, 50, 100, 150]
        for one in reversed(pieces):
            assert r.prefetcher.places(0, 0) is None
            one.answer()
        assert r.holds(r.places(0))
        assert r.prefetcher.statistics()["ranges_planned"] == 4


def test_no_more_requests_are_under_way_than_allowed() -> None:
    with rig(max_requests=3) as r:
        r.prefetcher.begin(plan_of(20))
        under_way = [r.source.next() for _ in range(3)]
        for number in range(17):
            under_way.pop(number % 3).answer()
            under_way.append(r.source.next())
        assert r.source.most_under_way == 3


def test_a_task_waits_for_room_until_the_oldest_one_is_done() -> None:
    with rig(ring_bytes=50) as r:  # tasks of 20 bytes
        r.prefetcher.begin(plan_of(4))
        for _ in range(2):
            r.source.next().answer()
        first, second = r.places(0), r.places(1)
        r.source.until("wanted 4")
        r.prefetcher.release(1, 0)  # not the oldest: its room is not free yet
        assert r.prefetcher.places(2, 0) is None
        r.source.log.append("release 0")
        assert r.holds([*first, *second])
        r.prefetcher.release(0, 0)
        r.source.next().answer()
        assert r.holds(r.places(2))
        assert r.source.log.index("release 0") < r.source.log.index("submit 4")
        assert r.prefetcher.statistics()["most_bytes_held"] == 40


@pytest.mark.parametrize("seed", range(8))
def test_no_byte_of_a_task_is_touched_until_it_is_done(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers in any order, tasks that end in any order, sizes of all kinds: a driver by lot."""
    monkeypatch.setattr(prefetch, "MAX_REQUEST_BYTES", 17)
    chance, source = random.Random(seed), HandSource()
    for first in range(0, 60, 2):
        starts = [chance.randrange(500) for _ in range(chance.randrange(4))]
        source.extra[first] = [WantedRange("a", k, at, at + chance.randrange(1, 20)) for k, at in enumerate(starts)]
    with rig(source, ring_bytes=90, max_requests=5) as r:
        r.prefetcher.begin(plan_of(30))
        waiting, running, asked_for = list[Asked](), dict[int, list[Place]](), 0
        while asked_for < 30 or running:
            while not source.asked.empty():
                waiting.append(source.asked.get())
            if waiting and chance.random() < 0.7:
                waiting.pop(chance.randrange(len(waiting))).answer()
            if asked_for < 30 and (places := r.prefetcher.places(asked_for, 0)) is not None:
                running[asked_for] = places
                assert [one for one, _ in places] == source.extra[2 * asked_for]
                asked_for += 1
            for segment in [one for one in running if chance.random() < 0.2]:
                assert r.holds(running.pop(segment))
                r.prefetcher.release(segment, 0)
            assert sum(len(content(one)) for places in running.values() for one, _ in places) <= 90


def test_a_task_that_reads_nothing_is_ready_at_once() -> None:
    source = HandSource()
    source.extra[0] = []
    with rig(source, bundles=(("a",),)) as r:
        r.prefetcher.begin(plan_of(1))
        assert r.places(0) == []


def test_what_a_resumed_epoch_no_longer_reads_is_not_fetched() -> None:
    with rig(max_requests=100) as r:
        r.prefetcher.begin(plan_of(6).resumed_at(1))  # batches of four: two segments are over
        assert [r.source.next().wanted.start // 10 for _ in range(4)] == [4, 6, 8, 10]
        assert r.prefetcher.places(0, 0) is None


# ---- the driver is told


def test_the_driver_is_called_once_where_it_asked_in_vain_and_never_else() -> None:
    with rig() as r:
        r.prefetcher.begin(plan_of(3))
        asked = [r.source.next() for _ in range(3)]
        asked[0].answer()
        assert r.places(0)
        assert r.num_ready == 0  # nobody had asked
        assert (r.prefetcher.places(1, 0), r.prefetcher.places(1, 0)) == (None, None)
        assert r.num_ready == 0
        asked[1].answer()
        assert r.num_ready == 1
        asked[2].answer()  # nobody has asked since
        assert r.num_ready == 1
        assert r.prefetcher.places(2, 0)


def test_a_task_with_requests_left_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "MAX_REQUEST_BYTES", 10)
    with rig() as r:
        r.prefetcher.begin(plan_of(1))
        first, second = r.source.next(), r.source.next()
        assert r.prefetcher.places(0, 0) is None
        first.answer()
        assert (r.prefetcher.places(0, 0), r.num_ready) == (None, 0)
        second.answer()
        assert r.num_ready == 1


def test_waiting_ends_with_the_last_answer() -> None:
    with rig(bundles=(("a", "b"),)) as r:
        r.prefetcher.begin(plan_of(1))
        got: queue.SimpleQueue[list[Place]] = queue.SimpleQueue()
        waiter = threading.Thread(target=lambda: got.put(r.prefetcher.wait(0, 0)))
        waiter.start()
        r.source.next().answer()
        assert got.empty()
        r.source.next().answer()
        assert r.holds(got.get(timeout=PATIENCE_SECONDS))
        waiter.join()


# ---- what goes wrong


def test_a_range_that_cannot_be_had_is_the_error_of_that_range_alone() -> None:
    with rig(bundles=(("a", "b"),)) as r:
        r.prefetcher.begin(plan_of(2))
        bad, good, *rest = [r.source.next() for _ in range(4)]
        error = CorruptMedia("the object changed", path="a")
        bad.future.set_exception(error)
        good.answer()
        (wanted, outcome), place = r.places(0)
        assert (wanted, outcome) == (bad.wanted, error)
        assert r.holds([place])
        for one in rest:
            one.answer()
        assert r.holds(r.places(1))


def test_a_range_of_which_one_piece_fails_fails_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "MAX_REQUEST_BYTES", 5)
    with rig() as r:
        r.prefetcher.begin(plan_of(1))
        pieces = [r.source.next() for _ in range(4)]
        for piece in pieces[:2]:
            piece.answer()
        pieces[2].future.set_exception(DataError("gone"))
        pieces[3].answer()
        (_, outcome), *others = r.places(0)
        assert isinstance(outcome, DataError)
        assert not others


def test_a_failed_range_gives_its_room_back() -> None:
    with rig(ring_bytes=20) as r:
        r.prefetcher.begin(plan_of(5))
        for segment in range(5):
            r.source.next().future.set_exception(DataError("gone"))
            assert isinstance(r.places(segment)[0][1], DataError)
            r.prefetcher.release(segment, 0)


@pytest.mark.parametrize("where", ["wanted 2", "submit 2", "answer"])
@pytest.mark.parametrize("asks", ["places", "wait"])
def test_any_other_error_reaches_the_driver(where: str, asks: str) -> None:
    source = HandSource()
    source.broken = {where: TypeError("a bug")}
    with rig(source) as r:
        r.prefetcher.begin(plan_of(3))
        assert r.prefetcher.places(1, 0) is None or where == "answer"
        if where == "answer":
            r.source.next().future.set_exception(TypeError("a bug"))
        else:
            assert r.ready.acquire(timeout=PATIENCE_SECONDS)  # the driver is woken, with nothing answered
        with pytest.raises(InternalError, match="a bug") as caught:
            getattr(r.prefetcher, asks)(1, 0)
        assert isinstance(caught.value.__cause__, TypeError)
        with pytest.raises(InternalError):  # also for what was ready before
            r.prefetcher.places(0, 0)


def test_an_error_of_use_reaches_the_driver_as_what_it_is() -> None:
    source = HandSource()
    source.broken = {"submit 0": UsageError("a forked child: use spawn")}
    with rig(source) as r:
        r.prefetcher.begin(plan_of(1))
        with pytest.raises(UsageError, match="use spawn"):
            r.prefetcher.wait(0, 0)


def test_room_that_an_error_left_unfilled_is_handed_to_nobody() -> None:
    """Not even to a driver that looks as soon as it is woken."""
    with rig() as r:
        r.prefetcher.begin(plan_of(1))
        asked, seen = r.source.next(), list[object]()
        assert r.prefetcher.places(0, 0) is None

        def look() -> None:
            try:
                seen.append(r.prefetcher.places(0, 0))
            except UnsupportedFormat as error:
                seen.append(str(error))

        r.when_ready = look
        asked.future.set_exception(UnsupportedFormat("a package is missing"))
        assert seen
        assert set(seen) == {"a package is missing"}


def test_who_waits_already_learns_of_an_error() -> None:
    with rig() as r:
        r.prefetcher.begin(plan_of(1))
        asked, seen = r.source.next(), list[BaseException]()

        def wait() -> None:
            try:
                r.prefetcher.wait(0, 0)
            except BaseException as error:  # noqa: BLE001 - it is what the test looks at
                seen.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        asked.future.set_exception(TypeError("a bug"))
        waiter.join(PATIENCE_SECONDS)
        assert isinstance(seen[0], InternalError)


def test_a_request_that_somebody_else_cancelled_leaves_its_range_to_who_reads_it() -> None:
    """As where another loader of the same dataset is closed, and with it the store."""
    with rig(bundles=(("a", "b"),)) as r:
        r.prefetcher.begin(plan_of(2))
        cancelled, other, *rest = [r.source.next() for _ in range(4)]
        assert r.prefetcher.places(0, 0) is None
        assert cancelled.future.cancel()
        other.answer()
        places = r.places(0)
        assert [one.part for one, _ in places] == ["b"]
        assert r.holds(places)
        for one in rest:
            one.answer()
        assert r.holds(r.places(1))


def test_a_task_larger_than_the_ring_is_left_to_its_worker_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    source = HandSource()
    for first in (2, 6):
        source.extra[first] = [WantedRange("a", 0, 0, 30), WantedRange("a", 1, 0, 21)]
    with rig(source, ring_bytes=50) as r, caplog.at_level(logging.WARNING, "millpond"):
        r.prefetcher.begin(plan_of(5))
        for segment in range(5):
            is_large = segment in (1, 3)
            if not is_large:
                r.source.next().answer()
            places = r.places(segment)
            assert (places == []) is is_large
            assert r.holds(places)
            r.prefetcher.release(segment, 0)
        assert r.prefetcher.statistics()["tasks_not_fetched_ahead"] == 2
    assert [record.message.partition(",")[0] for record in caplog.records] == ["a task reads 0.0 MiB"]


def test_a_task_as_large_as_the_ring_is_fetched_ahead() -> None:
    source = HandSource(25)
    with rig(source, ring_bytes=50) as r:
        r.prefetcher.begin(plan_of(3))
        for segment in range(3):
            r.source.next().answer()
            assert r.holds(r.places(segment))
            r.prefetcher.release(segment, 0)
        assert r.prefetcher.statistics()["tasks_not_fetched_ahead"] == 0


# ---- another epoch


def test_a_new_epoch_cancels_what_is_under_way() -> None:
    with rig() as r:
        r.prefetcher.begin(plan_of(3))
        old = [r.source.next() for _ in range(3)]
        r.prefetcher.begin(plan_of(2, epoch=1))
        assert all(one.future.cancelled() for one in old)
        for _ in range(2):
            r.source.next().answer()
        assert r.holds([*r.places(0), *r.places(1)])


def test_bytes_of_the_former_epoch_are_not_those_of_the_new_one() -> None:
    with rig() as r:
        r.prefetcher.begin(plan_of(1))
        r.source.next().answer()
        assert r.places(0)
        r.source.extra[0] = [WantedRange("a", 3, 0, 20)]
        r.prefetcher.begin(plan_of(1))  # an epoch that was broken off gives nothing back
        assert r.prefetcher.places(0, 0) is None
        r.source.next().answer()
        assert [one.file for one, _ in r.places(0)] == [3]


@pytest.mark.parametrize("outcome", ["bytes", "error"])
def test_a_late_answer_touches_nothing_of_the_new_epoch(outcome: str) -> None:
    old_source = HandSource()
    old_source.extra[0] = [WantedRange("a", 5, 0, 20)]
    with rig(old_source, ring_bytes=20) as r:
        r.prefetcher.begin(plan_of(1))
        old = r.source.next()
        assert old.future.set_running_or_notify_cancel()  # too late to be cancelled
        old_source.extra.clear()
        r.prefetcher.begin(plan_of(1))
        r.source.next().answer()
        places = r.places(0)
        if outcome == "bytes":
            old.answer()
        else:
            old.future.set_exception(TypeError("of no interest any more"))
        assert r.holds(places)
        assert r.prefetcher.places(0, 0) == places


def test_a_late_answer_counts_as_no_answer_of_the_new_epoch() -> None:
    with rig() as r:
        r.prefetcher.begin(plan_of(1))
        old = r.source.next()
        old.future.set_running_or_notify_cancel()
        r.prefetcher.begin(plan_of(1))
        new = r.source.next()
        assert r.prefetcher.places(0, 0) is None
        old.answer()
        assert (r.prefetcher.places(0, 0), r.num_ready) == (None, 0)
        new.answer()
        assert r.holds(r.places(0))


@pytest.mark.parametrize("stuck_for", ["room", "a request"])
def test_a_new_epoch_frees_a_thread_that_waits(stuck_for: str) -> None:
    with rig(ring_bytes=20 if stuck_for == "room" else 1000, max_requests=1) as r:
        r.prefetcher.begin(plan_of(3))
        if stuck_for == "room":
            r.source.next().answer()
        r.source.until("wanted 2")
        source = r.source
        source.log.clear()
        r.prefetcher.begin(plan_of(2))
        while (asked := source.next()).future.cancelled():
            pass
        asked.answer()
        assert r.holds(r.places(0))


def test_nothing_is_fetched_for_no_epoch() -> None:
    with rig(max_requests=1) as r:
        r.prefetcher.begin(plan_of(5))
        first = r.source.next()
        r.prefetcher.begin(None)
        assert first.future.cancelled()
        assert r.prefetcher.places(0, 0) is None
        r.prefetcher.begin(plan_of(1, epoch=2))
        r.source.next().answer()
        assert r.holds(r.places(0))
        assert len(r.source.futures) == 2


@pytest.mark.parametrize("seed", range(4))
def test_epochs_that_are_broken_off_leave_nothing_in_the_next(seed: int) -> None:
    chance, source = random.Random(seed), HandSource()
    with rig(source, ring_bytes=100, max_requests=3) as r:
        late: list[Asked] = []
        for _ in range(20):
            r.prefetcher.begin(plan_of(8))
            for segment in range(chance.randrange(8)):
                while (asked := r.source.next()).future.cancelled():
                    pass
                asked.answer()
                places = r.places(segment)
                while late and chance.random() < 0.5:
                    late.pop().answer()
                assert r.holds(places)
                r.prefetcher.release(segment, 0)
            while not source.asked.empty():  # a connection that does not hear of being cancelled
                asked = source.asked.get()
                if asked.future.set_running_or_notify_cancel():
                    late.append(asked)


# ---- the end


def _before_an_epoch(r: Rig) -> None:
    pass


def _with_requests_under_way(r: Rig) -> None:
    r.prefetcher.begin(plan_of(2))
    for _ in range(2):
        r.source.next()


def _waiting_for_a_request(r: Rig) -> None:
    r.prefetcher.begin(plan_of(9))
    for _ in range(4):
        r.source.next()
    r.source.until("wanted 8")


def _waiting_for_room(r: Rig) -> None:
    r.source.sample_bytes = 250
    r.prefetcher.begin(plan_of(9))
    for _ in range(2):
        r.source.next().answer()
    r.source.until("wanted 4")


def _over(r: Rig) -> None:
    r.prefetcher.begin(plan_of(1))
    r.source.next().answer()
    assert r.places(0)


def _dead(r: Rig) -> None:
    r.source.broken = {"wanted 0": TypeError("a bug")}
    r.prefetcher.begin(plan_of(1))
    with pytest.raises(InternalError):
        r.prefetcher.wait(0, 0)


STAGES = (_before_an_epoch, _with_requests_under_way, _waiting_for_a_request, _waiting_for_room, _over, _dead)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__.strip("_").replace("_", " "))
def test_it_can_be_closed_at_any_stage_and_twice(stage: Callable[[Rig], None]) -> None:
    with rig() as r:
        stage(r)
        r.prefetcher.close()
        assert all(future.done() for future in r.source.futures)
        assert "millpond-prefetch" not in {thread.name for thread in threading.enumerate()}
        r.prefetcher.close()
        r.memory.clear()  # nobody holds a view of it


def test_bytes_of_a_task_that_failed_are_kept_no_longer() -> None:
    with rig() as r:
        r.prefetcher.begin(plan_of(2))
        for segment in range(2):
            r.source.next().answer()
            assert r.places(segment)
            r.prefetcher.release(segment, 0, is_bad=segment == 1)
    assert r.source.forgotten == [WantedRange("a", 0, 20, 40)]


def test_a_wait_for_the_table_of_a_file_is_interrupted_by_the_end() -> None:
    source = HandSource()
    source.silent = 0
    with rig(source) as r:
        r.prefetcher.begin(plan_of(2))
        source.until("wanted 0")
        r.prefetcher.close()
    assert source.log == ["wanted 0"]


def test_an_answer_after_the_end_harms_nobody() -> None:
    with rig() as r:
        r.prefetcher.begin(plan_of(1))
        asked = r.source.next()
        asked.future.set_running_or_notify_cancel()
        r.prefetcher.close()
        asked.answer()


def test_it_counts_what_was_fetched_since_it_was_made() -> None:
    with rig() as r:
        r.prefetcher.begin(plan_of(3))
        for segment in range(3):
            r.source.next().answer()
            assert r.places(segment)
        told = r.prefetcher.statistics()
    assert (told["requests"], told["bytes_fetched"]) == (3, 60)
    assert (told["ranges_planned"], told["tasks_not_fetched_ahead"], told["most_bytes_held"]) == (3, 0, 60)


# ---- its share of the memory plan


def streamed(bytes_per_sample: int, fetch_workers: int = 16, memory: str = "2GiB") -> MemoryPlan:
    def fetched(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        return (stops - starts) * bytes_per_sample

    return chosen(replace(demand(30), fetched_bytes=fetched, fetch_workers=fetch_workers), memory)


def test_a_dataset_at_hand_has_no_ring() -> None:
    plan = chosen(demand(30), "2GiB")
    assert plan.prefetch_bytes == 0
    assert "prefetch" not in str(plan)


def test_the_ring_holds_the_tasks_under_way_twice_and_is_part_of_the_budget() -> None:
    plan = streamed(10_000)
    task_bytes = 10_000 * plan.samples_per_segment * plan.parts_per_task / 2
    assert 2 * 16 * task_bytes <= plan.prefetch_bytes < 2 * 16 * task_bytes + MIB
    assert plan.arena_bytes == plan.pond_slots * plan.pond_slot_bytes + plan.prefetch_bytes
    assert plan.arena_bytes + plan.overhead_bytes + plan.heap_bytes == 2048 * MIB
    assert plan.overhead_bytes > chosen(demand(30), "2GiB").overhead_bytes
    assert f"{plan.prefetch_bytes / MIB:.1f} MiB   compressed bytes" in str(plan)


def test_more_requests_at_once_want_a_larger_ring_within_bounds() -> None:
    assert streamed(10).prefetch_bytes == LEAST_PREFETCH_BYTES
    assert streamed(10_000, 64).prefetch_bytes > 3 * streamed(10_000, 16).prefetch_bytes
    assert streamed(10_000_000).prefetch_bytes == MOST_PREFETCH_BYTES


def test_a_small_budget_has_fewer_open_batches_for_the_sake_of_the_ring() -> None:
    plan = streamed(10_000_000, memory="1GiB")
    assert plan.prefetch_bytes == MOST_PREFETCH_BYTES
    assert plan.heap_bytes >= 0
    assert plan.pond_slots < chosen(demand(30), "1GiB").pond_slots


def test_the_ring_holds_a_few_of_the_largest_tasks() -> None:
    def fetched(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(starts == 0, 20 * MIB, 1)

    plan = chosen(replace(demand(30), fetched_bytes=fetched, fetch_workers=1), "2GiB")
    assert plan.prefetch_bytes >= 4 * 20 * MIB * plan.parts_per_task / 2
