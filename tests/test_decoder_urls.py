"""Decoders by URL give the frames of the file; what fails has a name and holds no secret; nothing stays open."""

from __future__ import annotations

import gc
import io
import json
import pickle
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import media_zoo as zoo
from millpond._datasets import url_stores
from millpond._datasets.decoders import remote_handle
from millpond._datasets.decoders.cache import VideoDecoderCache
from millpond._datasets.decoders.pyav_decoder import PyAVDecoder
from millpond._datasets.decoders.read_ahead import BLOCK_BYTES, HELD_BYTES, ReadAhead
from millpond._datasets.decoders.remote_handle import RemoteHandle, open_url
from millpond._datasets.media_by_url import UrlAccess
from millpond._datasets.url_stores import UrlStores
from millpond._media.sidecars import SidecarStore
from millpond._sources.limits import FETCH_LIMITS
from millpond._values import ByteRange
from millpond.errors import (
    CorruptMedia,
    DataError,
    FetchError,
    FetchTimeout,
    ObjectMissing,
    UnsupportedFormat,
    UsageError,
)
from programs import forked
from real_servers import BUCKET, put, rclone_http, s3_options
from store_server import StoreServer, serving_store

NAME = "h264_b_frames"
SECRET = "sesame-hunter2"
PATIENCE_SECONDS = 60.0
SOME = [0, 13, 27, 28, 49]

pytestmark = pytest.mark.usefixtures("quick_tries")

OpenDecoder = Callable[..., PyAVDecoder]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(zoo.clip_path(NAME).read_bytes())
    with serving_store(folder) as running:
        yield running


@pytest.fixture
def sidecars(tmp_path: Path) -> SidecarStore:
    return SidecarStore(tmp_path / "sidecars")


@pytest.fixture
def open_decoder(sidecars: SidecarStore) -> Iterator[OpenDecoder]:
    """Opens decoders of URLs, that are closed with the test."""
    opened: list[tuple[RemoteHandle, UrlStores]] = []

    def open_it(url: str, stores: UrlStores | None = None) -> PyAVDecoder:
        stores = stores or UrlStores(UrlAccess())
        handle, table = open_url(url, stores, sidecars)
        opened.append((handle, stores))
        return PyAVDecoder(table, handle)

    yield open_it
    for handle, stores in opened:
        handle.close()
        stores.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VideoDecoderCache]:
    """A cache that is cleared with the test."""
    made = VideoDecoderCache(cache_dir=tmp_path / "cache")
    yield made
    made.clear()


