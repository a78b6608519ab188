"""A slow request gets company, a slow link does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond._sources.hedging import Pace
from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._values import ByteRange
from millpond.errors import FetchError
from store_server import StoreServer, serving_store

DATA = bytes(range(256)) * 100
WANTED = ByteRange(10, 20_000)
SOON = FetchLimits(hedge_seconds=0.05)


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
    with ObjectStore(server.url, limits=SOON) as store:
        assert store.read("a", WANTED) == DATA[10:20_000]
        assert (store.statistics.hedges, store.statistics.requests, store.statistics.retries) == (1, 2, 0)
        assert store.statistics.bytes_fetched == len(WANTED)


def test_a_fetch_has_one_hedge_at_most(server: StoreServer) -> None:
    server.script("/a", "hang", "hang")
    limits = FetchLimits(timeout_seconds=2.0, hedge_seconds=0.02)
    with ObjectStore(server.url, limits=limits) as store:
        assert store.read("a", WANTED) == DATA[10:20_000]  # by a second try, when the first has stalled
        assert store.statistics.hedges == 1
        assert store.statistics.retries == 1


def test_a_hedge_that_fails_leaves_the_first_request_its_chance(server: StoreServer) -> None:
    server.set(hang_seconds=0.2)
    server.script("/a", "hang", 503)
    with ObjectStore(server.url, limits=SOON) as store:
        assert store.read("a", WANTED) == DATA[10:20_000]
        assert (store.statistics.hedges, store.statistics.retries) == (1, 0)


def test_where_both_fail_the_fetch_fails(server: StoreServer) -> None:
    server.set(hang_seconds=0.2)
    server.script("/a", "hang", 403)
    server.set(bearer="sesame")
    with ObjectStore(server.url, limits=SOON) as store, pytest.raises(FetchError, match="HTTP status 401"):
        store.read("a", WANTED)


def test_a_link_that_is_too_small_is_not_asked_twice_as_much(server: StoreServer) -> None:
    server.set(bytes_per_second=200_000.0)
    with ObjectStore(server.url, limits=FetchLimits(hedge_seconds=0.01)) as store:
        for future in [store.submit("a", WANTED) for _ in range(100)]:
            future.result(30)
        assert store.statistics.hedges <= 4
