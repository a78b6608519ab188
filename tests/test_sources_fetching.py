"""One fetch, over requests that the test answers: its waits, its deadline, what it says. No second is waited for."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from hand_backend import DATA, IDENTITY, HandBackend, everybody_is_waiting, failing, fetcher_of, run
from millpond._sources import retrying
from millpond._sources.backends import Answer
from millpond._sources.failures import Kind, TryFailed, failed_with_status
from millpond._sources.statistics import FetchCounters
from millpond._values import ByteRange, FileIdentity
from millpond.errors import CorruptMedia, DataError, FetchError, FetchTimeout

WANTED = ByteRange(10, 510)
GOOD = Answer(DATA[10:510], IDENTITY)
OTHER = FileIdentity(9_000, 0, '"b"')


def times_of_tries() -> list[float]:
    """When each try of a fetch begins, of which every one fails."""

    async def fetch() -> list[float]:
        backend, times, loop = HandBackend(), list[float](), asyncio.get_running_loop()

        def fail(get: asyncio.Future[Answer]) -> None:
            times.append(loop.time())
            get.set_exception(failed_with_status(503))

        backend.on_get = fail
        with pytest.raises(FetchError, match="8 tries"):
            await fetcher_of(backend).range("a", WANTED, None)
        return times

    return run(fetch())


def test_waits_between_tries_grow_up_to_a_bound_and_are_drawn() -> None:
    drawn = set()
    for _ in range(20):
        times = times_of_tries()
        waits = [later - earlier for earlier, later in itertools.pairwise(times)]
        for wait, middle in zip(waits, (0.1, 0.3, 0.9, 2.7, 4.0, 4.0, 4.0), strict=True):
            assert 0.5 * middle - 1e-6 <= wait <= 1.5 * middle + 1e-6
        drawn.add(tuple(waits))
    assert len(drawn) == 20


def test_whoever_waits_is_told_once_after_four_tries(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "millpond"):
        times_of_tries()
    (record,) = caplog.records
    what, why = "'http://host/folder/a' (bytes 10 to 510)", "HTTP status 503 Service Unavailable"
    assert record.getMessage() == f"{what}: {why}, 4 times; this, and what else fails, is tried on for up to 60 s"


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_what_fails_now_and_then_is_not_told(failures: int, caplog: pytest.LogCaptureFixture) -> None:
    async def fetch() -> None:
        backend, counters = HandBackend(), FetchCounters()

        def answer(get: asyncio.Future[Answer]) -> None:
            if len(backend.gets) <= failures:
                get.set_exception(TryFailed(Kind.AGAIN, "the connection was reset"))
            else:
                get.set_result(GOOD)

        backend.on_get = answer
        assert (await fetcher_of(backend, counters).range("a", WANTED, IDENTITY)).data == DATA[10:510]
        assert counters.snapshot().retries == failures

    with caplog.at_level(logging.DEBUG, "millpond"):
        run(fetch())
    assert not caplog.records


def test_a_deadline_names_what_went_wrong_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT_SECONDS", 1000.0)
    monkeypatch.setattr(retrying, "_LONGEST_WAIT_SECONDS", 1000.0)

    async def fetch() -> None:
        backend = HandBackend()
        backend.on_get = failing(lambda: failed_with_status(503))
        words = r"given up after 60.0 s \(limit 60 s\) and 1 try: the last failed: HTTP status 503"
        with pytest.raises(FetchTimeout, match=words) as caught:
            await fetcher_of(backend).range("a", WANTED, None)
        assert (caught.value.tries, caught.value.limit_seconds, caught.value.elapsed_seconds) == (1, 60.0, 60.0)

    run(fetch())


def test_a_deadline_may_have_begun_before_the_fetch() -> None:
    async def fetch() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(100)
        with pytest.raises(FetchTimeout, match=r"after 60.0 s \(limit 60 s\) and 1 try: nothing came"):
            await fetcher_of(HandBackend()).range("a", WANTED, None, started=loop.time() - 50)
        assert loop.time() == pytest.approx(110)

    run(fetch())


def test_the_version_that_is_there_is_asked_for_within_the_deadline() -> None:
    """Of a request that failed near the deadline, with a server that no longer answers."""

    async def fetch(fails_after: float) -> float:
        backend, loop = HandBackend(), asyncio.get_running_loop()
        failure = TryFailed(Kind.CHANGED, "another version is there", status=412)
        backend.on_get = lambda get: loop.call_later(fails_after, get.set_exception, failure)
        with pytest.raises(CorruptMedia, match="found another version"):
            await fetcher_of(backend, timeout_seconds=8.0).range("a", WANTED, IDENTITY)
        assert len(backend.heads) == 1
        return loop.time()

    assert run(fetch(1.0)) == pytest.approx(3.0)  # after a quarter of the time
    assert run(fetch(7.5)) == pytest.approx(8.0)  # or what is left


@pytest.mark.parametrize("told", ["in the answer", "by a HEAD"])
def test_a_range_beyond_the_end_of_another_version_is_a_change(told: str) -> None:
    async def fetch(found: FileIdentity, identity: FileIdentity | None) -> None:
        backend = HandBackend()
        in_answer = found if told == "in the answer" else None
        backend.on_get = failing(lambda: TryFailed(Kind.BEYOND, "HTTP status 416", status=416, found=in_answer))
        backend.on_head = lambda head: head.set_result(found)
        await fetcher_of(backend).range("a", WANTED, identity)

    with pytest.raises(CorruptMedia, match="open the dataset again") as caught:
        run(fetch(OTHER, IDENTITY))
    assert (caught.value.expected, caught.value.found) == (IDENTITY, OTHER)
    for identity in (None, IDENTITY):
        with pytest.raises(DataError, match="it has 10,000 bytes") as beyond:
            run(fetch(IDENTITY, identity))
        assert not isinstance(beyond.value, CorruptMedia)


def test_a_request_gets_a_second_one_when_it_takes_longer_than_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millpond._sources.hedging.Pace.try_hedge", lambda pace: True)

    async def fetch(answered_after: float) -> int:
        backend, loop = HandBackend(), asyncio.get_running_loop()
        backend.on_get = lambda get: loop.call_later(answered_after, get.set_result, GOOD)
        fetch = asyncio.ensure_future(fetcher_of(backend, hedge_seconds=2.0).range("a", WANTED, None))
        await fetch
        await everybody_is_waiting()
        return len(backend.gets)

    assert (run(fetch(1.9)), run(fetch(2.1))) == (1, 2)
