"""Ranges of files for episodes: several requests at once, one deadline a read, and no secret in what is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from millpond._datasets import episode_fetcher
from millpond._datasets.episode_fetcher import Fetcher
from millpond._sources.object_store import ObjectStore
from millpond._values import ByteRange, FileIdentity
from millpond.errors import ClosedError, FetchTimeout
from store_server import StoreServer, serving_store

DATA = bytes(range(250)) * 40
PATIENCE_SECONDS = 60.0
RANGES = [ByteRange(start, start + 10) for start in range(0, 10_000, 500)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    (tmp_path / "a").write_bytes(DATA)
    with serving_store(tmp_path) as running:
        yield running


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    made = Fetcher(None, None, 60.0)
    yield made
    made.close()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """When the time of each request began."""
    submit, seen = ObjectStore.submit, list[float | None]()

    def noted(store: ObjectStore, key: str, wanted: ByteRange, **options: Any) -> Future[Any]:
        seen.append(options.get("started"))
        return submit(store, key, wanted, **options)

    monkeypatch.setattr(ObjectStore, "submit", noted)
    return seen


def test_a_read_has_several_requests_under_way(fetcher: Fetcher, server: StoreServer) -> None:
    identity = fetcher.identity(server.url, "a", len(DATA))
    server.forget()
    with ThreadPoolExecutor(1) as other, server.held():
        reading = other.submit(fetcher.read, server.url, "a", RANGES, identity)
        server.wait_until(lambda counts: counts.open_connections == 8)
    parts = [(start, bytes(part)) for start, part in reading.result(PATIENCE_SECONDS)]
    assert parts == [(one.start, DATA[one.start : one.stop]) for one in RANGES]


def test_all_requests_of_a_read_have_one_deadline(
    fetcher: Fetcher, server: StoreServer, started: list[float | None]
) -> None:
    identity = fetcher.identity(server.url, "a", len(DATA))
    before = time.monotonic()
    fetcher.read(server.url, "a", RANGES, identity)
    assert len(started) == len(RANGES)
    assert len(set(started)) == 1
    assert started[0] is not None
    assert before <= started[0] <= time.monotonic()


def test_so_have_all_steps_of_a_file_that_is_read_whole(
    fetcher: Fetcher, server: StoreServer, started: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode_fetcher, "_LOCAL_STEP_BYTES", 1000)
    monkeypatch.setattr(episode_fetcher, "_STEP_BYTES", 3000)
    taken = bytearray()
    fetcher.read_whole(server.url, "a", taken.extend, fetcher.identity(server.url, "a", len(DATA)))
    assert taken == DATA
    assert len(started) == 10
    assert len(set(started)) == 1
    assert started[0] is not None


def test_a_read_whose_time_is_over_asks_for_nothing_more(fetcher: Fetcher, server: StoreServer) -> None:
    identity = fetcher.identity(server.url, "a", len(DATA))
    server.forget()
    with server.held(), pytest.raises(FetchTimeout, match="limit 60 s"):
        fetcher.read(server.url, "a", RANGES, identity, started=time.monotonic() - 61)


@pytest.mark.parametrize("method", ["submit", "identity"])
def test_a_read_that_makes_its_request_after_close_waits_for_nothing(
    method: str, server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store, which would open again, was found before, in another thread."""
    fetcher, usual = Fetcher(None, None, 1000.0), getattr(ObjectStore, method)
    identity = FileIdentity(len(DATA), 0)
    calls: dict[str, Callable[[], object]] = {
        "submit": lambda: fetcher.read(server.url, "a", RANGES, identity),
        "identity": lambda: fetcher.identity(server.url, "a", len(DATA)),
    }

    def late(*arguments: Any, **options: Any) -> Any:
        fetcher.close()
        return usual(*arguments, **options)

    monkeypatch.setattr(ObjectStore, method, late)
    with server.held(), ThreadPoolExecutor(1) as other:
        reading = other.submit(calls[method])
        try:
            with pytest.raises(ClosedError, match="is closed"):
                reading.result(PATIENCE_SECONDS)
        finally:
            fetcher.close()
    assert not server.counts.requests


@pytest.mark.parametrize("is_opened", [False, True])
def test_one_that_is_closed_tells_no_secret(is_opened: bool, server: StoreServer) -> None:
    fetcher = Fetcher(None, None, 60.0)
    url = f"{server.url.replace('://', '://ann:hunter2@')}/a?X-Amz-Signature=sesame"
    identity = FileIdentity(len(DATA), 0)
    if is_opened:
        fetcher.read(url, "", RANGES, identity)
    fetcher.close()
    for call in (
        lambda: fetcher.read(url, "", RANGES, identity),
        lambda: fetcher.identity(url, "", len(DATA)),
        lambda: fetcher.name_of(url, ""),
    ):
        with pytest.raises(ClosedError) as caught:
            call()
        told = f"{caught.value!r} {caught.value.facts}"
        assert server.url in told
        assert "hunter2" not in told
        assert "sesame" not in told
