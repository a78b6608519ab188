"""VideoDecoderCache as one thread sees it: bounds, order of use, keys, handles, leases, books."""

from __future__ import annotations

import copy
import errno
import gc
import importlib.util
import io
import os
import pickle
import shutil
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import media_zoo as zoo
from millpond import (
    ClosedError,
    CorruptMedia,
    DataError,
    DecoderCacheStatistics,
    ObjectMissing,
    UnsupportedFormat,
    VideoDecoderCache,
    decode_video_frames,
)
from millpond._datasets.decoders import cache as cache_module
from millpond._datasets.decoders import opening
from millpond._datasets.decoders.cache import default_cache
from millpond._datasets.decoders.handles import Handle
from millpond._datasets.decoders.opening import Entry
from millpond._datasets.decoders.pyav_decoder import PyAVDecoder
from millpond._media.video_file import LocalBytes
from open_videos import (
    Videos,
    as_shown,
    descriptors_of,
    no_video,
    open_among,
)
from programs import run_python

pytestmark = pytest.mark.usefixtures("torch_is_imported")

VARIABLE = "MILLPOND_VIDEO_DECODER_CACHE_SIZE"


@pytest.fixture
def cache() -> Iterator[VideoDecoderCache]:
    """Of three decoders."""
    made = VideoDecoderCache(max_size=3)
    yield made
    made.clear()


@pytest.fixture
def own_video(videos: Videos, tmp_path: Path) -> Path:
    """A copy of video 0 that a test may break."""
    return Path(shutil.copy(videos.paths[0], tmp_path / "own.mp4"))


# How many.


def test_left_alone_it_keeps_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert VideoDecoderCache().max_size == 100
    assert (VideoDecoderCache().max_bytes, VideoDecoderCache().backend) == (None, "pyav")


@pytest.mark.parametrize(
    ("told", "size"),
    [("3", 3), (" 7 ", 7), ("+2", 2), ("1000000", 10**6)]
    + [(text, None) for text in ("none", "None", "NONE", " none ", "unbounded", "Unbounded", "-1", "", "  ")],
)
def test_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch, told: str, size: int | None) -> None:
    monkeypatch.setenv(VARIABLE, told)
    assert VideoDecoderCache().max_size == size
    assert VideoDecoderCache(max_size=5).max_size == 5
    assert VideoDecoderCache(max_size=None).max_size is None


@pytest.mark.parametrize(
    "told", ["0", "-5", "-01", "abc", "1.5", "1.0", "1e2", "3 4", "null", "True", "0x10", "infinite"]
)
def test_nonsense_in_the_environment_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv(VARIABLE, told)
    with pytest.raises(ValueError, match=f"{VARIABLE} must be .* not {told!r}$") as caught:
        VideoDecoderCache()
    assert caught.value.__cause__ is None
    assert VideoDecoderCache(max_size=2).max_size == 2  # it is not asked


def test_the_environment_is_read_when_a_cache_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, first = [], VideoDecoderCache()
    for told in ("4", "none", "9"):
        monkeypatch.setenv(VARIABLE, told)
        sizes.append(VideoDecoderCache().max_size)
    assert (sizes, first.max_size) == ([4, None, 9], 100)


@pytest.mark.parametrize("size", [0, -1, -5, True, False, np.True_, np.int64(0), 1.5, "3", "none", [3]])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=r"max_size must be a number of decoders, at least 1, or None"):
        VideoDecoderCache(max_size=size)


@pytest.mark.parametrize("size", [0, -1, True, "many", "0B", [3]])
def test_a_bound_of_bytes_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^max_bytes"):
        VideoDecoderCache(max_bytes=size)


def test_a_size_of_numpy_is_a_size() -> None:
    made = VideoDecoderCache(max_size=np.int64(5))  # type: ignore[arg-type]
    assert (made.max_size, type(made.max_size)) == (5, int)


@pytest.mark.parametrize("options", [{"backend": "ffmpeg"}, {"cache_dir": "beside"}, {"cache_dir": "s3://a/b"}])
def test_other_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"backend|cache_dir"):
        VideoDecoderCache(**options)


def test_never_more_than_the_bound_are_open(cache: VideoDecoderCache, videos: Videos) -> None:
    handles = []
    for n, path in enumerate(videos.paths):
        decoder = cache.get_decoder(path)
        assert videos.show(n, decoder[:])
        handles.append(cache._cache[str(path)][1])
        assert open_among(videos) == list(range(max(0, n - 2), n + 1))
        assert cache.size() == len(cache) == min(n + 1, 3)
    assert [handle.closed for handle in handles] == [True] * 17 + [False] * 3
    assert cache.statistics() == DecoderCacheStatistics(0, 20, 17, 3, cache.statistics().nbytes)
    cache.clear()
    assert open_among(videos) == []
    assert all(handle.closed for handle in handles)