@pytest.fixture
def small_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of some 20 kB are not all there once they are open."""
    monkeypatch.setattr(remote_handle, "_BEGIN_BYTES", 4096)


def assert_frames_of(name: str, decoder: PyAVDecoder, frames: list[int] | None = None) -> None:
    frames = list(range(len(decoder))) if frames is None else frames
    expected = np.stack([zoo.clip_reference(name)[j] for j in frames]).transpose(0, 3, 1, 2)
    assert np.array_equal(np.asarray(decoder.get_frames_at(frames).data), expected)


def fetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("millpond-")]


# ---- frames, and what they cost


@pytest.mark.parametrize(
    "name",
    ["h264_faststart", "h264_b_frames", "h264_fragmented", "h264_mkv", "vp9_webm", "h264_ts", "mpeg4_mp4", "h264_avi"],
)
def test_frames_by_url_are_those_of_the_file(
    name: str, tmp_path: Path, open_decoder: OpenDecoder, small_begin: None
) -> None:
    path = zoo.clip_path(name)
    with rclone_http(path.parent) as url:
        decoder = open_decoder(f"{url}/{path.name}")
        assert decoder.table.backend == zoo.BY_NAME[name].backend
        assert len(decoder) == len(zoo.clip_reference(name))
        assert_frames_of(name, decoder)
        assert_frames_of(name, decoder, SOME[::-1])
        again = open_decoder(f"{url}/{path.name}")  # its table was kept
        assert_frames_of(name, again, SOME)


def test_a_clip_takes_one_request_and_a_longer_one_two(
    server: StoreServer, open_decoder: OpenDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.url}/clip.mp4"
    assert_frames_of(NAME, open_decoder(url))
    assert server.counts.requests == 1
    monkeypatch.setattr(remote_handle, "_BEGIN_BYTES", 4096)
    (Path(str(server.folder)) / "longer.mp4").write_bytes(zoo.clip_path(NAME).read_bytes())
    server.forget()
    open_decoder(f"{server.url}/longer.mp4")
    assert server.counts.requests == 2, "its index is at its end"
    server.forget()
    open_decoder(f"{server.url}/longer.mp4")
    assert server.counts.requests == 1, "a sidecar has its sample table"


def test_a_sidecar_spares_fetching_the_whole_again(
    server: StoreServer, open_decoder: OpenDecoder, small_begin: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = zoo.clip_path("h264_mkv")
    (Path(str(server.folder)) / "clip.mkv").write_bytes(path.read_bytes())
    open_decoder(f"{server.url}/clip.mkv")
    assert f"all {path.stat().st_size} bytes of '{server.url}/clip.mkv' are fetched to index it" in caplog.text
    server.forget()
    decoder = open_decoder(f"{server.url}/clip.mkv")
    assert_frames_of("h264_mkv", decoder, [0])
    assert server.counts.bytes_sent < path.stat().st_size


def ranges_of(decoder: PyAVDecoder, server: StoreServer, calls: list[list[int]]) -> tuple[int, int]:
    """Requests, and bytes asked for, of calls of a decoder."""
    server.forget()
    for frames in calls:
        decoder.get_frames_at(frames)
    asked = [headers["Range"].removeprefix("bytes=").split("-") for _, _, headers in server.requests]
    return len(asked), sum(int(last) + 1 - int(first) for first, last in asked)


def test_random_frames_fetch_what_they_need_and_frames_in_order_little_more_than_the_file_once(
    server: StoreServer, open_decoder: OpenDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_handle, "_BEGIN_BYTES", 64)
    monkeypatch.setattr("millpond._datasets.decoders.read_ahead._GAP_BYTES", 0)
    decoder = open_decoder(f"{server.url}/clip.mp4")
    table, size = decoder.table, decoder.table.identity.size_bytes
    starts = table.gop_starts[:-1].tolist()
    requests, fetched = ranges_of(decoder, server, [[frame] for frame in starts[1::2][::-1]])
    assert requests == len(starts[1::2])
    assert fetched < size / 4
    requests, fetched = ranges_of(decoder, server, [[frame] for frame in range(len(decoder))])
    assert requests <= 5
    assert fetched <= size


class Bytes:
    """Bytes that count how they are fetched."""

    def __init__(self, size: int) -> None:
        self.data = np.random.default_rng(0).bytes(size)
        self.fetched: list[ByteRange] = []

    def __call__(self, wanted: ByteRange) -> bytes:
        self.fetched.append(wanted)
        return self.data[wanted.start : wanted.stop]


def test_whatever_is_read_it_is_the_bytes_of_the_file_and_little_is_held() -> None:
    source, random = Bytes(20 << 20), np.random.default_rng(1)
    held = ReadAhead(len(source.data), source.data[:1000])
    place = 0
    for _ in range(500):
        step, length = (
            int(random.integers(-300_000, 400_000)),
            int(random.integers(0, 1 << int(random.integers(1, 23)))),
        )
        place = int(random.integers(0, len(source.data))) if random.random() < 0.1 else max(place + step, 0)
        wanted = ByteRange(place, place + length)
        assert held.read(wanted, source) == source.data[wanted.start : wanted.stop]
        assert held.held_bytes <= HELD_BYTES
    held.clear()
    assert held.held_bytes == 0


def test_read_ahead_grows_with_reads_that_follow_and_a_read_elsewhere_is_fetched_as_it_is() -> None:
    source = Bytes(20 << 20)
    held = ReadAhead(len(source.data))
    step = 10_000
    for number in range(100):
        held.read(ByteRange(1_000_000 + number * step, 1_000_000 + (number + 1) * step), source)
    lengths = [len(wanted) for wanted in source.fetched]
    assert lengths[:4] == [step, 2 * step, 3 * step, 5 * step]
    assert max(lengths) <= BLOCK_BYTES + step
    assert len(lengths) < 12
    source.fetched.clear()
    held.read(ByteRange(9_000_000, 9_000_500), source)
    held.read(ByteRange(5, 10), source)
    assert source.fetched == [ByteRange(9_000_000, 9_000_500), ByteRange(5, 10)]


def test_a_failed_fetch_leaves_what_is_held() -> None:
    source = Bytes(1000)
    held = ReadAhead(len(source.data))
    held.read(ByteRange(0, 100), source)

    def fail(_: ByteRange) -> bytes:
        raise FetchError("gone")

    with pytest.raises(FetchError, match="gone"):
        held.read(ByteRange(90, 200), fail)
    assert held.read(ByteRange(50, 200), source) == source.data[50:200]


# ---- stores of other kinds


def test_other_schemes_are_read_through_fsspec(open_decoder: OpenDecoder, small_begin: None) -> None:
    files, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name in (NAME, "h264_ts"):
        files.pipe_file(f"{root}/{name}", zoo.clip_path(name).read_bytes())
        assert_frames_of(name, open_decoder(f"memory:/{root}/{name}"), SOME)
    with pytest.raises(ObjectMissing, match=r"memory://.*/gone\.mp4"):
        open_decoder(f"memory:/{root}/gone.mp4")
    files.rm(root, recursive=True)


def test_a_chain_of_fsspec_is_read(open_decoder: OpenDecoder, small_begin: None) -> None:
    files, place = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}.zip"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("clip.mp4", zoo.clip_path(NAME).read_bytes())
    files.pipe_file(place, packed.getvalue())
    assert_frames_of(NAME, open_decoder(f"zip://clip.mp4::memory:/{place}"), SOME)
    files.rm(place)


def test_a_bucket_is_read_by_ranges(s3: str, open_decoder: OpenDecoder, small_begin: None) -> None:
    put(s3, "videos/clip.mp4", zoo.clip_path(NAME).read_bytes())
    url, stores = f"s3://{BUCKET}/videos/clip.mp4", UrlStores(UrlAccess(s3_options(s3)))
    decoder = open_decoder(url, stores)
    assert_frames_of(NAME, decoder)
    put(s3, "videos/clip.mp4", zoo.clip_path("h264_faststart").read_bytes())
    decoder._handle.contents.close()  # nothing of it is held any more
    with pytest.raises(CorruptMedia, match="changed while it was in use"):
        decoder.get_frame_at(0)
    assert_frames_of("h264_faststart", open_decoder(url, stores), SOME)
    with pytest.raises(ObjectMissing, match=r"s3://.*/gone"):
        open_decoder(f"s3://{BUCKET}/gone", stores)


def test_a_cache_takes_options_and_tokens(server: StoreServer, tmp_path: Path) -> None:
    server.set(bearer=SECRET)
    url = f"{server.url}/clip.mp4"
    with pytest.raises(FetchError, match="401") as caught:
        VideoDecoderCache(cache_dir=tmp_path / "cache").get_decoder(url)
    assert SECRET not in str(caught.value)
    for options in ({"token": SECRET}, {"storage_options": {"headers": {"Authorization": f"Bearer {SECRET}"}}}):
        given: dict[str, Any] = dict(options)
        cache = VideoDecoderCache(cache_dir=tmp_path / "cache", **given)
        assert len(cache.get_decoder(url)) == zoo.FRAMES
        cache.clear()
    assert SECRET not in "".join(str(path) for path in tmp_path.rglob("*"))


# ---- what fails


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda server: server.script("/clip.mp4", 404), ObjectMissing, "no object at .* 404"),
    (lambda server: server.script("/clip.mp4", 403), FetchError, "403 Forbidden: check the credentials"),
    (lambda server: server.set(unavailable=1.0), FetchError, r"8 tries.* 503"),
    (lambda server: server.set(ranges=False), FetchError, "sends the whole object .* by one that knows ranges"),
    (lambda server: server.set(lengths=False), FetchError, "does not say how long it is"),
])  # fmt: skip
def test_what_a_server_does_wrong_has_a_name_and_no_secret(
    make: Callable[[StoreServer], object], error: type[DataError], words: str, server: StoreServer, tmp_path: Path,
    cache: VideoDecoderCache,
) -> None:  # fmt: skip
    make(server)
    url = f"{server.url.replace('//', f'//ann:{SECRET}@')}/clip.mp4?token={SECRET}#part"
    with pytest.raises(error, match=words) as caught:
        cache.get_decoder(url)
    assert caught.value.path == f"{server.url}/clip.mp4?..."
    assert SECRET not in f"{caught.value!r} {caught.value.facts} {caught.value.__cause__!r}"
    assert SECRET.encode() not in pickle.dumps(caught.value)
    assert len(cache) == 0


def test_no_secret_is_in_what_a_decoder_says_or_leaves(
    server: StoreServer, cache: VideoDecoderCache, tmp_path: Path
) -> None:
    url = f"{server.url.replace('//', f'//ann:{SECRET}@')}/clip.mp4?token={SECRET}"
    with cache.lease(url) as decoder:
        decoder.get_frame_at(0)
        told = [decoder, decoder._handle, decoder._handle.contents, decoder.path, cache, cache.statistics()]
        assert SECRET not in "".join(map(repr, told))
    assert any(tmp_path.rglob("*.npz"))
    for path in (tmp_path / "cache").rglob("*"):
        assert SECRET not in str(path)
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_urls_that_differ_in_a_query_have_tables_of_their_own(server: StoreServer, open_decoder: OpenDecoder) -> None:
    server.set(queries=True, etags="off", last_modified=False)
    data = zoo.clip_path(NAME).read_bytes()
    other = zoo.clip_path("h264_open_gop").read_bytes()
    size = max(len(data), len(other))
    for number, one in enumerate((data, other)):
        # of one size: nothing but the query tells them apart
        padded = one + (size + 8 - len(one)).to_bytes(4, "big") + b"free" + bytes(size - len(one))
        (Path(str(server.folder)) / f"clip.mp4?id={number}").write_bytes(padded)
    first, second = (open_decoder(f"{server.url}/clip.mp4?id={number}") for number in range(2))
    assert first.table.identity == second.table.identity
    assert_frames_of(NAME, first, SOME)
    assert_frames_of("h264_open_gop", second, SOME)


@pytest.mark.parametrize("url", ["pond://key:secret@x/clip.mp4", "pond://x/clip.mp4"])
def test_a_scheme_that_nothing_reads_says_what_to_install(url: str, open_decoder: OpenDecoder) -> None:
    with pytest.raises(UnsupportedFormat, match=r"'pond://x/clip\.mp4' .* install"):
        open_decoder(url)


def test_a_file_that_was_cut_short_is_an_error_as_it_is_on_disk(
    server: StoreServer, cache: VideoDecoderCache, tmp_path: Path
) -> None:
    data = zoo.clip_path("h264_faststart").read_bytes()
    path = Path(str(server.folder)) / "short.mp4"
    path.write_bytes(data[: len(data) * 2 // 3])
    told = []
    for place in (path, f"{server.url}/short.mp4"):
        with pytest.raises(CorruptMedia) as caught:
            cache.get_decoder(place)
        told.append(str(caught.value).replace(str(path), "X").replace(f"{server.url}/short.mp4", "X"))
    assert told[0] == told[1]


@pytest.mark.parametrize("data", [b"", b"no video", bytes(5000)])
def test_what_is_no_video_is_corrupt(data: bytes, server: StoreServer, open_decoder: OpenDecoder) -> None:
    (Path(str(server.folder)) / "clip.mp4").write_bytes(data)
    with pytest.raises(CorruptMedia, match=r"/clip\.mp4"):
        open_decoder(f"{server.url}/clip.mp4")


def test_what_must_be_read_whole_and_is_too_large_is_told(
    server: StoreServer, open_decoder: OpenDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_handle, "MAX_BYTES", 1000)
    (Path(str(server.folder)) / "clip.ts").write_bytes(zoo.clip_path("h264_ts").read_bytes())
    with pytest.raises(DataError, match=r"more than the 1,000 that are fetched; download it") as caught:
        open_decoder(f"{server.url}/clip.ts")
    assert caught.value.limit_bytes == 1000
    assert_frames_of(NAME, open_decoder(f"{server.url}/clip.mp4"), SOME)


def test_an_object_that_changed_is_told_and_opened_anew(
    server: StoreServer, cache: VideoDecoderCache, small_begin: None
) -> None:
    url = f"{server.url}/clip.mp4"
    decoder = cache.get_decoder(url)
    (Path(str(server.folder)) / "clip.mp4").write_bytes(zoo.clip_path("h264_open_gop").read_bytes())
    with pytest.raises(CorruptMedia, match="changed while it was in use"):
        decoder.get_frames_at(SOME)
    again = cache.get_decoder(url)
    assert again is not decoder
    assert isinstance(again, PyAVDecoder)
    assert_frames_of("h264_open_gop", again, SOME)


def test_a_server_that_goes_silent_is_given_up(
    server: StoreServer, open_decoder: OpenDecoder, small_begin: None
) -> None:
    url, limits = f"{server.url}/clip.mp4", replace(FETCH_LIMITS, timeout_seconds=PATIENCE_SECONDS)
    stores = UrlStores(UrlAccess(), lambda: limits)
    decoder = open_decoder(url, stores)
    limits = replace(FETCH_LIMITS, timeout_seconds=0.2)  # of stores made from now on
    stores.close()
    with server.held(), pytest.raises(FetchTimeout, match=r"clip\.mp4.*limit 0\.2 s") as caught:
        decoder.get_frames_at(SOME)
    assert caught.value.path == url
    limits = FETCH_LIMITS
    stores.close()
    assert_frames_of(NAME, decoder)


def test_what_breaks_off_is_tried_again(server: StoreServer, open_decoder: OpenDecoder, small_begin: None) -> None:
    decoder = open_decoder(f"{server.url}/clip.mp4")
    server.script("/clip.mp4", 503, "reset amid", "truncated", "reset")
    assert_frames_of(NAME, decoder)


# ---- threads and processes


def test_many_threads_read_one_handle_at_once(
    server: StoreServer, open_decoder: OpenDecoder, small_begin: None
) -> None:
    """All of them wait for the server at the same time: none waits for another."""
    decoder = open_decoder(f"{server.url}/clip.mp4")
    data, size = zoo.clip_path(NAME).read_bytes(), decoder.table.identity.size_bytes
    starts = np.linspace(4096, size - 1000, 8).astype(int).tolist()[::-1]
    read = decoder._handle.contents.read
    with ThreadPoolExecutor(8) as pool:
        with server.held():
            server.forget()
            begun = [pool.submit(read, ByteRange(start, start + 500)) for start in starts]
            server.wait_until(lambda counts: counts.requests == 8)
        for start, one in zip(starts, begun, strict=True):
            assert one.result(PATIENCE_SECONDS) == data[start : start + 500]
        random = np.random.default_rng(0)
        chosen = [random.integers(0, len(decoder), 5).tolist() for _ in range(40)]
        for _ in pool.map(lambda frames: assert_frames_of(NAME, decoder, frames), chosen):
            pass


def test_a_whole_is_fetched_once_for_many_threads_and_goes_with_the_handle(
    server: StoreServer, open_decoder: OpenDecoder
) -> None:
    data = zoo.clip_path("h264_ts").read_bytes()
    (Path(str(server.folder)) / "clip.ts").write_bytes(data)
    open_decoder(f"{server.url}/clip.ts")
    decoder = open_decoder(f"{server.url}/clip.ts")
    server.forget()
    with ThreadPoolExecutor(4) as pool:
        paths = [one.path for one in pool.map(lambda _: decoder._handle.contents.whole(), range(8))]
    assert server.counts.requests == 1
    assert Path(paths[0]).read_bytes() == data
    decoder._handle.close()
    assert decoder._handle.closed
    assert set(paths) == {paths[0]}


def test_threads_end_when_a_cache_is_cleared_and_a_lease_still_reads(
    server: StoreServer, cache: VideoDecoderCache, small_begin: None
) -> None:
    with cache.lease(f"{server.url}/clip.mp4") as decoder:
        (thread,) = fetch_threads()
        cache.clear()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert isinstance(decoder, PyAVDecoder)
        assert_frames_of(NAME, decoder)
    assert decoder._handle.closed


def test_threads_end_with_a_cache_that_is_collected(server: StoreServer, tmp_path: Path) -> None:
    cache = VideoDecoderCache(cache_dir=tmp_path / "cache")
    cache.get_decoder(f"{server.url}/clip.mp4")
    (thread,) = fetch_threads()
    del cache
    gc.collect()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_many_urls_of_one_host_share_a_thread_and_others_keep_few(
    server: StoreServer, open_decoder: OpenDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_stores, "_MAX_OPEN_STORES", 3)
    stores = UrlStores(UrlAccess())
    for number in range(12):
        (Path(str(server.folder)) / f"{number}.mp4").write_bytes(zoo.clip_path(NAME).read_bytes())
    for number in range(12):
        open_decoder(f"{server.url}/{number}.mp4", stores)
    assert len(fetch_threads()) == 1
    decoders = [open_decoder(f"{server.url}/{number}.mp4?signature={SECRET}", stores) for number in range(12)]
    for decoder in decoders:
        decoder._handle.contents.read(ByteRange(0, decoder.table.identity.size_bytes))
    assert len(stores._stores) == 3


@pytest.mark.parametrize(("url", "expected"), [
    ("http://h/a/c.mp4", ("http://h", "a/c.mp4")),
    ("https://ann:pw@h:8/observation.images.top/chunk-000/file_0~1.mp4",
     ("https://ann:pw@h:8", "observation.images.top/chunk-000/file_0~1.mp4")),
    ("http://h/a%20b.mp4", ("http://h/a%20b.mp4", "")),
    ("http://h/a b.mp4", ("http://h/a b.mp4", "")),
    ("http://h/a//b.mp4", ("http://h/a//b.mp4", "")),
    ("http://h/a/../b.mp4", ("http://h/a/../b.mp4", "")),
    ("http://h/...mp4", ("http://h", "...mp4")),
    ("http://h/c.mp4?x=1", ("http://h/c.mp4?x=1", "")),
    ("http://h/c/", ("http://h/c/", "")),
    ("http://h", ("http://h", "")),
    ("s3://b/a/c.mp4", ("s3://b", "a/c.mp4")),
])  # fmt: skip
def test_urls_of_one_host_are_told_apart_by_plain_paths_alone(url: str, expected: tuple[str, str]) -> None:
    assert url_stores.split(url, by_host=True) == expected


@pytest.mark.parametrize("name", ["a b.mp4", "ü.mp4", "a%b.mp4", "x+y=z,1.mp4"])
def test_names_of_any_letters_are_read(name: str, server: StoreServer, open_decoder: OpenDecoder) -> None:
    from urllib.parse import quote

    (Path(str(server.folder)) / name).write_bytes(zoo.clip_path(NAME).read_bytes())
    assert_frames_of(NAME, open_decoder(f"{server.url}/{quote(name)}"), [0])


def test_a_forked_child_is_told_and_what_it_opens_anew_too(server: StoreServer, cache: VideoDecoderCache) -> None:
    url = f"{server.url}/clip.mp4"
    contents = cache.get_decoder(url)._handle.contents

    def told() -> bytes:
        words = []
        for act in (lambda: contents.read(ByteRange(0, 10)), lambda: cache.get_decoder(url)):
            with pytest.raises(UsageError) as caught:
                act()
            words.append(str(caught.value))
        return json.dumps([len(cache), *words]).encode()

    with forked(told) as result:
        size, *texts = json.loads(result())
    assert size == 0
    for text in texts:
        assert "was forked from one that had fetched" in text
        assert "start processes by spawn or forkserver" in text
    assert_frames_of(NAME, cache.get_decoder(url), SOME)  # type: ignore[arg-type]


def test_a_pickled_cache_starts_empty_and_reaches_the_same_urls(server: StoreServer, tmp_path: Path) -> None:
    server.set(bearer=SECRET)
    cache = VideoDecoderCache(cache_dir=tmp_path / "cache", token=SECRET)
    cache.get_decoder(f"{server.url}/clip.mp4")
    copy = pickle.loads(pickle.dumps(cache))
    assert len(copy) == 0
    assert len(copy.get_decoder(f"{server.url}/clip.mp4")) == zoo.FRAMES
    cache.clear()
    copy.clear()


# ---- torchcodec


@pytest.fixture
def torchcodec_cache(tmp_path: Path) -> Iterator[VideoDecoderCache]:
    pytest.importorskip("torchcodec", reason="torchcodec is not installed")
    made = VideoDecoderCache(cache_dir=tmp_path / "cache", backend="torchcodec")
    yield made
    made.clear()


def test_torchcodec_reads_urls_too(server: StoreServer, torchcodec_cache: VideoDecoderCache, small_begin: None) -> None:
    decoder = torchcodec_cache.get_decoder(f"{server.url}/clip.mp4")
    expected = np.stack([zoo.clip_reference(NAME)[j] for j in SOME]).transpose(0, 3, 1, 2)
    assert np.array_equal(np.asarray(decoder.get_frames_at(SOME).data), expected)


def test_what_a_server_does_wrong_keeps_its_name_through_torchcodec(
    server: StoreServer, torchcodec_cache: VideoDecoderCache, small_begin: None
) -> None:
    server.script("/clip.mp4", "ok", "ok", 403)  # its first bytes, its index, and what torchcodec reads
    with pytest.raises(FetchError, match="403 Forbidden"):
        torchcodec_cache.get_decoder(f"{server.url}/clip.mp4")
    assert len(torchcodec_cache) == 0
