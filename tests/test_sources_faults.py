"""What goes wrong on the way is tried again within one deadline; what stays wrong is an error that says what it is."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millpond._sources import retrying
from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._values import ByteRange
from millpond.errors import CorruptMedia, DataError, FetchError, FetchTimeout, MillpondError, ObjectMissing
from store_server import StoreServer, refusing, serving_store

DATA = bytes(range(256)) * 400
WANTED = ByteRange(1000, 90_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    (tmp_path / "a").write_bytes(DATA)
    with serving_store(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT_SECONDS", 1e-4)


@pytest.mark.parametrize("fault", [500, 502, 503, 504, 429, 408, "reset", "reset amid", "truncated", "short"])
def test_what_passes_is_tried_again(fault: str | int, server: StoreServer) -> None:
    with ObjectStore(server.url) as store:
        identity = store.identity("a")
        server.script("/a", fault, fault)
        assert store.read("a", WANTED, identity=identity) == DATA[WANTED.start : WANTED.stop]
        assert store.statistics.requests == 4
        assert store.statistics.retries == 2
        assert store.statistics.bytes_fetched == len(WANTED)


@pytest.mark.parametrize("call", [
    lambda store: store.begin("a", 100),
    lambda store: store.read_ranges("a", [ByteRange(0, 10), ByteRange(99_000, 99_010)]),
    lambda store: store.submit("a", WANTED).result(10),
    lambda store: store.read_whole("a", lambda part: None, max_bytes=None, stall_seconds=10),
])  # fmt: skip
def test_every_way_to_read_tries_again(call: Callable[[ObjectStore], object], server: StoreServer) -> None:
    with ObjectStore(server.url) as store:
        server.script("/a", 503, "reset")
        call(store)
        assert store.statistics.retries == 2


def test_a_server_that_is_gone_is_told_after_every_try(server: StoreServer) -> None:
    server.set(unavailable=1.0)
    with ObjectStore(f"{server.url}?sig=secret", limits=FetchLimits(max_tries=5)) as store:
        with pytest.raises(FetchError, match=r"/a\?\.\.\.' .*\(5 tries in \d+\.\d s\): HTTP status 503") as caught:
            store.read("a", WANTED)
        assert (caught.value.tries, caught.value.status) == (5, 503)
        assert store.statistics.requests == 5
    assert caught.value.__cause__ is None
    assert "secret" not in f"{caught.value!r} {caught.value.facts}"


def test_a_connection_that_is_refused_is_tried_again_and_told() -> None:
    with refusing() as url, ObjectStore(url, limits=FetchLimits(max_tries=3)) as store:
        with pytest.raises(FetchError) as caught:
            store.read("a", WANTED)
    assert caught.value.tries == 3
    assert "no connection" in str(caught.value)


def test_a_server_that_comes_back_is_reached_on_new_connections(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    with serving_store(tmp_path) as server, ObjectStore(server.url) as store:
        store.read("a", WANTED)
        server.script("/a", "reset", "reset", 503)
        assert store.read("a", WANTED) == DATA[WANTED.start : WANTED.stop]


@pytest.mark.parametrize(("status", "error"), [(404, ObjectMissing), (410, ObjectMissing), (401, FetchError),
                                               (403, FetchError), (400, FetchError), (501, FetchError)])  # fmt: skip
def test_what_stays_is_not_tried_again(status: int, error: type[MillpondError], server: StoreServer) -> None:
    server.script("/a", status)
    with ObjectStore(server.url) as store:
        with pytest.raises(error, match=f"HTTP status {status}") as caught:
            store.read("a", WANTED)
        assert caught.value.status == status
        assert store.statistics.requests == 1


@pytest.mark.parametrize("fault", ["hang", "hang amid"])
def test_a_try_that_stalls_leaves_time_for_another(
    fault: str, server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FetchLimits, "stall_seconds", 0.3)
    server.set(hang_seconds=1000.0)
    server.script("/a", fault)
    with ObjectStore(server.url) as store:
        assert store.read("a", WANTED) == DATA[WANTED.start : WANTED.stop]
        assert store.statistics.retries >= 1  # more where this machine itself stands still for so long


def test_the_deadline_ends_a_fetch_whatever_it_does(server: StoreServer) -> None:
    server.set(slow=1.0)
    with ObjectStore(server.url, limits=FetchLimits(timeout_seconds=0.4)) as store:
        calls: list[Callable[[], object]] = [
            lambda: store.read("a", WANTED),
            lambda: store.begin("a", 10),
            lambda: store.identity("a"),
            lambda: store.read_ranges("a", [ByteRange(0, 10), ByteRange(99_000, 99_010)]),
        ]
        for call in calls:
            with pytest.raises(FetchTimeout, match=r"/a'.* was given up after .* \(limit 0.4 s\)") as caught:
                call()
            assert isinstance(caught.value, DataError)
            assert caught.value.limit_seconds == 0.4
            assert caught.value.tries >= 1
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("etags", ["strong", "weak", "off"])
def test_a_changed_object_is_told_by_tag_or_time(etags: str, server: StoreServer, tmp_path: Path) -> None:
    import os

    server.set(etags=etags)
    with ObjectStore(server.url) as store:
        before = store.identity("a")
        assert store.read("a", WANTED, identity=before) == DATA[WANTED.start : WANTED.stop]
        (tmp_path / "a").write_bytes(DATA[::-1])
        os.utime(tmp_path / "a", ns=(10**18, 10**18))
        with pytest.raises(CorruptMedia, match="open the dataset again") as caught:
            store.read("a", WANTED, identity=before)
        assert caught.value.expected == before
        assert caught.value.found == store.identity("a")
    sent = [headers.get("If-Match") for method, _, headers in server.requests if method == "GET"]
    assert sent[0] == (before.etag if etags == "strong" else None)


def test_a_store_without_tags_and_times_is_compared_by_size(server: StoreServer, tmp_path: Path) -> None:
    server.set(etags="off", last_modified=False)
    with ObjectStore(server.url) as store:
        before = store.identity("a")
        assert (before.etag, before.mtime_ns) == ("", 0)
        (tmp_path / "a").write_bytes(DATA[:-1])
        with pytest.raises(CorruptMedia, match="102,400 bytes, found 102,399 bytes"):
            store.read("a", WANTED, identity=before)


def test_a_key_may_be_called_like_a_failure(tmp_path: Path) -> None:
    """What failed is read from texts that hold the URL."""
    names = ("certificate", "BadScheme", "TooManyRedirects", "RangeNotSupported")
    with serving_store(tmp_path) as server, ObjectStore(server.url) as store:
        for name in names:
            (tmp_path / name).write_bytes(DATA)
            server.script(f"/{name}", "reset", "truncated")
            assert store.read(name, WANTED) == DATA[WANTED.start : WANTED.stop]
        assert store.statistics.retries == 2 * len(names)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_head_that_is_refused_is_a_get_of_one_byte(status: int, server: StoreServer) -> None:
    with ObjectStore(server.url) as store:
        expected = store.identity("a")
        server.set(head_status=status)
        assert store.identity("a") == expected
        assert server.requests[-1][2]["Range"] == "bytes=0-0"


def test_a_server_without_ranges_says_so_and_can_be_read_whole(server: StoreServer) -> None:
    server.set(ranges=False)
    with ObjectStore(server.url) as store:
        with pytest.raises(FetchError, match="sends the whole object"):
            store.read("a", WANTED)
        with pytest.raises(FetchError, match="sends the whole object"):
            store.begin("a", 10)
        got = bytearray()
        store.read_whole("a", lambda part: got.extend(bytes(part)), max_bytes=None, stall_seconds=10)
        assert got == DATA


def test_progress_is_called_while_a_fetch_takes_its_time(server: StoreServer) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    server.script("/a", "hang")
    with ObjectStore(server.url) as store, pytest.raises(KeyboardInterrupt):
        store.read("a", WANTED, progress=interrupt)


def test_many_faults_lose_and_alter_nothing(server: StoreServer) -> None:
    server.set(unavailable=0.06, reset=0.04, truncated=0.04, seed=7)
    wanted = [ByteRange(i * 97, i * 97 + 5000) for i in range(400)]
    with ObjectStore(server.url) as store:
        identity = store.identity("a")
        futures = [store.submit("a", one, identity=identity) for one in wanted]
        for one, future in zip(wanted, futures, strict=True):
            assert memoryview(future.result(30)) == DATA[one.start : one.stop]
        assert store.statistics.retries >= 20
        assert store.statistics.bytes_fetched == 400 * 5000