def test_without_a_bound_all_stay(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=None)
    decoders = [cache.get_decoder(path) for path in videos.paths]
    assert open_among(videos) == list(range(20))
    assert all(cache.get_decoder(path) is decoder for path, decoder in zip(videos.paths, decoders, strict=True))
    assert (cache.size(), cache.statistics().evictions) == (20, 0)
    cache.clear()
    assert open_among(videos) == []


def test_a_cache_of_one_works(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=1)
    for n in (0, 1, 0, 0):
        assert videos.show(n, cache.get_decoder(videos.paths[n])[:])
        assert open_among(videos) == [n]
    assert cache.statistics().hits == 1
    cache.clear()


def test_the_least_recently_used_goes_first(cache: VideoDecoderCache, videos: Videos) -> None:
    a, b, c, d, e = map(str, videos.paths[:5])
    for path in (a, b, c, a, a, d):
        cache.get_decoder(path)
    assert isinstance(cache._cache, OrderedDict)
    assert list(cache._cache) == [c, a, d]
    assert (a in cache, b in cache, c in cache, d in cache) == (True, False, True, True)
    with cache.lease(c):  # a lease is a use, too
        pass
    assert b not in cache  # to look is none
    cache.get_decoder(e)
    assert list(cache._cache) == [d, c, e]


