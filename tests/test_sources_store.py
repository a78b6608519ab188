"""Every kind of store keeps one contract: a folder of files, our own HTTP server, rclone's, S3, and fsspec's memory."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest

from millpond._media.sidecars import file_identity
from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._values import ByteRange, FileIdentity
from millpond.errors import CorruptMedia, DataError, FetchError, MillpondError, ObjectMissing, UnsupportedFormat
from real_servers import BUCKET, put, rclone_http, s3_options, s3_server
from store_server import serving_store

DATA = bytes(range(256)) * 40
KEYS = ("meta/info.json", "videos/cam 1/ü+%41.mp4", "plain")


@dataclass(frozen=True)
class Shop:
    """A store that is being tested, and how to put something into it."""

    url: str
    put: Callable[[str, bytes], object]
    options: dict[str, Any] = field(default_factory=dict)

    def open(self, **more: Any) -> ObjectStore:
        return ObjectStore(self.url, storage_options=self.options, **more)


def _write(folder: Path, key: str, data: bytes) -> None:
    (folder / key).parent.mkdir(parents=True, exist_ok=True)
    (folder / key).write_bytes(data)


@pytest.fixture(scope="module", autouse=True)
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@contextmanager
def _in_memory() -> Iterator[Shop]:
    files, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    files.makedirs(root)
    yield Shop(f"memory:/{root}", lambda key, data: files.pipe_file(f"{root}/{key}", data))
    files.rm(root, recursive=True)


@pytest.fixture(params=["path", "file url", "http", "rclone", "s3", "memory"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    kind, folder = request.param, tmp_path / "store #1"
    folder.mkdir()
    with ExitStack() as stack:
        if kind == "s3":
            endpoint, prefix = request.getfixturevalue("s3"), uuid.uuid4().hex
            yield Shop(f"s3://{BUCKET}/{prefix}", lambda k, d: put(endpoint, f"{prefix}/{k}", d), s3_options(endpoint))
        elif kind == "memory":
            yield stack.enter_context(_in_memory())
        else:
            urls: dict[str, Callable[[], str]] = {"path": lambda: str(folder), "file url": folder.as_uri,
                    "http": lambda: stack.enter_context(serving_store(folder)).url,
                    "rclone": lambda: stack.enter_context(rclone_http(folder, "--dir-cache-time", "0s"))}  # fmt: skip
            yield Shop(urls[kind](), lambda key, data: _write(folder, key, data))


@pytest.mark.parametrize("key", KEYS)
def test_ranges_are_the_bytes_of_the_object(shop: Shop, key: str) -> None:
    shop.put(key, DATA)
    with shop.open() as store:
        identity = store.identity(key)
        assert identity.size_bytes == len(DATA)
        for wanted in (ByteRange(0, 1), ByteRange(100, 5000), ByteRange(10_000, len(DATA)), ByteRange(7, 7)):
            assert store.read(key, wanted, identity=identity) == DATA[wanted.start : wanted.stop]
            assert store.read(key, wanted) == DATA[wanted.start : wanted.stop]


def test_one_get_brings_the_first_bytes_and_the_version(shop: Shop) -> None:
    shop.put("a/b", DATA)
    with shop.open() as store:
        data, identity = store.begin("a/b", 300)
        assert data == DATA[:300]
        assert identity == store.identity("a/b")
        assert identity.etag == "" or identity.mtime_ns == 0
        assert store.begin("a/b", 10**6)[0] == DATA


def test_an_empty_object_has_no_bytes_and_a_version(shop: Shop) -> None:
    shop.put("empty", b"")
    with shop.open() as store:
        assert store.begin("empty", 100) == (b"", store.identity("empty"))
        assert store.identity("empty").size_bytes == 0
        parts: list[bytes] = []
        store.read_whole("empty", lambda part: parts.append(bytes(part)), max_bytes=None, stall_seconds=10)
        assert b"".join(parts) == b""


def test_a_buffer_of_submit_is_the_range_and_read_only(shop: Shop) -> None:
    shop.put("a", DATA)
    with shop.open() as store:
        buffer = memoryview(store.submit("a", ByteRange(5, 500)).result(10))
        assert buffer == DATA[5:500]
        assert buffer.readonly


def test_many_ranges_come_in_the_order_given(shop: Shop) -> None:
    shop.put("a", DATA)
    ranges = [ByteRange(5000, 9000), ByteRange(0, 10), ByteRange(3, 3), ByteRange(5, 6000), ByteRange(10_000, 10_240)]
    with shop.open() as store:
        expected = [DATA[wanted.start : wanted.stop] for wanted in ranges]
        assert store.read_ranges("a", ranges) == expected
        assert store.read_ranges("a", ranges, identity=store.identity("a"), max_concurrency=1) == expected
        assert store.read_ranges("a", []) == []


def test_a_whole_object_comes_in_parts_with_its_version(shop: Shop) -> None:
    shop.put("a", DATA * 50)
    parts: list[bytes] = []
    calls: list[None] = []
    with shop.open() as store:
        identity = store.read_whole(
            "a", lambda part: parts.append(bytes(part)), max_bytes=len(DATA) * 50, stall_seconds=10,
            progress=lambda: calls.append(None),
        )  # fmt: skip
        assert b"".join(parts) == DATA * 50
        assert identity == store.identity("a")
        assert len(calls) == len(parts) + 1  # before the try, too


def test_a_whole_object_that_is_too_large_is_not_read(shop: Shop) -> None:
    shop.put("a", DATA)
    with shop.open() as store, pytest.raises(DataError, match="more than the 1,000 ") as caught:
        store.read_whole("a", lambda part: pytest.fail("it was taken"), max_bytes=1000, stall_seconds=10)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (len(DATA), 1000)


def test_what_is_not_there_is_named(shop: Shop) -> None:
    shop.put("a", DATA)
    with shop.open() as store:
        calls: list[Callable[[], object]] = [
            lambda: store.identity("no/such"),
            lambda: store.begin("no/such", 10),
            lambda: store.read("no/such", ByteRange(0, 10)),
            lambda: store.read_ranges("no/such", [ByteRange(0, 10)]),
            lambda: store.read_whole("no/such", lambda part: None, max_bytes=None, stall_seconds=10),
        ]
        for call in calls:
            with pytest.raises(ObjectMissing) as caught:
                call()
            assert caught.value.path == store.name_of("no/such") == f"{shop.url}/no/such"


def test_a_range_beyond_the_end_names_the_size(shop: Shop) -> None:
    shop.put("a", DATA)
    with shop.open() as store:
        for wanted in (ByteRange(10_000, 10_241), ByteRange(99_999, 100_000)):
            for identity in (None, store.identity("a")):
                with pytest.raises(DataError, match="it has 10,240 bytes") as caught:
                    store.read("a", wanted, identity=identity)
                assert caught.value.size_bytes == len(DATA)


def test_a_version_that_is_gone_is_told_with_both(shop: Shop) -> None:
    shop.put("a", DATA)
    with shop.open() as store:
        before = store.identity("a")
    shop.put("a", b"something else")
    with shop.open() as store:
        now = store.identity("a")
        calls: list[Callable[[], object]] = [
            lambda: store.read("a", ByteRange(0, 10), identity=before),
            lambda: store.read_ranges("a", [ByteRange(0, 10)], identity=before),
            lambda: store.submit("a", ByteRange(0, 10), identity=before).result(10),
        ]
        for call in calls:
            with pytest.raises(CorruptMedia, match=r"10,240 bytes.*found 14 bytes.*open the dataset again") as caught:
                call()
            assert (caught.value.expected, caught.value.found) == (before, now)


def test_keys_are_listed_sorted(shop: Shop) -> None:
    for key in ("b/2", "b/1", "a", "bb/3", "b/c/4"):
        shop.put(key, b"x")
    with shop.open() as store:
        if not store.can_list:
            with pytest.raises(UnsupportedFormat, match="cannot be listed"):
                store.list("")
            return
        assert store.list("") == store.list() == ["a", "b/1", "b/2", "b/c/4", "bb/3"]
        assert store.list("b") == store.list("b/") == ["b/1", "b/2", "b/c/4"]
        assert store.list("no/such") == []


def test_the_empty_key_is_the_url_itself(shop: Shop) -> None:
    shop.put("a", DATA)
    with ObjectStore(f"{shop.url}/a", storage_options=shop.options) as store:
        assert store.read("", ByteRange(1, 5)) == DATA[1:5]
        assert store.name_of("") == f"{shop.url}/a"


@pytest.mark.parametrize("key", ["", "folder"])
def test_a_folder_is_no_object(shop: Shop, key: str) -> None:
    shop.put("folder/a", DATA)
    with shop.open() as store, pytest.raises((ObjectMissing, FetchError)) as caught:
        store.read(key, ByteRange(0, 1))
    assert caught.value.path == store.name_of(key)


def test_a_local_version_is_the_one_that_sidecars_know(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    with ObjectStore(str(tmp_path)) as store:
        assert store.identity("a") == store.begin("a", 1)[1] == file_identity(tmp_path / "a")


def test_counts_are_of_this_store(shop: Shop) -> None:
    shop.put("a", DATA)
    with shop.open() as store:
        store.read("a", ByteRange(0, 100))
        store.read_ranges("a", [ByteRange(0, 100), ByteRange(50, 200)])
        assert (store.statistics.requests, store.statistics.bytes_fetched) == (2, 300)
        assert (store.statistics.retries, store.statistics.hedges, store.statistics.bytes_from_cache) == (0, 0, 0)


def test_a_large_range_is_split_into_requests(shop: Shop) -> None:
    shop.put("a", DATA)
    with shop.open(limits=FetchLimits(max_request_bytes=1000, max_gap_bytes=0)) as store:
        assert store.read_ranges("a", [ByteRange(100, 5100)]) == [DATA[100:5100]]
        assert (store.statistics.requests, store.statistics.bytes_fetched) == (5, 5000)


@pytest.mark.parametrize("wanted", [ByteRange(-1, 5), ByteRange(5, 4)])
def test_what_is_no_range_is_a_value_error(wanted: ByteRange, tmp_path: Path) -> None:
    with ObjectStore(str(tmp_path)) as store:
        for call in (store.read, store.submit, lambda key, one: store.read_ranges(key, [one])):
            with pytest.raises(ValueError, match="no range"):
                call("a", wanted)


def test_a_scheme_that_nothing_reads_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # accelerate brings it along
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "hf", raising=False)
    for url, words in (
        ("pond://x", "install fsspec and its package for pond"),
        ("hf://datasets/a/b", r"millpond\[hub\]"),
    ):
        with ObjectStore(url) as store, pytest.raises(UnsupportedFormat, match=words):
            store.begin("x", 1)


@pytest.mark.parametrize("url", ["", None, 7])
def test_what_names_no_store_is_a_value_error(url: Any) -> None:
    with pytest.raises(ValueError, match="a URL or a path"):
        ObjectStore(url)


@pytest.mark.parametrize(("url", "key", "name"), [
    ("https://u:p@h.example/d?sig=1#f", "a/b", "https://h.example/d/a/b?..."),
    ("https://h.example/d/", "", "https://h.example/d"),
    ("s3://bucket", "k", "s3://bucket/k"),
    ("/", "etc/x", "/etc/x"),
    ("/data #1?/", "k", "/data #1?/k"),
    ("file:///data/", "k", "file:///data/k"),
])  # fmt: skip
def test_names_hold_no_secret_and_no_doubled_slash(url: str, key: str, name: str) -> None:
    store = ObjectStore(url)
    assert store.name_of(key) == name
    assert repr(store) == f"ObjectStore({store.url!r})"
    assert store.url == store.name_of("")


def test_versions_differ_where_both_sides_say_so() -> None:
    base = FileIdentity(10, 0, '"a"')
    assert not base.differs_from(FileIdentity(10, 0, '"a"'))
    assert base.differs_from(FileIdentity(10, 0, '"b"'))
    assert base.differs_from(FileIdentity(11, 0, '"a"'))
    assert not base.differs_from(FileIdentity(10, 5))
    assert FileIdentity(10, 4).differs_from(FileIdentity(10, 5))
    assert not FileIdentity(10, 0).differs_from(FileIdentity(10, 5))


def test_versions_are_surely_one_where_a_strong_tag_or_a_time_says_so() -> None:
    tagged, timed = FileIdentity(10, 0, '"a"'), FileIdentity(10, 5)
    assert tagged.is_surely(FileIdentity(10, 0, '"a"'))
    assert timed.is_surely(FileIdentity(10, 5))
    for other in (FileIdentity(11, 0, '"a"'), FileIdentity(10, 0, '"b"'), FileIdentity(10, 0), FileIdentity(10, 6)):
        assert not tagged.is_surely(other)
        assert not timed.is_surely(other)
    assert not tagged.is_surely(timed)
    assert not FileIdentity(10, 0, 'W/"a"').is_surely(FileIdentity(10, 0, 'W/"a"'))
    assert not FileIdentity(10, 0).is_surely(FileIdentity(10, 0))


def test_errors_of_stores_survive_pickle(tmp_path: Path) -> None:
    import pickle

    with ObjectStore(str(tmp_path)) as store, pytest.raises(MillpondError) as caught:
        store.read("gone", ByteRange(0, 1))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.facts) == (str(caught.value), caught.value.facts)
