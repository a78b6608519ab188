"""What an open store does with its requests: how many at once, under which deadline, and what of them is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from millpond._sources import cached_ranges, shared_blocks
from millpond._sources.backends import Answer
from millpond._sources.cached_ranges import CachedRanges
from millpond._sources.fetching import Fetcher
from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._sources.range_cache import RangeCache
from millpond._values import ByteRange, FileIdentity

DATA = bytes(range(250)) * 40
IDENTITY = FileIdentity(len(DATA), 0, '"a"')
PATIENCE_SECONDS = 60.0


class Spy:
    """In place of `Fetcher.range`: answers when the loop has nothing else to begin."""

    def __init__(self) -> None:
        self.started: list[float | None] = []
        self.wanted: list[ByteRange] = []
        self.most_at_once = 0
        self._now = 0

    async def range(
        self, key: str, wanted: ByteRange, identity: FileIdentity | None, started: float | None = None
    ) -> Answer:
        self.started.append(started)
        self.wanted.append(wanted)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        for _ in range(20):
            await asyncio.sleep(0)
        self._now -= 1
        return Answer(DATA[wanted.start : wanted.stop], IDENTITY)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    made = Spy()
    monkeypatch.setattr(Fetcher, "range", lambda fetcher, *arguments, **named: made.range(*arguments, **named))
    return made


SPREAD = [ByteRange(start, start + 10) for start in range(0, 10_000, 500)]


def read_spread(**options: Any) -> list[bytes]:
    with ObjectStore("http://host", limits=FetchLimits(max_gap_bytes=0)) as store:
        return store.read_ranges("a", SPREAD, identity=IDENTITY, **options)


@pytest.mark.parametrize(("options", "most"), [({}, 16), ({"max_concurrency": 1}, 1), ({"max_concurrency": 7}, 7)])
def test_so_many_requests_of_a_call_are_under_way_at_once(options: dict[str, int], most: int, spy: Spy) -> None:
    assert read_spread(**options) == [DATA[one.start : one.stop] for one in SPREAD]
    assert spy.most_at_once == most


def test_the_requests_of_a_call_have_one_deadline(spy: Spy) -> None:
    read_spread(max_concurrency=2)
    assert len(spy.started) == len(SPREAD)
    assert len(set(spy.started)) == 1
    assert spy.started[0] is not None


def test_a_range_may_have_the_deadline_of_another(spy: Spy) -> None:
    with ObjectStore("http://host") as store:
        for started in (7.0, None):
            store.submit("a", SPREAD[0], started=started).result(PATIENCE_SECONDS)
    assert spy.started == [7.0, None]


def test_large_ranges_are_split_and_near_ones_joined(spy: Spy) -> None:
    limits = FetchLimits(max_request_bytes=1000, max_gap_bytes=10)
    with ObjectStore("http://host", limits=limits) as store:
        assert store.read_ranges("a", [ByteRange(0, 4990), ByteRange(4995, 5000)]) == [DATA[:4990], DATA[4995:5000]]
    assert spy.wanted == [ByteRange(k, k + 1000) for k in range(0, 5000, 1000)]


# What is kept.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RangeCache:
    """All that waits is written at the end, however slow the machine is; blocks are small."""
    monkeypatch.setattr(shared_blocks, "BLOCK_BYTES", 100)
    monkeypatch.setattr(cached_ranges, "_FINISH_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(cached_ranges, "_LOOK_SECONDS", PATIENCE_SECONDS)
    return RangeCache(tmp_path / "ranges", 1_000_000)


def test_what_was_forgotten_is_fetched_again(cache: RangeCache, spy: Spy) -> None:
    for is_forgotten in (False, True):
        with ObjectStore("http://host", cache=cache) as store:
            for wanted in SPREAD[:2]:
                store.submit("a", wanted, identity=IDENTITY).result(PATIENCE_SECONDS)
            if is_forgotten:
                store.forget("a", SPREAD[0], identity=IDENTITY)
                store.forget("a", SPREAD[5], identity=IDENTITY)  # was never there
    blocks = [ByteRange(0, 100), ByteRange(500, 600)]
    assert spy.wanted == blocks
    with ObjectStore("http://host", cache=cache) as store:
        store.read_ranges("a", SPREAD[:2], identity=IDENTITY)
        assert spy.wanted[2:] == blocks[:1]
        store.forget("a", SPREAD[0], identity=IDENTITY)
    ObjectStore("http://host", cache=cache).forget("a", SPREAD[0], identity=IDENTITY)  # nobody opened it: nothing


def test_objects_that_a_query_names_are_kept_apart_and_what_is_signed_anew_is_found(
    cache: RangeCache, spy: Spy
) -> None:
    urls = ["?id=1", "?id=2", "", "?id=1&X-Amz-Signature=s3cret&X-Amz-Date=1", "?X-Amz-Date=2&X-Amz-Signature=x&id=1"]
    fetched = []
    for url in urls:
        with ObjectStore(f"http://host/get{url}", cache=cache) as store:
            before = len(spy.wanted)
            assert store.read("", SPREAD[0], identity=IDENTITY) == DATA[:10]
            assert store.read_ranges("", [SPREAD[0]], identity=IDENTITY) == [DATA[:10]]
            fetched.append(len(spy.wanted) - before)
        with ObjectStore(f"http://host/get{url}", cache=cache) as store:
            assert store.read("", SPREAD[0], identity=IDENTITY) == DATA[:10]
            assert store.statistics.bytes_from_cache == 10
    # by a second call in one opening it may be written by then, or not
    assert [bool(count) for count in fetched] == [True, True, True, False, False]
    held = b"".join(path.read_bytes() + str(path).encode() for path in cache.folder.rglob("*") if path.is_file())
    assert b"s3cret" not in held


class SlowCache(RangeCache):
    """Its disk waits for a gate."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 1_000_000)
        self.gate = threading.Event()
        self.was_let: list[bool] = []
        self.kept: list[ByteRange] = []

    def find(self, name: str, identity: FileIdentity, wanted: ByteRange) -> bytes:
        self.was_let.append(self.gate.wait(PATIENCE_SECONDS))
        return DATA[wanted.start : wanted.stop]

    def keep(self, name: str, identity: FileIdentity, parts: Sequence[tuple[ByteRange, Any]]) -> None:
        self.was_let.append(self.gate.wait(PATIENCE_SECONDS))
        self.kept += [wanted for wanted, _ in parts]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[SlowCache]:
    made = SlowCache(tmp_path / "ranges")
    yield made
    made.gate.set()