def test_a_hit_gives_the_same_decoder_and_opens_nothing(
    cache: VideoDecoderCache,
    videos: Videos,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = videos.paths[0]
    decoder = cache.get_decoder(path)
    entry = cache._cache[str(path)]
    assert isinstance(entry, tuple)
    assert entry[0] is decoder
    assert (entry[1].closed, entry.file_handle) == (False, entry[1])
    monkeypatch.setattr(os, "open", None)
    monkeypatch.setattr(cache_module, "open_decoder", None)
    for again in (path, str(path), path.as_uri()):
        assert cache.get_decoder(again) is decoder
    assert videos.show(0, decoder[:])
    assert cache._cache[str(path)] is entry
    assert cache.statistics().hits == 3


def test_what_is_evicted_is_closed_at_once(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=2)
    first = cache.get_decoder(videos.paths[0])
    handle = cache._cache[str(videos.paths[0])][1]
    cache.get_decoder(videos.paths[1])
    assert not handle.closed
    cache.get_decoder(videos.paths[2])
    assert (handle.closed, str(videos.paths[0]) in cache) == (True, False)
    with pytest.raises(ClosedError, match=r"v00\.mp4.*evicted or cleared.*with cache\.lease\(path\)") as caught:
        first.get_frame_at(0)
    assert caught.value.path == str(videos.paths[0])
    assert videos.show(0, cache.get_decoder(videos.paths[0])[:])  # another one, which works
    cache.clear()


def test_cleared_is_closed_and_may_be_used_again(cache: VideoDecoderCache, videos: Videos) -> None:
    decoders = [cache.get_decoder(path) for path in videos.paths[:3]]
    handles = [entry[1] for entry in cache._cache.values()]
    cache.clear()
    cache.clear()
    assert [handle.closed for handle in handles] == [True] * 3
    assert (len(cache), cache.size(), list(cache._cache), open_among(videos)) == (0, 0, [], [])
    assert bool(cache)
    for decoder in decoders:
        with pytest.raises(ClosedError):
            decoder[:]
    assert len(decoders[0]) == decoders[0].metadata.num_frames == 8  # what is known is known
    assert videos.show(1, cache.get_decoder(videos.paths[1])[:])
    assert cache.statistics().evictions == 0


def test_the_books_of_a_script(videos: Videos, tmp_path: Path) -> None:
    cache = VideoDecoderCache(max_size=2)
    a, b, c = videos.paths[:3]

    def books() -> tuple[int, ...]:
        told = cache.statistics()
        assert told.nbytes == sum(entry.decoder.nbytes for entry in cache._cache.values())
        return told.hits, told.misses, told.evictions, told.open

    assert books() == (0, 0, 0, 0)
    cache.get_decoder(a)
    assert books() == (0, 1, 0, 1)
    cache.get_decoder(a)
    cache.get_decoder(b)
    assert books() == (1, 2, 0, 2)
    with pytest.raises(ObjectMissing):
        cache.get_decoder(tmp_path / "none.mp4")
    assert books() == (1, 3, 0, 2)
    with cache.lease(a):
        cache.get_decoder(b)
        cache.get_decoder(c)
        assert books() == (3, 4, 1, 3)  # a is evicted, and open for as long as it is leased
    assert books() == (3, 4, 1, 2)
    cache.drop(lambda key: key == str(b))
    assert books() == (3, 4, 1, 1)
    cache.clear()
    assert books() == (3, 4, 1, 0)
    with pytest.raises(AttributeError):
        cache.statistics().hits = 7  # type: ignore[misc]


# How many bytes.


def test_no_more_bytes_are_kept_than_may_be() -> None:
    cache = VideoDecoderCache(max_size=None, max_bytes=100)
    kept = []
    for key, nbytes in (("a", 40), ("b", 40), ("c", 20), ("d", 1), ("e", 99), ("f", 2)):
        with cache.lease_entry(key, partial(no_video, nbytes=nbytes)):
            kept.append("".join(map(str, cache._cache)))
            assert cache.statistics().nbytes <= 100
    assert kept == ["a", "ab", "abc", "bcd", "de", "f"]
    assert cache.statistics().evictions == 5
    cache.clear()
    assert cache.statistics().nbytes == 0


def test_what_was_asked_for_last_stays_however_large(videos: Videos) -> None:
    cache = VideoDecoderCache(max_bytes="1kB")
    assert cache.max_bytes == 1000
    for n in (0, 1, 1):
        decoder = cache.get_decoder(videos.paths[n])
        assert decoder.nbytes > 1000
        assert videos.show(n, decoder[:])
        assert open_among(videos) == [n]
    assert cache.statistics() == DecoderCacheStatistics(1, 2, 1, 1, decoder.nbytes)
    cache.clear()


def test_a_decoder_tells_about_how_much_it_holds(cache: VideoDecoderCache, videos: Videos) -> None:
    small, large = cache.get_decoder(videos.paths[0]), cache.get_decoder(zoo.clip_path("h264_b_frames"))
    held = sum(v.nbytes for v in vars(large.table).values() if isinstance(v, np.ndarray))
    assert held < large.nbytes < held + (1 << 16)
    assert small.nbytes < large.nbytes


# Under which name.


def test_a_relative_path_is_one_of_the_folder_it_was_asked_in(
    cache: VideoDecoderCache,
    videos: Videos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n in (0, 1):
        (tmp_path / str(n)).mkdir()
        shutil.copy(videos.paths[n], tmp_path / str(n) / "video.mp4")
        monkeypatch.chdir(tmp_path / str(n))
        assert videos.show(n, cache.get_decoder("video.mp4")[:])
        assert Path("video.mp4") in cache
        assert cache.get_decoder("./../0/../" + str(n) + "/video.mp4") is cache.get_decoder(Path("video.mp4"))
    assert list(cache._cache) == [str(tmp_path / "0" / "video.mp4"), str(tmp_path / "1" / "video.mp4")]


def test_what_lies_above_a_link_is_what_the_system_says(
    cache: VideoDecoderCache, videos: Videos, tmp_path: Path
) -> None:
    (tmp_path / "far" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "below")
    shutil.copy(videos.paths[0], tmp_path / "v.mp4")
    there = Path(shutil.copy(videos.paths[1], tmp_path / "far" / "v.mp4"))
    assert videos.show(1, cache.get_decoder(f"{tmp_path}/link/../v.mp4")[:])
    assert videos.show(0, cache.get_decoder(f"{tmp_path}/far/../v.mp4")[:])
    assert os.path.realpath(there) in cache


def test_a_relative_path_where_the_folder_is_gone(
    cache: VideoDecoderCache, videos: Videos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "v.mp4" not in cache
    with pytest.raises(ObjectMissing, match=r"'v\.mp4': the working directory is gone"):
        cache.get_decoder("v.mp4")
    assert videos.show(0, cache.get_decoder(videos.paths[0])[:])


@pytest.mark.parametrize("step", ["open_local", "load_sample_table"])
def test_where_descriptors_run_out_half_of_the_decoders_make_room(
    videos: Videos, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    cache = VideoDecoderCache(max_size=None)
    function = getattr(opening, step)

    def scarce(*arguments: Any, **options: Any) -> Any:
        if len(open_among(videos)) > 4:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return function(*arguments, **options)

    monkeypatch.setattr(opening, step, scarce)
    with cache.lease(videos.paths[0]) as leased:
        for n in range(1, 12):
            assert videos.show(n, cache.get_decoder(videos.paths[n])[:])
        assert videos.show(0, leased[:])
    assert (cache.statistics().evictions > 2, cache.size() <= 5) == (True, True)
    cache.clear()


def test_what_descriptors_do_not_suffice_for_is_no_fault_of_the_video(
    cache: VideoDecoderCache, videos: Videos, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(self: LocalBytes) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(LocalBytes, "check_identity", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        cache.get_decoder(videos.paths[0])
    assert (open_among(videos), len(cache), cache._opening) == ([], 0, {})


def test_odd_names_are_names(cache: VideoDecoderCache, videos: Videos, tmp_path: Path) -> None:
    for name in ("with space %20 #1?.mp4", "a:b.mp4", "ümlaut-\udce9.mp4"):
        path = Path(shutil.copy(videos.paths[2], tmp_path / name))
        decoder = cache.get_decoder(path)
        assert videos.show(2, decoder[:])
        assert str(path) in cache
        assert path.as_uri() in cache
        assert cache.get_decoder(path.as_uri()) is decoder


def test_whatever_else_changes_the_pictures_is_another_decoder(
    videos: Videos,
) -> None:
    cache, path = VideoDecoderCache(max_size=None), videos.paths[0]
    own = cache.get_decoder(path)
    assert cache.get_decoder(path, backend="pyav") is cache.get_decoder(path, backend="auto") is own
    assert cache.get_decoder(path, interpolation="area") is own  # nothing is resized
    pictures = {}
    for size in ((38, 50), (50, 38)):
        for how in ("bilinear", "area", "bicubic"):
            decoder = cache.get_decoder(path, image_size=size, interpolation=how)
            assert cache.get_decoder(path, image_size=list(size), interpolation=how) is decoder  # type: ignore[arg-type]
            assert (decoder.metadata.height, decoder.metadata.width) == size
            expected, _ = zoo.read(path, decoder.table, image_size=size, interpolation=how)
            pictures[size, how] = as_shown(decoder[:])
            assert np.array_equal(pictures[size, how], [expected[k] for k in range(8)])
    assert len({shown.tobytes() for shown in pictures.values()}) == len(pictures) == 6
    assert cache.get_decoder(path, stream_index=0) is not own
    assert len(cache) == 8
    assert videos.show(0, own[:])
    assert [key for key in cache._cache if isinstance(key, str)] == [str(path)]
    cache.drop(lambda key: key == str(path))
    assert path not in cache  # the others are not what get_decoder(path) gives
    cache.clear()
    assert open_among(videos) == []


def test_streams_of_a_file_are_told_apart(cache: VideoDecoderCache, videos: Videos, tmp_path: Path) -> None:
    import av

    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as out, av.open(str(videos.paths[3])) as one, av.open(str(videos.paths[4])) as two:
        targets = [out.add_stream_from_template(source.streams.video[0]) for source in (one, two)]
        for packets in zip(one.demux(video=0), two.demux(video=0), strict=True):
            for packet, target in zip(packets, targets, strict=True):
                if packet.dts is not None:
                    packet.stream = target
                    out.mux(packet)
    assert videos.show(3, cache.get_decoder(path)[:])
    assert videos.show(4, cache.get_decoder(path, stream_index=1)[:])
    assert videos.show(3, cache.get_decoder(path, stream_index=0)[:])
    assert cache.get_decoder(path, stream_index=1).metadata.stream_index == 1
    with pytest.raises(DataError, match=r"two\.mp4"):
        cache.get_decoder(path, stream_index=2)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (0, 5)},
        {"image_size": (40000, 40000)},
        {"image_size": "small"},
        {"image_size": 224},
        {"interpolation": "lanczos"},
    ]
    + [{"stream_index": n} for n in (-1, 1.0, True, "0")]
    + [{"backend": "opencv"}],
)
def test_a_decoder_that_cannot_be_is_refused(
    cache: VideoDecoderCache,
    videos: Videos,
    options: dict[str, Any],
) -> None:
    with pytest.raises((TypeError, ValueError)):
        cache.get_decoder(videos.paths[0], **options)
    assert cache.statistics().misses == 0


def test_what_is_no_path_is_in_no_cache(cache: VideoDecoderCache) -> None:
    for thing in (3, None, b"x", ("a", "b"), "", "file://elsewhere/a.mp4", "a\0b"):
        assert thing not in cache
    with pytest.raises(TypeError, match=r"not by int 3$"):
        cache.get_decoder(3)  # type: ignore[arg-type]
    for empty in ("", "file://"):
        with pytest.raises(ValueError, match="not by an empty text"):
            cache.get_decoder(empty)


def test_contents_are_no_path_and_are_not_told(cache: VideoDecoderCache) -> None:
    data = b"secret" * 1000
    things: list[Any] = [data, bytearray(data), memoryview(data), io.BytesIO(data)]
    for thing in things:
        with pytest.raises(TypeError, match=r"a path or a URL, not by .* or use millpond\.load_video\(") as caught:
            cache.get_decoder(thing)
        told = str(caught.value)
        assert "secret" not in told
        assert ("6,000 of them" in told) is not isinstance(thing, io.BytesIO)
        assert type(thing).__name__ in told
        with pytest.raises(TypeError, match="a path or a URL"):
            decode_video_frames(thing, [0.0], 1e-4, cache=cache)
    assert cache.statistics().misses == 0


def test_what_is_for_the_package_says_so() -> None:
    for function in (VideoDecoderCache.drop, VideoDecoderCache.lease_entry, PyAVDecoder.pictures):
        assert (function.__doc__ or "").startswith("For datasets: ")
    assert "cache.lease(path)" in (PyAVDecoder.__doc__ or "")


def test_a_home_folder_is_not_looked_for(cache: VideoDecoderCache) -> None:
    with pytest.raises(ObjectMissing, match=r"no file at .*; ~ is not expanded: see os\.path\.expanduser"):
        cache.get_decoder("~/millpond/none.mp4")


# What does not open, and what changes.


def _unopenable(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(folder / "nowhere.mp4")
    elif kind == "under a file":
        (folder / "file").write_bytes(b"")
        path = folder / "file" / "a.mp4"
    elif kind == "too long":
        path = folder / ("x" * 300 + ".mp4")
    elif kind == "nul":
        path = folder / "a\0b.mp4"
    elif kind == "unreadable":
        path.write_bytes(zoo.clip_path("h264_b_frames").read_bytes())
        path.chmod(0)
        if os.access(path, os.R_OK):  # root may read it all the same

            def refuse(contents: LocalBytes) -> int:
                raise PermissionError(13, "Permission denied", str(path))

            monkeypatch.setattr(LocalBytes, "_open", refuse)
    elif kind == "cut short":
        path.write_bytes(zoo.clip_path("h264_faststart").read_bytes()[:-2000])
    elif kind == "sound only":
        import av

        with av.open(str(path), "w") as out:
            stream: Any = out.add_stream("aac", rate=8000)
            stream.layout = "mono"
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    elif kind != "missing":
        path.write_bytes({"empty": b"", "garbage": bytes(range(256)) * 64, "text": b"not a video\n" * 9}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        ("missing", ObjectMissing, "no file at"),
        ("link", ObjectMissing, "no file at"),
        ("under a file", ObjectMissing, "no file at"),
        ("folder", CorruptMedia, "is a folder, not a file"),
        ("fifo", DataError, "no regular file"),
        ("too long", DataError, "cannot be read"),
        ("nul", DataError, "cannot be read"),
        ("unreadable", DataError, "cannot be read: .*Permission denied"),
        ("empty", CorruptMedia, "empty"),
        ("garbage", CorruptMedia, "does not open as video"),
        ("text", CorruptMedia, "does not open as video"),
        ("cut short", CorruptMedia, "cut"),
        ("sound only", CorruptMedia, "no video"),
    ],
)
def test_what_does_not_open_leaves_nothing_open(
    cache: VideoDecoderCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    error: type[DataError],
    match: str,
) -> None:
    path = _unopenable(tmp_path, kind, monkeypatch)
    for tries in (1, 2):
        with pytest.raises(error, match=match) as caught:
            cache.get_decoder(path)
        assert type(caught.value) is error
        assert (path.name[:100].replace("\0", "\\x00")) in str(caught.value)
        assert caught.value.path == str(path)
        assert cache.statistics() == DecoderCacheStatistics(0, tries, 0, 0, 0)
        assert (len(cache), cache._opening, descriptors_of(path)) == (0, {}, 0)
        assert path not in cache


def test_a_video_that_fails_evicts_nobody(cache: VideoDecoderCache, videos: Videos, tmp_path: Path) -> None:
    for path in videos.paths[:3]:
        cache.get_decoder(path)
    with pytest.raises(ObjectMissing):
        cache.get_decoder(tmp_path / "none")
    assert open_among(videos) == [0, 1, 2]
    assert cache.statistics().evictions == 0


def test_an_error_amid_opening_closes_the_handle(
    cache: VideoDecoderCache, own_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (KeyboardInterrupt, RuntimeError):
        for name in ("load_sample_table", "PyAVDecoder"):

            def fail(*_: Any, kind: type[BaseException] = kind, **__: Any) -> Any:
                assert descriptors_of(own_video) == 1
                raise kind("amid it")

            with monkeypatch.context() as patch:
                patch.setattr(opening, name, fail)
                with pytest.raises(kind, match="amid it"):
                    cache.get_decoder(own_video)
            assert (descriptors_of(own_video), cache._opening, len(cache)) == (0, {}, 0)
    assert len(cache.get_decoder(own_video)) == 8


def test_a_file_that_is_replaced_amid_opening_is_an_error_and_closed(
    cache: VideoDecoderCache,
    videos: Videos,
    own_video: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def replaced_first(function: Any) -> Any:
        def replacing(*arguments: Any, **options: Any) -> Any:
            _replace(own_video, videos.paths[5])
            return function(*arguments, **options)

        return replacing

    for owner, name in ((LocalBytes, "_open"), (opening, "load_sample_table")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, replaced_first(getattr(owner, name)))
            with pytest.raises(CorruptMedia, match=r"own\.mp4' (changed|was replaced) .*open it again"):
                cache.get_decoder(own_video)
        assert (descriptors_of(own_video), len(cache)) == (0, 0)
        assert videos.show(5, cache.get_decoder(own_video)[:])
        cache.clear()
        _replace(own_video, videos.paths[0])


def _replace(path: Path, source: Path) -> None:
    """As whoever writes a file anew and renames it into place."""
    fresh = path.with_name("fresh")
    shutil.copy(source, fresh)
    _touch(fresh)
    os.replace(fresh, path)


def _rewrite(path: Path, source: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate()
        file.write(source.read_bytes())
    _touch(path)


_times = iter(range(10**18, 2 * 10**18, 10**9))


def _touch(path: Path) -> None:
    """A time of its own: the clock of a file system may stand still for milliseconds."""
    at = next(_times)
    os.utime(path, ns=(at, at))


@pytest.mark.parametrize("change", [_replace, _rewrite])
def test_a_file_that_changed_gives_its_new_pictures(
    cache: VideoDecoderCache,
    videos: Videos,
    own_video: Path,
    change: Any,
) -> None:
    for n in (0, 6, 7, 0):
        change(own_video, videos.paths[n])
        decoder = cache.get_decoder(own_video)
        assert videos.show(n, decoder[:])
        assert cache.get_decoder(own_video) is decoder
        assert (len(cache), descriptors_of(own_video)) == (1, 1)
    assert cache.statistics() == DecoderCacheStatistics(4, 4, 0, 1, decoder.nbytes)


def test_a_file_rewritten_under_a_decoder_is_no_longer_decoded(
    cache: VideoDecoderCache,
    videos: Videos,
    own_video: Path,
) -> None:
    with cache.lease(own_video) as decoder:
        assert videos.show(0, decoder[2:4], (2, 3))
        _rewrite(own_video, videos.paths[6])
        with pytest.raises(CorruptMedia, match=r"frame 0: .*own\.mp4' changed .*open it again"):
            decoder.get_frame_at(0)
        with cache.lease(own_video) as another:
            assert videos.show(6, another[:])
    assert descriptors_of(own_video) == 1


def test_a_decoder_of_a_file_that_was_renamed_over_shows_what_it_showed(
    cache: VideoDecoderCache,
    videos: Videos,
    own_video: Path,
) -> None:
    with cache.lease(own_video) as decoder:
        _replace(own_video, videos.paths[6])
        assert videos.show(6, cache.get_decoder(own_video)[:])
        assert videos.show(0, decoder[:])


@pytest.mark.parametrize("name", ["h264_b_frames", "av1_mkv", "h264_ts"])
def test_a_file_that_was_deleted_still_reads(cache: VideoDecoderCache, tmp_path: Path, name: str) -> None:
    path = Path(shutil.copy(zoo.clip_path(name), tmp_path))
    cache.get_decoder(path)
    path.unlink()
    assert np.array_equal(as_shown(cache.get_decoder(path)[3:6]), zoo.clip_reference(name)[3:6])
    cache.clear()
    assert descriptors_of(path) == 0
    with pytest.raises(ObjectMissing):
        cache.get_decoder(path)


def test_one_that_the_user_closed_is_opened_anew(cache: VideoDecoderCache, videos: Videos) -> None:
    path = videos.paths[0]
    cache.get_decoder(path)
    cache._cache[str(path)][1].close()
    assert videos.show(0, cache.get_decoder(path)[:])
    assert cache.statistics() == DecoderCacheStatistics(0, 2, 0, 1, cache.get_decoder(path).nbytes)


def test_a_container_is_open_for_a_call_and_no_longer(cache: VideoDecoderCache) -> None:
    path = zoo.clip_path("h264_ts")
    decoder = cache.get_decoder(path)
    assert isinstance(decoder, PyAVDecoder)
    assert np.array_equal(as_shown(decoder[:]), zoo.clip_reference("h264_ts"))
    assert (descriptors_of(path), decoder.video._container_frames) == (1, None)
    assert np.array_equal(as_shown(decoder[9:5:-2]), [zoo.clip_reference("h264_ts")[k] for k in (9, 7)])
    assert (descriptors_of(path), decoder.video._container_frames) == (1, None)
    cache.clear()
    assert descriptors_of(path) == 0


def test_a_handle_whose_making_was_interrupted_goes_silently() -> None:
    Handle.__new__(Handle).__del__()


# Leases.


def test_what_is_leased_is_closed_when_its_last_lease_ends(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=1)
    with cache.lease(videos.paths[0]) as decoder:
        handle = cache._cache[str(videos.paths[0])][1]
        with cache.lease(videos.paths[0]) as same:
            assert same is decoder
            cache.get_decoder(videos.paths[1])
            assert videos.paths[0] not in cache
            assert videos.show(0, decoder[:])
            assert open_among(videos) == [0, 1]
        assert (handle.closed, cache.statistics().open) == (False, 2)
        assert videos.show(0, decoder.get_frames_at([5, 1]).data, (5, 1))
    assert (handle.closed, open_among(videos), cache.statistics().open) == (True, [1], 1)
    with pytest.raises(ClosedError):
        decoder.get_frame_at(0)
    cache.clear()


def test_a_lease_outlasts_a_clear_and_whoever_asks_then_gets_another(
    cache: VideoDecoderCache,
    videos: Videos,
) -> None:
    with cache.lease(videos.paths[0]) as decoder:
        cache.clear()
        with cache.lease(videos.paths[0]) as another:
            assert another is not decoder
            assert open_among(videos) == [0, 0]
        assert videos.show(0, decoder[:])
    assert open_among(videos) == [0]
    assert cache.get_decoder(videos.paths[0]) is another


def test_an_error_in_the_block_of_a_lease_ends_it(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=1)

    def fail() -> None:
        with cache.lease(videos.paths[0]):
            cache.get_decoder(videos.paths[1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert open_among(videos) == [1]
    cache.clear()


def test_all_may_be_leased_at_once(videos: Videos) -> None:
    import contextlib

    cache = VideoDecoderCache(max_size=2)
    with contextlib.ExitStack() as stack:
        decoders = [stack.enter_context(cache.lease(path)) for path in videos.paths]
        assert (len(cache), cache.statistics().open) == (2, 20)
        assert all(videos.show(n, decoder[:]) for n, decoder in enumerate(decoders))
    assert (open_among(videos), cache.statistics().open) == ([18, 19], 2)
    cache.clear()


# What becomes of it.


def test_a_decoder_outlives_its_cache_and_closes_when_it_goes(videos: Videos) -> None:
    cache = VideoDecoderCache()
    decoder = cache.get_decoder(videos.paths[0])
    cache.get_decoder(videos.paths[1])
    gc.disable()
    try:
        del cache
        assert open_among(videos) == [0]
        assert videos.show(0, decoder[:])
        del decoder
        assert open_among(videos) == []
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_ts"])
def test_nothing_of_it_is_a_cycle(tmp_path: Path, name: str) -> None:
    cache = VideoDecoderCache(max_size=1)
    gc.collect()
    gc.disable()
    try:
        with cache.lease(zoo.clip_path(name)) as decoder:
            decoder.get_frames_at([3, 1])
        with pytest.raises(ObjectMissing):
            cache.get_decoder(tmp_path / "none")
        with pytest.raises(IndexError):
            decoder.get_frame_at(99)
        handle = cache._cache[str(zoo.clip_path(name))][1]
        watched = [weakref.ref(thing) for thing in (cache, decoder, handle, handle.contents, decoder.table)]
        del cache, decoder, handle
        assert [ref() for ref in watched] == [None] * 5
        assert descriptors_of(zoo.clip_path(name)) == 0
    finally:
        gc.enable()


def test_a_process_that_ends_with_decoders_open_says_nothing(videos: Videos, tmp_path: Path) -> None:
    code = (
        "import sys, millpond\n"
        "cache = millpond.VideoDecoderCache(max_size=2)\n"
        "kept = [cache.get_decoder(path) for path in sys.argv[1:]]\n"
        "lease = cache.lease(sys.argv[1]); lease.__enter__()\n"
        "print(millpond.decode_video_frames(sys.argv[2], [0.0], 1e-4).shape)\n"
    )
    ended = run_python(
        ["-X", "dev", "-W", "error", "-c", code, *map(str, videos.paths[:3]), str(zoo.clip_path("h264_ts"))],
        directory=tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "(1, 3, 76, 100)" in ended.stdout.replace("torch.Size([1, 3, 76, 100])", "(1, 3, 76, 100)")


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_ts"])
def test_what_is_freed_after_the_modules_were_cleared_says_nothing(tmp_path: Path, name: str) -> None:
    code = (
        "import ctypes, sys, types\n"
        "first = sys.modules['first'] = types.ModuleType('first')  # modules are cleared last to first\n"
        "import millpond\n"
        "first.cache = millpond.VideoDecoderCache(max_size=2)\n"
        "first.cache.get_decoder(sys.argv[1])[0]\n"
        "for name in ('first', 'millpond._media.video_file', 'millpond._datasets.decoders.handles'):\n"
        "    ctypes.pythonapi.Py_IncRef(ctypes.py_object(sys.modules[name]))  # as extensions do\n"
    )
    ended = run_python(["-X", "dev", "-c", code, str(zoo.clip_path(name))], directory=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_copy_starts_empty_and_is_otherwise_the_same(videos: Videos, tmp_path: Path) -> None:
    class Own(VideoDecoderCache):
        pass

    globals()["Own"], Own.__qualname__ = Own, "Own"
    options: dict[str, Any] = {"storage_options": {"key": "k"}, "token": "t", "cache_dir": tmp_path / "tables"}
    for cls, size in ((VideoDecoderCache, None), (Own, 5)):
        cache = cls(size, "1MiB", "pyav", **options)
        cache.get_decoder(videos.paths[0])
        for made in (copy.copy(cache), copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
            assert type(made) is cls
            assert (made.max_size, made.max_bytes, made.backend) == (size, 1 << 20, "pyav")
            assert (made._access.storage_options, made._access.token) == ({"key": "k"}, "t")
            assert made.statistics() == DecoderCacheStatistics(0, 0, 0, 0, 0)
            assert videos.show(0, made.get_decoder(videos.paths[0])[:])
            made.clear()
        assert open_among(videos) == [0]
        cache.clear()
    assert list((tmp_path / "tables").glob("*/*.npz"))
    del globals()["Own"]


def test_its_repr_tells_no_secret() -> None:
    cache = VideoDecoderCache(4, storage_options={"secret": "geheim"}, token="geheim")
    assert repr(cache) == "VideoDecoderCache(0 decoders, max_size=4, backend='pyav')"


def test_the_process_has_one_for_whoever_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_default", None)
    monkeypatch.setenv(VARIABLE, "17")
    assert default_cache() is default_cache()
    assert default_cache().max_size == 17


def test_tables_that_were_kept_show_the_same(videos: Videos, tmp_path: Path) -> None:
    for _ in range(2):
        cache = VideoDecoderCache(cache_dir=tmp_path / "tables")
        assert videos.show(0, cache.get_decoder(videos.paths[0])[:])
        assert videos.show(0, cache.get_decoder(videos.paths[0])[:])  # packets are compared with what they were
        cache.clear()


def test_entries_of_others_are_kept_beside_videos(cache: VideoDecoderCache, videos: Videos) -> None:
    opened: list[Entry] = []

    def open_it() -> Entry:
        opened.append(no_video())
        return opened[-1]

    for _ in range(2):
        with cache.lease_entry(("dataset", 3), open_it) as entry:
            assert entry is opened[0]
    cache.get_decoder(videos.paths[0])
    cache.drop(lambda key: isinstance(key, tuple))
    assert list(cache._cache) == [str(videos.paths[0])]
    closed: Any = opened[0].file_handle.contents
    assert (opened[0].file_handle.closed, closed.times_closed) == (True, 1)
    assert isinstance(cache.get_decoder(videos.paths[0]), PyAVDecoder)


# By torchcodec.


@pytest.fixture(scope="session")
def torchcodec_is_installed() -> None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec is not to be used here: {type(error).__name__}: {str(error).splitlines()[0]}")


@pytest.mark.usefixtures("torchcodec_is_installed")
def test_another_backend_is_another_decoder_of_the_same_frames(videos: Videos) -> None:
    path = videos.paths[0]
    for own, other in (("pyav", "torchcodec"), ("torchcodec", "pyav")):
        cache = VideoDecoderCache(4, None, own)  # type: ignore[arg-type]
        mine, theirs = cache.get_decoder(path), cache.get_decoder(path, backend=other)  # type: ignore[arg-type]
        assert type(mine) is not type(theirs)
        assert videos.show(0, mine[:])
        assert videos.show(0, theirs[:])
        assert videos.show(0, theirs.get_frames_at([5, 1, 5]).data, [5, 1, 5])
        keys = list(cache._cache)
        assert (keys[0], len(keys)) == (str(path), 2)
        cache.drop(lambda key: key == str(path))
        assert (path in cache, open_among(videos)) == (False, [0])
        cache.clear()
        assert open_among(videos) == []
        with pytest.raises(ClosedError):
            theirs.get_frame_at(0)


@pytest.mark.usefixtures("torchcodec_is_installed")
def test_decoders_of_torchcodec_are_leased_evicted_and_collected(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=1, backend="torchcodec")
    with cache.lease(videos.paths[0]) as decoder:
        cache.get_decoder(videos.paths[1])
        assert open_among(videos) == [0, 1]
        assert videos.show(0, decoder[:])
    assert open_among(videos) == [1]
    watched = [weakref.ref(cache.get_decoder(videos.paths[1])), weakref.ref(decoder)]
    gc.disable()
    try:
        del cache, decoder
        assert ([ref() for ref in watched], open_among(videos)) == ([None, None], [])
    finally:
        gc.enable()


@pytest.mark.usefixtures("torchcodec_is_installed")
def test_what_torchcodec_does_not_open_leaves_nothing_open(
    cache: VideoDecoderCache,
    videos: Videos,
    own_video: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from millpond._datasets.decoders import torchcodec_decoder

    def refuse(*_: Any, **__: Any) -> Any:
        assert descriptors_of(own_video) == 1
        raise RuntimeError("no such stream")

    monkeypatch.setattr(torchcodec_decoder, "VideoDecoder", refuse)
    with pytest.raises(CorruptMedia, match=r"own\.mp4' does not open with torchcodec: no such stream"):
        cache.get_decoder(own_video, backend="torchcodec")
    assert (descriptors_of(own_video), len(cache), cache._opening) == (0, 0, {})
    assert videos.show(0, cache.get_decoder(own_video)[:])


def test_a_backend_that_is_not_installed_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedFormat, match="not installed: pip install torchcodec, or take 'pyav'"):
        VideoDecoderCache(backend="torchcodec")
    with pytest.raises(UnsupportedFormat):
        VideoDecoderCache().get_decoder("a.mp4", backend="torchcodec")
