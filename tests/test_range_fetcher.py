"""Ranges of one object: exactly those, of one version, with nothing else asked of the store."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from millpond import CorruptMedia, DataError, FetchTimeout, ObjectMissing, RangeFetcher
from millpond._sources.object_store import ObjectStore
from millpond._sources.statistics import FetchStatistics
from millpond._values import ByteRange
from store_server import StoreServer, serving_store

DATA = bytes(range(250)) * 40
PATIENCE_SECONDS = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    (tmp_path / "a").write_bytes(DATA)
    with serving_store(tmp_path) as running:
        yield running


@pytest.fixture
def fetcher(server: StoreServer) -> Iterator[RangeFetcher]:
    with RangeFetcher(f"{server.url}/a") as made:
        yield made


def asked(server: StoreServer) -> list[tuple[str, str | None]]:
    return [(method, headers.get("Range")) for method, _, headers in server.requests]


def overwrite(folder: Path, data: bytes) -> None:
    """Servers tell times by whole seconds: this one is another."""
    (folder / "a").write_bytes(data)
    os.utime(folder / "a", ns=(10**18, 10**18))


def test_both_ends_are_included_and_one_get_is_sent(fetcher: RangeFetcher, server: StoreServer) -> None:
    assert fetcher.fetch(10, 19) == DATA[10:20]
    assert asked(server) == [("GET", "bytes=10-19")]
    assert fetcher.fetch(20, 29) == DATA[20:30]
    assert asked(server)[1:] == [("GET", "bytes=20-29")]
    assert fetcher.size_bytes == fetcher.identity.size_bytes == len(DATA)
    assert len(server.requests) == 2  # the first GET told it


@pytest.mark.parametrize("lo", [0, 7, len(DATA) - 1])
def test_a_range_may_be_a_byte(lo: int, fetcher: RangeFetcher) -> None:
    for _ in range(2):
        assert fetcher.fetch(lo, lo) == DATA[lo : lo + 1]


def test_what_ends_before_it_begins_is_empty_and_not_asked_for(fetcher: RangeFetcher, server: StoreServer) -> None:
    assert fetcher.fetch(5, 4) == fetcher.fetch(0, -1) == b""
    assert not server.requests


@pytest.mark.parametrize("hi", [-2, 0, 100])
def test_a_negative_start_is_a_value_error(hi: int, fetcher: RangeFetcher, server: StoreServer) -> None:
    with pytest.raises(ValueError, match="lo must be at least 0, not -1"):
        fetcher.fetch(-1, hi)
    assert not server.requests


@pytest.mark.parametrize(("lo", "hi"), [(9_990, 10_000), (10_000, 10_000), (50_000, 60_000)])
def test_beyond_the_end_is_an_error_that_says_where_that_is(lo: int, hi: int, fetcher: RangeFetcher) -> None:
    for _ in range(2):  # before the version is known, and then
        with pytest.raises(DataError, match="it has 10,000 bytes") as caught:
            fetcher.fetch(lo, hi)
        assert not isinstance(caught.value, CorruptMedia)
        assert caught.value.size_bytes == len(DATA)
        assert fetcher.size_bytes == len(DATA)


def test_ranges_come_in_the_order_given(fetcher: RangeFetcher, server: StoreServer) -> None:
    ranges: list[Any] = [(5000, 5010), ByteRange(0, 10), (3, 3), (5, 20)]
    assert fetcher.read_ranges(ranges) == [DATA[5000:5010], DATA[:10], b"", DATA[5:20]]
    assert fetcher.read_ranges([]) == []
    assert asked(server) == [("HEAD", None), ("GET", "bytes=0-5009")]  # near ones are fetched with what is between


@pytest.mark.parametrize("wanted", [(5, 4), (-1, 4), ByteRange(-3, -2)])
def test_what_is_no_range_is_a_value_error(wanted: Any, fetcher: RangeFetcher) -> None:
    with pytest.raises(ValueError, match="no range"):
        fetcher.read_ranges([(0, 10), wanted])


@pytest.mark.parametrize("etags", ["strong", "weak", "off"])
@pytest.mark.parametrize("data", [DATA[::-1], DATA[:20], DATA * 2], ids=["other", "shorter", "longer"])
def test_an_object_that_changed_is_an_error_whatever_is_asked(
    data: bytes, etags: str, fetcher: RangeFetcher, server: StoreServer, tmp_path: Path
) -> None:
    server.set(etags=etags)
    before = fetcher.identity
    overwrite(tmp_path, data)
    calls: list[Callable[[], object]] = [
        lambda: fetcher.fetch(0, 9),
        lambda: fetcher.fetch(15, 30),
        lambda: fetcher.fetch(5000, 5009),  # of a shorter one there is no such range
        lambda: fetcher.read_ranges([(0, 10), (9000, 9010)]),
    ]
    for call in calls:
        with pytest.raises(CorruptMedia, match="changed while it was in use") as caught:
            call()
        assert caught.value.expected == fetcher.identity == before
        assert caught.value.found.size_bytes == len(data)


def test_of_first_calls_at_once_with_a_change_between_one_is_told(
    fetcher: RangeFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, came, goes_on = ObjectStore.read_and_identify, threading.Event(), threading.Event()

    def read_and_wait(store: ObjectStore, key: str, wanted: ByteRange) -> Any:
        answer = read(store, key, wanted)
        if wanted.start == 0:
            came.set()
            assert goes_on.wait(PATIENCE_SECONDS)
        return answer

    monkeypatch.setattr(ObjectStore, "read_and_identify", read_and_wait)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(fetcher.fetch, 0, 4)
        assert came.wait(PATIENCE_SECONDS)
        overwrite(tmp_path, DATA[::-1])
        assert fetcher.fetch(5, 9) == DATA[::-1][5:10]
        goes_on.set()
        with pytest.raises(CorruptMedia, match="changed while it was in use") as caught:
            first.result(PATIENCE_SECONDS)
    assert caught.value.expected == fetcher.identity
    assert fetcher.fetch(0, 4) == DATA[::-1][:5]


def test_threads_may_share_one(fetcher: RangeFetcher) -> None:
    starts = range(0, 9000, 90)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda lo: fetcher.fetch(lo, lo + 99), starts)) == [DATA[k : k + 100] for k in starts]


def test_a_relative_path_is_the_same_file_after_a_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    with RangeFetcher("a") as fetcher:
        monkeypatch.chdir("/")
        assert fetcher.fetch(10, 19) == DATA[10:20]
        with pickle.loads(pickle.dumps(fetcher)) as copy:
            assert copy.fetch(10, 19) == DATA[10:20]


@pytest.mark.parametrize("kind", ["path", "path object", "file URL", "memory URL"])
def test_what_is_no_server_is_read_the_same_way(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a #1"
    path.write_bytes(DATA)
    files = fsspec.filesystem("memory")
    files.pipe_file(f"{tmp_path}/a", DATA)
    in_memory = f"memory:/{tmp_path}/a"
    urls: dict[str, Any] = {
        "path": str(path),
        "path object": path,
        "file URL": path.as_uri(),
        "memory URL": in_memory,
    }
    with RangeFetcher(urls[kind]) as fetcher:
        assert fetcher.fetch(10, 19) == DATA[10:20]
        assert fetcher.read_ranges([(9990, 10_000), (0, 10)]) == [DATA[9990:], DATA[:10]]
        assert fetcher.size_bytes == len(DATA)
        with pytest.raises(DataError, match="it has 10,000 bytes"):
            fetcher.fetch(0, 10_000)
    files.rm_file(f"{tmp_path}/a")


def test_a_local_file_that_changed_is_an_error(tmp_path: Path) -> None:
    overwrite(tmp_path, DATA)
    with RangeFetcher(tmp_path / "a") as fetcher:
        fetcher.fetch(0, 9)
        (tmp_path / "a").write_bytes(DATA[::-1])
        with pytest.raises(CorruptMedia):
            fetcher.fetch(10, 19)


def test_what_is_not_there_is_named(server: StoreServer) -> None:
    with RangeFetcher(f"{server.url}/b?key=hunter2") as fetcher:
        calls: list[Callable[[], object]] = [
            lambda: fetcher.fetch(0, 9),
            lambda: fetcher.read_ranges([(0, 9)]),
            lambda: fetcher.identity,
        ]
        for call in calls:
            with pytest.raises(ObjectMissing) as caught:
                call()
            assert caught.value.path == f"{server.url}/b?..."


def test_a_call_may_take_so_long(server: StoreServer) -> None:
    with server.held(), RangeFetcher(f"{server.url}/a", timeout=0.2) as fetcher:
        for call in (lambda: fetcher.fetch(0, 9), lambda: fetcher.read_ranges([(0, 9)])):
            with pytest.raises(FetchTimeout, match=r"\(limit 0.2 s\)"):
                call()


def test_requests_of_a_call_are_so_many_at_a_time(fetcher: RangeFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def read_ranges(store: ObjectStore, key: str, ranges: Any, **options: Any) -> list[bytes]:
        seen.append(options["max_concurrency"])
        return []

    monkeypatch.setattr(ObjectStore, "read_ranges", read_ranges)
    fetcher.read_ranges([(0, 10)])
    with RangeFetcher(f"{fetcher._store.url}", max_concurrency=3) as other:
        other.read_ranges([(0, 10)])
    assert seen == [16, 3]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_concurrency": 0}, "max_concurrency must be at least 1, not 0"),
        ({"timeout": 0}, "more than 0 seconds"),
        ({"storage_options": {"headrs": {"X-Key": "hunter2"}}}, "not known"),
    ],
)
def test_misuse_is_a_value_error_that_repeats_no_secret(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        RangeFetcher("http://127.0.0.1/a", **options)
    assert "hunter2" not in str(caught.value)


def test_a_pickled_copy_has_access_and_counts_of_its_own(server: StoreServer) -> None:
    server.set(bearer="hunter2")
    with RangeFetcher(f"{server.url}/a", token="hunter2", timeout=30) as fetcher:
        fetcher.fetch(0, 9)
        with pickle.loads(pickle.dumps(fetcher)) as copy:
            assert copy.fetch(10, 19) == DATA[10:20]
            assert copy.identity == fetcher.identity
            assert (copy.statistics.requests, fetcher.statistics.requests) == (1, 1)
            assert repr(copy) == repr(fetcher)


def test_its_repr_tells_no_secret(server: StoreServer) -> None:
    url = server.url.replace("://", "://ann:hunter2@") + "/a?sig=sesame"
    fetcher = RangeFetcher(url, storage_options={"headers": {"X-Key": "swordfish"}}, token="open")
    assert repr(fetcher) == f"RangeFetcher('{server.url}/a?...')"


def test_it_counts_what_it_fetched(fetcher: RangeFetcher, server: StoreServer) -> None:
    assert fetcher.statistics == FetchStatistics()
    fetcher.fetch(0, 99)
    server.script("/a", 503)
    fetcher.fetch(0, 49)
    assert fetcher.statistics == FetchStatistics(requests=3, retries=1, bytes_fetched=150)


def test_one_that_was_closed_opens_again_and_knows_the_version(
    fetcher: RangeFetcher, server: StoreServer, tmp_path: Path
) -> None:
    fetcher.fetch(0, 9)
    fetcher.close()
    fetcher.close()
    assert fetcher.fetch(10, 19) == DATA[10:20]
    fetcher.close()
    overwrite(tmp_path, DATA[::-1])
    with pytest.raises(CorruptMedia):
        fetcher.fetch(10, 19)
