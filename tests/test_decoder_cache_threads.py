"""VideoDecoderCache among threads, in forked children and in new processes."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import media_zoo as zoo
from millpond import ClosedError, CorruptMedia, ObjectMissing, VideoDecoderCache
from millpond._datasets.decoders import cache as cache_module
from millpond._datasets.decoders import opening, pyav_decoder
from millpond._datasets.decoders.cache import default_cache
from millpond._datasets.decoders.opening import Entry
from open_videos import (
    Videos,
    as_shown,
    descriptors_of,
    no_video,
    open_among,
    waits_in,
)
from programs import forked

pytestmark = pytest.mark.usefixtures("torch_is_imported")

THREADS = 8

# The child takes no lock of the parent's: that is what these tests are about.
_FORKS_AMONG_THREADS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Gate:
    """Where a thread of a test stops until it is let on."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def stop_here(self) -> None:
        self._reached.set()
        assert self._open.wait(60)

    def await_thread(self) -> None:
        assert self._reached.wait(60)

    def let_on(self) -> None:
        self._open.set()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """The thread stands there for as long as the block."""
        self.await_thread()
        try:
            yield
        finally:
            self.let_on()


@contextmanager
def in_thread(work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Runs it beside the block, and waits for its end."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(work)


def at_once(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """What `work(k)` gives in each of several threads that begin together; an error in the place of a result."""
    barrier = threading.Barrier(threads)

    def run(k: int) -> Any:
        barrier.wait(60)
        try:
            return work(k)
        except Exception as error:  # noqa: BLE001 - what it is the test will see
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def stopping_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, path: Path, gate: Gate) -> list[str]:
    """Have a function wait at a gate the first time that it is called for a path; all paths that it was called for."""
    function, paths = getattr(owner, name), []

    def gated(first: Any, *arguments: Any, **options: Any) -> Any:
        source = str(getattr(first, "source", getattr(first, "path", first)))
        paths.append(source)
        if source in (str(path), repr(str(path))) and paths.count(source) == 1:
            gate.stop_here()
        return function(first, *arguments, **options)

    monkeypatch.setattr(owner, name, gated)
    return paths


# Opening.


def test_threads_that_miss_one_video_open_it_once(
    videos: Videos,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, path, gate = VideoDecoderCache(), videos.paths[0], Gate()
    opened = stopping_at(monkeypatch, cache_module, "open_decoder", path, gate)
    with ThreadPoolExecutor(THREADS) as threads:
        waiting = [threads.submit(cache.get_decoder, path) for _ in range(THREADS)]
        gate.await_thread()
        gate.let_on()
        decoders = [one.result(60) for one in waiting]
    assert len(opened) == 1
    assert len(set(map(id, decoders))) == 1
    told = cache.statistics()
    assert (told.hits, told.misses, told.open, open_among(videos)) == (THREADS - 1, 1, 1, [0])
    cache.clear()


def test_of_a_video_that_does_not_open_each_thread_has_an_error_of_its_own() -> None:
    cache, gate = VideoDecoderCache(), Gate()
    tries = []

    def fail() -> Entry:
        tries.append(1)
        gate.stop_here()
        try:
            raise OSError(5, "the disk", "x")
        except OSError as cause:
            error = CorruptMedia("it does not open", path="x")
            error.add_note("a note")
            raise error from cause

    def ask() -> Any:
        try:
            with cache.lease_entry("x", fail):
                raise AssertionError
        except CorruptMedia as error:
            return error

    threads = [_Asking(ask) for _ in range(THREADS)]
    assert sum(thread.opens for thread in threads) == 1
    gate.let_on()
    errors = [thread.result() for thread in threads]
    assert len(tries) == 1
    assert len(set(map(id, errors))) == THREADS
    for error in errors:
        assert (type(error), str(error), error.path, error.__notes__) == (
            CorruptMedia,
            "it does not open",
            "x",
            ["a note"],
        )
        assert isinstance(error.__cause__, OSError)
    assert (cache.statistics().misses, cache.statistics().hits, cache._opening) == (1, 0, {})


class _Asking(threading.Thread):
    """A thread that says whether it is the one that opens."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        super().__init__()
        self._ask, self._found = ask, None
        self.start()

    @property
    def opens(self) -> bool:
        """Known when it opens, or waits for the one that does."""
        while True:
            frame, names = sys._current_frames().get(self.ident or 0), []
            while frame is not None:
                names.append(frame.f_code.co_name)
                frame = frame.f_back
            if "stop_here" in names or "exception" in names:
                return "stop_here" in names
            os.sched_yield()

    def run(self) -> None:
        self._found = self._ask()

    def result(self) -> Any:
        self.join(60)
        return self._found


class _Odd(Exception):
    """It is made of other arguments than it keeps, so that it cannot be copied."""

    def __init__(self, first: int, *, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.first = first


def test_an_error_that_cannot_be_copied_reaches_all_threads() -> None:
    cache, gate = VideoDecoderCache(), Gate()

    def fail() -> Entry:
        gate.stop_here()
        raise _Odd(1, second=2)

    def ask() -> None:
        with cache.lease_entry("x", fail):
            raise AssertionError

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask)
        gate.await_thread()
        second = threads.submit(ask)
        gate.let_on()
        for future in (first, second):
            with pytest.raises(_Odd, match="1 and 2") as caught:
                future.result(60)
            assert caught.value.first == 1


def test_an_error_that_threads_waited_for_is_no_cycle() -> None:
    cache, gate = VideoDecoderCache(), Gate()

    def fail() -> Entry:
        gate.stop_here()
        raise ObjectMissing("not there")

    def ask() -> Any:
        try:
            with cache.lease_entry("x", fail):
                raise AssertionError
        except ObjectMissing as error:
            return weakref.ref(error)

    gc.collect()
    gc.disable()
    try:
        threads = [_Asking(ask) for _ in range(3)]
        assert sum(thread.opens for thread in threads) == 1
        gate.let_on()
        assert [thread.result()() for thread in threads] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_of_the_thread_that_opens_leaves_the_others_to_open(interrupt: type[BaseException]) -> None:
    cache, gate = VideoDecoderCache(), Gate()

    def interrupted() -> Entry:
        gate.stop_here()
        raise interrupt

    def ask(open_it: Callable[[], Entry]) -> Any:
        with cache.lease_entry("x", open_it) as entry:
            return entry

    ends: list[BaseException] = []

    def first() -> None:
        try:
            ask(interrupted)
        except BaseException as error:  # noqa: BLE001 - it is what is looked at
            ends.append(error)

    with in_thread(first):
        gate.await_thread()
        with ThreadPoolExecutor(3) as threads:
            others = [threads.submit(ask, no_video) for _ in range(3)]
            gate.let_on()
            found = [other.result(60) for other in others]
    assert [type(end) for end in ends] == [interrupt]
    assert len(set(map(id, found))) == 1
    assert (cache.statistics().misses, cache.statistics().hits, cache._opening) == (2, 2, {})
    cache.clear()


def test_whoever_waits_for_another_thread_can_be_interrupted() -> None:
    cache, gate = VideoDecoderCache(), Gate()

    def slowly() -> Entry:
        gate.stop_here()
        return no_video()

    def ask() -> None:
        with cache.lease_entry("x", slowly):
            pass

    main = threading.main_thread()

    def interrupt() -> None:
        waits_in(main, "exception")
        signal.pthread_kill(main.ident or 0, signal.SIGINT)

    with in_thread(ask) as opened:
        with gate.holding():
            with in_thread(interrupt), pytest.raises(KeyboardInterrupt):
                ask()
        opened.result(60)
    assert (cache.statistics().misses, cache.statistics().hits, len(cache)) == (1, 0, 1)
    cache.clear()


def test_other_videos_are_not_held_up_by_one_that_opens_slowly(
    videos: Videos,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, gate = VideoDecoderCache(max_size=2), Gate()
    cache.get_decoder(videos.paths[1])
    stopping_at(monkeypatch, cache_module, "open_decoder", videos.paths[0], gate)
    with in_thread(lambda: cache.get_decoder(videos.paths[0])) as slow:
        with gate.holding():
            for n in (1, 2, 3):
                assert videos.show(n, cache.get_decoder(videos.paths[n])[:])
            assert (videos.paths[0] in cache, cache.size(), cache.statistics().misses) == (False, 2, 4)
            cache.clear()
        assert videos.show(0, slow.result(60)[:])
    assert [Path(key).name for key in map(str, cache._cache)] == ["v00.mp4"]
    cache.clear()


def test_one_that_is_evicted_before_whoever_waited_comes_to_it_is_opened_again() -> None:
    cache, gate = VideoDecoderCache(max_size=1), Gate()
    opened: list[Entry] = []

    def slowly() -> Entry:
        if not opened:
            gate.stop_here()
        opened.append(no_video())
        return opened[-1]

    def first() -> None:
        with cache.lease_entry("x", slowly):
            pass
        cache.clear()

    def use() -> bool:
        with cache.lease_entry("x", slowly) as entry:
            return not entry.file_handle.closed

    with in_thread(first) as begun:
        gate.await_thread()
        with ThreadPoolExecutor(4) as threads:
            uses = [threads.submit(use) for _ in range(40)]
            gate.let_on()
            assert all(one.result(60) for one in uses)
        begun.result(60)
    cache.clear()
    closed: list[Any] = [entry.file_handle.contents for entry in opened]
    assert [contents.times_closed for contents in closed] == [1] * len(opened)


# Decoding.


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_ts"])
@pytest.mark.parametrize("how", ["evicted", "cleared", "dropped"])
def test_a_decode_under_way_ends_well_and_then_closes(
    videos: Videos,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    how: str,
) -> None:
    cache, path, gate = VideoDecoderCache(max_size=1), zoo.clip_path(name), Gate()
    decoder = cache.get_decoder(path)
    handle = cache._cache[str(path)][1]
    stopping_at(monkeypatch, pyav_decoder, "decode_frames", path, gate)
    with in_thread(lambda: decoder.get_frames_at([7, 30, 2])) as decoding:
        with gate.holding():
            if how == "evicted":
                cache.get_decoder(videos.paths[1])
            elif how == "cleared":
                cache.clear()
            else:
                cache.drop(lambda key: True)
            assert path not in cache
            assert (handle.closed, descriptors_of(path)) == (False, 1)
            assert cache.statistics().open == 1 + (how == "evicted")
        reference = zoo.clip_reference(name)
        assert np.array_equal(as_shown(decoding.result(60).data), [reference[k] for k in (7, 30, 2)])
    assert (handle.closed, descriptors_of(path)) == (True, 0)
    with pytest.raises(ClosedError):
        decoder.get_frame_at(0)
    cache.clear()


def test_threads_share_a_cache_that_is_too_small(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=3)

    def work(k: int) -> int:
        order = random.Random(k)
        for step in range(120):
            n, frames = order.randrange(20), order.choices(range(8), k=order.randrange(1, 4))
            size = order.choice([None, None, (40, 52)])
            with cache.lease(videos.paths[n], image_size=size) as decoder:
                data = decoder.get_frames_at(frames).data
            assert videos.show(n, data, frames) if size is None else tuple(data.shape[2:]) == size
            if step % 50 == 49:
                cache.clear()
            assert cache.size() <= 3
        return step

    assert at_once(work) == [119] * THREADS
    told = cache.statistics()
    assert told.hits + told.misses == THREADS * 120
    assert told.open == cache.size() == len(open_among(videos)) <= 3
    assert cache._opening == {}
    cache.clear()
    assert (open_among(videos), cache.statistics().open, cache.statistics().nbytes) == ([], 0, 0)


def test_without_a_lease_a_decoder_gives_the_right_pictures_or_says_that_it_is_closed(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=2)

    def work(k: int) -> bool:
        order = random.Random(k)
        for _ in range(60):
            n = order.randrange(20)
            decoder = cache.get_decoder(videos.paths[n])
            try:
                assert videos.show(n, decoder[2:5], (2, 3, 4))
            except ClosedError:
                continue
        return True

    assert at_once(work) == [True] * THREADS
    assert len(open_among(videos)) == 2
    cache.clear()


# Forked.


def test_a_forked_child_starts_empty_and_the_parent_goes_on(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=3)
    decoders = [cache.get_decoder(path) for path in videos.paths[:3]]
    ts = cache.get_decoder(zoo.clip_path("h264_ts"))
    ts.get_frame_at(0)

    def child() -> bytes:
        assert (open_among(videos), descriptors_of(zoo.clip_path("h264_ts"))) == ([], 0)
        assert (len(cache), cache.max_size, videos.paths[2] in cache) == (0, 3, False)
        told = cache.statistics()
        assert (told.hits, told.misses, told.evictions, told.open, told.nbytes) == (0, 0, 0, 0, 0)
        with pytest.raises(ClosedError, match="forked"):
            decoders[2].get_frame_at(0)
        for n in (0, 2, 4, 6):
            assert videos.show(n, cache.get_decoder(videos.paths[n])[:])
        assert open_among(videos) == [2, 4, 6]
        cache.clear()
        assert open_among(videos) == []
        return b"done"

    before = cache.statistics()
    with forked(child) as result:
        assert result() == b"done"
    assert cache.statistics() == before
    assert open_among(videos) == [1, 2]
    assert videos.show(2, decoders[2][:])
    assert cache.get_decoder(videos.paths[2]) is decoders[2]
    assert np.array_equal(as_shown(ts[1:3]), zoo.clip_reference("h264_ts")[1:3])
    cache.clear()


def test_a_child_that_is_forked_within_a_lease_may_leave_it(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=1)
    with cache.lease(zoo.clip_path("h264_ts")) as decoder:
        decoder.get_frame_at(3)
        cache.get_decoder(videos.paths[0])  # so that the lease is the last use

        def child() -> bytes:
            handle: Any = decoder._handle
            handle.end_use()
            assert open_among(videos) == []
            return b"done"

        with forked(child) as result:
            assert result() == b"done"
        assert np.array_equal(as_shown(decoder[3:5]), zoo.clip_reference("h264_ts")[3:5])
    assert descriptors_of(zoo.clip_path("h264_ts")) == 0
    cache.clear()


@_FORKS_AMONG_THREADS
@pytest.mark.parametrize(
    ("owner", "name"), [(opening, "load_sample_table"), (cache_module, "open_decoder"), (opening, "PyAVDecoder")]
)
def test_a_fork_while_another_thread_opens(
    videos: Videos,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
) -> None:
    cache, path, gate = VideoDecoderCache(), videos.paths[0], Gate()
    function = getattr(owner, name)
    calls: list[int] = []

    def gated(*arguments: Any, **options: Any) -> Any:
        calls.append(os.getpid())
        if len(calls) == 1:
            gate.stop_here()
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, gated)

    def child() -> bytes:
        assert open_among(videos) == []
        assert videos.show(0, cache.get_decoder(path)[:])
        assert open_among(videos) == [0]
        return b"done"

    with in_thread(lambda: cache.get_decoder(path)) as opened:
        with gate.holding():
            with forked(child) as result:
                assert result() == b"done"
        assert videos.show(0, opened.result(60)[:])
    assert open_among(videos) == [0]
    cache.clear()


@_FORKS_AMONG_THREADS
def test_a_fork_while_another_thread_holds_every_lock(videos: Videos) -> None:
    cache, gate = VideoDecoderCache(), Gate()
    with cache.lease(videos.paths[0]) as decoder:
        handle: Any = decoder._handle

        def hold() -> None:
            with cache._lock, handle._lock, cache_module._default_lock:
                gate.stop_here()

        def child() -> bytes:
            handle.end_use()
            assert videos.show(0, cache.get_decoder(videos.paths[0])[:])
            assert videos.show(1, default_cache().get_decoder(videos.paths[1])[:])
            return b"done"

        with in_thread(hold):
            with gate.holding():
                with forked(child) as result:
                    assert result() == b"done"
        assert videos.show(0, decoder[:])
    cache.clear()


@_FORKS_AMONG_THREADS
@pytest.mark.parametrize("name", ["h264_b_frames", "h264_ts"])
def test_a_fork_while_another_thread_decodes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    cache, path, gate = VideoDecoderCache(), zoo.clip_path(name), Gate()
    decoder, reference = cache.get_decoder(path), zoo.clip_reference(name)
    decoder.get_frame_at(0)
    stopping_at(monkeypatch, pyav_decoder, "decode_frames", path, gate)

    def child() -> bytes:
        with pytest.raises(ClosedError):
            decoder.get_frame_at(1)
        assert np.array_equal(as_shown(cache.get_decoder(path)[3:6]), reference[3:6])
        return b"done"

    with in_thread(lambda: decoder.get_frames_at([9, 4])) as decoding:
        with gate.holding():
            with forked(child) as result:
                assert result() == b"done"
        assert np.array_equal(as_shown(decoding.result(60).data), [reference[9], reference[4]])
    cache.clear()


@_FORKS_AMONG_THREADS
def test_forks_amid_eight_threads(videos: Videos) -> None:
    cache, done = VideoDecoderCache(max_size=2), threading.Event()

    def work(k: int) -> None:
        order = random.Random(k)
        while not done.is_set():
            n = order.randrange(20)
            with cache.lease(videos.paths[n]) as decoder:
                assert videos.show(n, decoder[1:3], (1, 2))

    def child() -> bytes:
        assert len(cache) == 0
        for n in range(4):
            assert videos.show(n, cache.get_decoder(videos.paths[n])[:])
        return b"done"

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(work, k) for k in range(4)]
        try:
            for _ in range(12):
                with forked(child) as result:
                    assert result() == b"done"
        finally:
            done.set()
        for one in running:
            one.result(60)
    cache.clear()
    assert open_among(videos) == []


def test_the_childs_default_is_empty_and_its_own(videos: Videos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_default", None)
    cache = default_cache()
    cache.get_decoder(videos.paths[0])

    def child() -> bytes:
        assert (len(default_cache()), open_among(videos)) == (0, [])
        assert videos.show(0, default_cache().get_decoder(videos.paths[0])[:])
        return b"done"

    with forked(child) as result:
        assert result() == b"done"
    assert (len(cache), open_among(videos)) == (1, [0])
    cache.clear()


def test_a_grandchild_starts_empty_too(videos: Videos) -> None:
    cache = VideoDecoderCache()
    cache.get_decoder(videos.paths[0])

    def grandchild() -> bytes:
        assert (len(cache), open_among(videos)) == (0, [])
        assert videos.show(2, cache.get_decoder(videos.paths[2])[:])
        return b"done"

    def child() -> bytes:
        cache.get_decoder(videos.paths[1])
        with forked(grandchild) as result:
            assert result() == b"done"
        assert open_among(videos) == [1]
        return b"done"

    with forked(child) as result:
        assert result() == b"done"
    cache.clear()


# Other processes.


def shape_in_process(cache: VideoDecoderCache, path: str) -> tuple[int, int, int]:
    before = len(cache)
    return before, len(cache.get_decoder(path)), cache.max_size or 0


def test_a_cache_goes_to_a_spawned_process(videos: Videos) -> None:
    cache = VideoDecoderCache(max_size=7)
    cache.get_decoder(videos.paths[0])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(shape_in_process, (cache, str(videos.paths[0])))
        pool.close()
        pool.join()
    assert found == (0, 8, 7)
    cache.clear()


def test_a_decoder_does_not_travel_and_says_so(videos: Videos) -> None:
    cache = VideoDecoderCache()
    decoder = cache.get_decoder(videos.paths[0])
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"v00\.mp4' is open in this process: send its path, or the cache"):
            copied(decoder)
    cache.clear()
