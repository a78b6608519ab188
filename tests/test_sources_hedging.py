"""A slow request gets company, a slow link does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hand_backend import IDENTITY, HandBackend, everybody_is_waiting, fetcher_of, run
from millpond._sources.backends import Answer
from millpond._sources.failures import failed_with_status
from millpond._sources.hedging import Pace
from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._sources.statistics import FetchCounters, FetchStatistics
from millpond._values import ByteRange
from millpond.errors import FetchError
from store_server import StoreServer, serving_store

DATA = bytes(range(256)) * 100
WANTED = ByteRange(10, 9_000)
GOOD = Answer(DATA[WANTED.start : WANTED.stop], IDENTITY)

pytestmark = pytest.mark.hedged


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    (tmp_path / "a").write_bytes(DATA)
    with serving_store(tmp_path) as running:
        yield running


def test_before_anything_is_known_the_floor_holds() -> None:
    pace = Pace(2.0)
    assert pace.hedge_after(1000) == 2.0
    for _ in range(7):
        pace.took(1000, 10.0)
    assert pace.hedge_after(1000) == 2.0


def test_slow_is_four_times_the_median_of_like_size() -> None:
    pace = Pace(0.1)
    for i in range(64):
        pace.took(1000, 1.0 if i % 2 else 3.0)
        pace.took(1_000_000, 0.001)
    assert pace.hedge_after(1000) == pace.hedge_after(900) == 12.0
    assert pace.hedge_after(1_000_000) == 0.1


def test_hedges_stay_a_small_share() -> None:
    pace = Pace(1.0)
    assert [pace.try_hedge() for _ in range(6)] == [True] * 4 + [False] * 2
    for _ in range(1000):
        pace.took(10, 1.0)
    assert sum(pace.try_hedge() for _ in range(100)) == 16


def test_of_two_requests_the_first_answer_wins_and_the_other_is_cancelled(server: StoreServer) -> None:
    server.script("/a", "hang")
    with ObjectStore(server.url, limits=FetchLimits(hedge_seconds=0.05)) as store:
        assert store.read("a", WANTED) == GOOD.data
        assert (store.statistics.hedges, store.statistics.requests, store.statistics.retries) == (1, 2, 0)
        assert store.statistics.bytes_fetched == len(WANTED)


def run_hedged(
    then: Callable[[HandBackend], object], check: Callable[[HandBackend], object] = lambda backend: None
) -> tuple[Answer, FetchStatistics]:
    """A fetch whose first request got a second one beside it, and what becomes of both then, and later."""

    async def fetch() -> tuple[Answer, FetchStatistics]:
        backend, counters = HandBackend(), FetchCounters()
        limits = {"hedge_seconds": 0.05, "max_tries": 1}
        answer = asyncio.ensure_future(fetcher_of(backend, counters, **limits).range("a", WANTED, None))
        await backend.until(2)
        then(backend)
        await everybody_is_waiting()
        check(backend)
        return await answer, counters.snapshot()

    return run(fetch())


def answer(backend: HandBackend, number: int) -> None:
    backend.gets[number].set_result(GOOD)


def refuse(backend: HandBackend, number: int) -> None:
    backend.gets[number].set_exception(failed_with_status(403))


def test_a_try_has_one_hedge_at_most() -> None:
    async def fetch() -> None:
        backend = HandBackend()
        going = asyncio.ensure_future(fetcher_of(backend, hedge_seconds=0.05).range("a", WANTED, None))
        await asyncio.sleep(30)
        assert len(backend.gets) == 2
        answer(backend, 1)
        assert (await going).data == GOOD.data

    run(fetch())


@pytest.mark.parametrize("first", [0, 1])
def test_whichever_answer_comes_later_is_not_waited_for(first: int) -> None:
    def is_cancelled(backend: HandBackend) -> None:
        assert backend.gets[1 - first].cancelled()

    got, counts = run_hedged(lambda backend: answer(backend, first), is_cancelled)
    assert got.data == GOOD.data
    assert (counts.requests, counts.hedges, counts.bytes_fetched) == (2, 1, len(WANTED))


@pytest.mark.parametrize("failing", [0, 1])
def test_one_that_fails_leaves_the_other_its_chance(failing: int) -> None:
    def answer_later(backend: HandBackend) -> None:
        answer(backend, 1 - failing)

    got, counts = run_hedged(lambda backend: refuse(backend, failing), answer_later)
    assert got.data == GOOD.data
    assert (counts.hedges, counts.retries) == (1, 0)


@pytest.mark.parametrize("failing", [0, 1])
def test_of_two_that_end_at_once_the_answer_counts_not_the_error(failing: int) -> None:
    def end(backend: HandBackend) -> None:
        refuse(backend, failing)
        answer(backend, 1 - failing)

    for _ in range(20):  # a set has no order
        assert run_hedged(end)[0].data == GOOD.data


def test_where_both_fail_the_fetch_fails() -> None:
    def end(backend: HandBackend) -> None:
        refuse(backend, 0)
        refuse(backend, 1)

    with pytest.raises(FetchError, match="HTTP status 403"):
        run_hedged(end)


def test_a_link_that_is_too_small_is_not_asked_twice_as_much(server: StoreServer) -> None:
    server.set(bytes_per_second=200_000.0)
    with ObjectStore(server.url, limits=FetchLimits(hedge_seconds=0.01)) as store:
        for future in [store.submit("a", WANTED) for _ in range(100)]:
            future.result(30)
        assert store.statistics.hedges <= 4