def keep(cached: CachedRanges, start: int, size: int) -> ByteRange:
    wanted = ByteRange(start, start + size)
    cached.keep("a", IDENTITY, [(wanted, DATA[start : start + size])])
    return wanted


def test_no_more_than_a_bound_waits_to_be_written(slow: SlowCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_ranges, "_MAX_WAITING_BYTES", 1000)
    monkeypatch.setattr(cached_ranges, "_FINISH_SECONDS", PATIENCE_SECONDS)
    cached = CachedRanges(slow)
    waiting = [keep(cached, 0, 400), keep(cached, 1000, 600)]
    keep(cached, 2000, 1)  # for this there is no room
    keep(cached, 3000, 0)  # nothing to be kept
    assert not slow.kept
    slow.gate.set()
    cached.end()
    assert slow.kept == waiting


def test_what_is_larger_than_the_bound_is_written_if_nothing_else_waits(
    slow: SlowCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_ranges, "_MAX_WAITING_BYTES", 1000)
    monkeypatch.setattr(cached_ranges, "_FINISH_SECONDS", PATIENCE_SECONDS)
    cached = CachedRanges(slow)
    large = keep(cached, 0, 5000)
    keep(cached, 6000, 1)
    slow.gate.set()
    cached.end()
    assert slow.kept == [large]


def test_a_disk_that_hangs_is_not_asked_for_long(slow: SlowCache, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_ranges, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(cached_ranges, "_FINISH_SECONDS", 0.02)
    wanted = [*SPREAD[:2], ByteRange(3, 3)]
    with ObjectStore("http://host", cache=slow, limits=FetchLimits(max_gap_bytes=0)) as store:
        assert store.read_ranges("a", wanted, identity=IDENTITY) == [DATA[:10], DATA[500:510], b""]
        assert store.submit("a", SPREAD[2], identity=IDENTITY).result(PATIENCE_SECONDS) == DATA[1000:1010]
        assert [len(one) for one in spy.wanted] == [10, 10, 10]  # from the network
        assert store.statistics.bytes_from_cache == 0
    slow.gate.set()  # not before


def test_what_was_written_makes_room_for_what_comes(slow: SlowCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_ranges, "_MAX_WAITING_BYTES", 1000)
    monkeypatch.setattr(cached_ranges, "_FINISH_SECONDS", PATIENCE_SECONDS)
    cached = CachedRanges(slow)
    slow.gate.set()
    wanted = []
    for start in range(0, 5000, 1000):
        wanted.append(keep(cached, start, 1000))
        cached._writer.submit(lambda: None).result(PATIENCE_SECONDS)  # behind it: it was written
    cached.end()
    assert slow.kept == wanted


def test_a_disk_that_hangs_does_not_keep_a_store_from_closing(slow: SlowCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_ranges, "_FINISH_SECONDS", 0.02)
    cached = CachedRanges(slow)
    for start in (0, 1000):
        keep(cached, start, 10)
    writers = list(cached._writer._threads)
    cached.end()
    slow.gate.set()  # not before
    for writer in writers:
        writer.join(PATIENCE_SECONDS)
    assert slow.was_let == [True]
    assert slow.kept == [ByteRange(0, 10)]
