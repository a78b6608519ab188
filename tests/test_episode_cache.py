"""The cache of episodes' bytes: what it promises to users, with fetches that tests hold and let go."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import random
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from millpond._datasets.episode_cache import EpisodeByteCache
from millpond.errors import ArenaFull, ClosedError, CorruptMedia, EpisodeTooLarge, UsageError

CAMERAS = ["cam0", "cam1"]
PATIENCE_SECONDS = 60.0


class FakeIndex:
    """Knows nothing; the sizes that it tells are those of `SIZE`, if a test does not say otherwise."""

    def __init__(self, told: Callable[[int, str], int] = lambda episode, camera: 32) -> None:
        self.video_keys = CAMERAS
        self._told = told

    def lookup(self, episode: int, camera: str) -> tuple[int, int, int]:
        return episode, 0, self._told(episode, camera)

    def file_lookup(self, file_id: int) -> tuple[str, int, int]:
        return f"{file_id}.mp4", 1000, 0

    def custom_frame_mappings(self, episode: int, camera: str) -> None:
        return None


class FakeDecoder:
    def __init__(self, payload: Any) -> None:
        self.payload = payload


class FakeCache(EpisodeByteCache):
    """Each fetch brings as much as the index tells, and waits for the gate, which is open unless a test closes it."""

    gate = threading.Event()
    gate.set()

    def _fetch_manifest_slice(self, episode: int, camera: str) -> tuple[Any, int, Any]:
        assert self.gate.wait(PATIENCE_SECONDS)
        payload = f"payload-{episode}-{camera}"
        return payload, self.index.lookup(episode, camera)[2], self._decoder_from_payload(payload, episode, camera)

    def _decoder_from_payload(self, payload: Any, episode: int, camera: str) -> Any:
        return FakeDecoder(payload)


class TextCache(FakeCache):
    """Its decoders are text, which cannot be referenced weakly: no leases."""

    def _decoder_from_payload(self, payload: Any, episode: int, camera: str) -> Any:
        return payload.replace("payload", "decoder")


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    """Make caches that are closed in the end."""
    made: list[EpisodeByteCache] = []

    def make_cache(
        max_bytes: int = 10_000, kind: type[EpisodeByteCache] = FakeCache, index: Any = None, **options: Any
    ) -> Any:
        cache = kind(index or FakeIndex(), max_bytes=max_bytes, data_root="nowhere", **options)
        made.append(cache)
        return cache

    yield make_cache
    for cache in made:
        cache.close()


def closed_gate(cache: Any) -> threading.Event:
    cache.gate = threading.Event()
    return cache.gate  # type: ignore[no-any-return]


def arrivals_at(cache: Any) -> threading.Semaphore:
    """Goes up with each call that has to wait, once it will be woken."""
    arrivals, join = threading.Semaphore(0), cache._loads.bell.join

    def noted() -> Any:
        waiter = join()
        arrivals.release()
        return waiter

    cache._loads.bell.join = noted
    return arrivals


@pytest.mark.parametrize("is_submitted", [True, False])
def test_where_no_thread_can_be_begun_whoever_waits_is_told(
    is_submitted: bool, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    cache = make()
    monkeypatch.setattr("millpond._datasets.episode_loads.threading.Thread.start", start)
    if is_submitted:
        cache.submit_prefetch(0)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        cache.get_decoder(0, "cam0")
    monkeypatch.undo()
    cache.submit_prefetch(0)
    cache.ensure_ready(0)


def test_cameras_of_one_episode_and_episodes_are_fetched_at_the_same_time(make: Callable[..., Any]) -> None:
    cache = make(max_prefetch_workers=8)
    all_there = threading.Barrier(8)

    def fetch(episode: int, camera: str) -> tuple[Any, int, Any]:
        all_there.wait(PATIENCE_SECONDS)  # one after the other they would wait for ever
        return "payload", 32, f"decoder-{episode}-{camera}"

    cache._fetch_manifest_slice = fetch
    for episode in range(4):
        cache.submit_prefetch(episode)
    for episode in range(4):
        cache.ensure_ready(episode)
    assert cache.get_decoder(2, "cam1") == "decoder-2-cam1"


def test_no_more_fetches_run_than_there_are_workers(make: Callable[..., Any]) -> None:
    cache = make(max_prefetch_workers=3)
    running, most, lock = [0], [0], threading.Lock()
    gate = closed_gate(cache)

    def fetch(episode: int, camera: str) -> tuple[Any, int, Any]:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            if running[0] == 3:
                gate.set()
        assert gate.wait(PATIENCE_SECONDS)
        with lock:
            running[0] -= 1
        return "payload", 32, None

    cache._fetch_manifest_slice = fetch
    for episode in range(10):
        cache.submit_prefetch(episode)
    for episode in range(10):
        cache.ensure_ready(episode)
    assert most == [3]


def test_what_is_preset_is_a_hit_and_its_decoder_is_built_outside_of_the_lock(make: Callable[..., Any]) -> None:
    class Asking(TextCache):
        def _decoder_from_payload(self, payload: Any, episode: int, camera: str) -> Any:
            with ThreadPoolExecutor(1) as other:  # would wait for ever for a lock that this thread holds
                assert other.submit(self.is_ready, 0).result(PATIENCE_SECONDS) is False
            return super()._decoder_from_payload(payload, episode, camera)

    cache = make(kind=Asking)
    cache._cache[(0, "cam0")] = ("payload-0-cam0", 32)
    cache._bytes_used = 32
    assert cache._get_or_build_decoder(0, "cam0") == "decoder-0-cam0"
    assert cache.stats.hits == 1
    assert (cache.stats.misses, cache._bytes_used) == (0, 32)


def test_an_episode_that_was_never_submitted_is_a_key_error(make: Callable[..., Any]) -> None:
    cache = make()
    with pytest.raises(KeyError, match="episode 99 was never submitted"):
        cache.ensure_ready(99)
    assert not cache.is_ready(99)
    with pytest.raises(KeyError, match="no camera 'cam7'; the index has cam0, cam1"):
        cache.get_decoder(0, "cam7")


def test_a_decoder_that_nobody_submitted_is_fetched_now(make: Callable[..., Any]) -> None:
    cache = make(kind=TextCache)
    assert cache.get_decoder(3, "cam1") == "decoder-3-cam1"
    assert (cache.stats.misses, cache.stats.hits, cache.stats.bytes_fetched) == (1, 0, 32)
    assert cache.get_decoder(3, "cam1") == "decoder-3-cam1"
    assert (cache.stats.misses, cache.stats.hits) == (1, 1)


def test_the_first_decoder_is_the_one_that_came_with_the_bytes_and_every_call_gives_another(
    make: Callable[..., Any],
) -> None:
    cache, first = make(), FakeDecoder("payload")
    cache._fetch_manifest_slice = lambda episode, camera: ("payload", 32, first)
    assert cache.get_decoder(0, "cam0") is first
    assert cache.get_decoder(0, "cam0") is not first


def test_statistics_count(make: Callable[..., Any]) -> None:
    cache = make(kind=TextCache)
    gate, arrivals = closed_gate(cache), arrivals_at(cache)
    for episode in (0, 0, 1):
        cache.submit_prefetch(episode)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(cache.ensure_ready, 0)
        assert arrivals.acquire(timeout=PATIENCE_SECONDS)
        gate.set()
        waiting.result(PATIENCE_SECONDS)
    assert cache.stats.prefetch_waits == 1
    cache.ensure_ready(1)
    waits = cache.stats.prefetch_waits
    assert waits in (1, 2)  # it may have come meanwhile
    cache.ensure_ready(0)
    stats = cache.stats
    assert (stats.prefetch_submitted, stats.misses, stats.bytes_fetched, stats.bytes_used) == (2, 4, 128, 128)
    assert stats.prefetch_waits == waits
    assert stats.peak_bytes == 128


# Errors.


def test_an_error_comes_out_of_both_calls_until_it_is_submitted_again(make: Callable[..., Any]) -> None:
    cache = make(max_prefetch_workers=2)

    def boom(episode: int, camera: str) -> Any:
        raise RuntimeError("fetch failed")

    cache._fetch_manifest_slice = boom
    cache.submit_prefetch(0)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="fetch failed"):
            cache.ensure_ready(0)
        with pytest.raises(RuntimeError, match="fetch failed"):
            cache.get_decoder(0, "cam0")
    assert (cache.is_ready(0), cache.stats.errors, cache.stats.bytes_used) == (False, 2, 0)
    del cache._fetch_manifest_slice
    cache.submit_prefetch(0)
    cache.ensure_ready(0)
    assert cache.get_decoder(0, "cam0").payload == "payload-0-cam0"


def test_only_the_camera_that_failed_fails(make: Callable[..., Any]) -> None:
    cache, fetch = make(), FakeCache._fetch_manifest_slice

    def half(episode: int, camera: str) -> Any:
        if camera == "cam1":
            raise CorruptMedia("torn")
        return fetch(cache, episode, camera)

    cache._fetch_manifest_slice = half
    cache.submit_prefetch(0)
    with pytest.raises(CorruptMedia, match="torn"):
        cache.ensure_ready(0)
    assert cache.get_decoder(0, "cam0").payload == "payload-0-cam0"


def test_an_error_while_a_decoder_is_built_leaves_no_lease(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=32, lease_timeout=0)
    cache._cache[(0, "cam0")] = ("payload", 32)
    cache._bytes_used = 32

    def boom(payload: Any, episode: int, camera: str) -> Any:
        raise ZeroDivisionError

    cache._decoder_from_payload = boom
    with pytest.raises(ZeroDivisionError):
        cache.get_decoder(0, "cam0")
    del cache._decoder_from_payload
    assert cache.get_decoder(1, "cam0").payload == "payload-1-cam0"


def test_a_failed_fetch_that_nobody_submitted_is_tried_anew(make: Callable[..., Any]) -> None:
    cache, tries = make(kind=TextCache), []

    def flaky(episode: int, camera: str) -> Any:
        tries.append(episode)
        if len(tries) == 1:
            raise OSError("reset")
        return "payload", 32, "decoder"

    cache._fetch_manifest_slice = flaky
    with pytest.raises(OSError, match="reset"):
        cache.get_decoder(0, "cam0")
    assert cache.get_decoder(0, "cam0") == "decoder"


def test_an_error_does_not_keep_what_was_fetched_alive(make: Callable[..., Any]) -> None:
    class Bulk:
        pass

    cache, references = make(), []

    def cause() -> None:
        bulk = Bulk()
        references.append(weakref.ref(bulk))
        raise ValueError

    def boom(episode: int, camera: str) -> Any:
        bulk = Bulk()
        references.append(weakref.ref(bulk))
        try:
            cause()
        except ValueError as error:
            raise RuntimeError("late") from error

    cache._fetch_manifest_slice = boom
    cache.submit_prefetch(0)
    with pytest.raises(RuntimeError, match="late"):
        cache.ensure_ready(0)
    assert [reference() for reference in references] == [None] * len(references)


class OfUsers(Exception):
    """Its text is made of another argument than it takes."""

    def __init__(self, episode: int) -> None:
        super().__init__(f"no episode {episode}")
        self.episode = episode


def test_an_error_of_the_users_own_comes_out_as_it_is(make: Callable[..., Any]) -> None:
    cache = make()

    def boom(episode: int, camera: str) -> Any:
        raise OfUsers(episode) from KeyError("why")

    cache._fetch_manifest_slice = boom
    cache.submit_prefetch(7)
    for _ in range(2):
        with pytest.raises(OfUsers, match=r"^no episode 7$") as caught:
            cache.ensure_ready(7)
        assert caught.value.episode == 7
        assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_does_not_keep_the_decoders_of_who_caught_it(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64, lease_timeout=0)
    references = []

    def boom(episode: int, camera: str) -> Any:
        raise RuntimeError("bad episode")

    def step() -> None:
        decoder = cache.get_decoder(0, "cam0")
        references.append(weakref.ref(decoder))
        cache._fetch_manifest_slice = boom
        cache.submit_prefetch(1)
        cache.ensure_ready(1)

    for _ in range(2):  # the error is the cache's, and comes out again
        with pytest.raises(RuntimeError, match="bad episode"):
            step()
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    del cache._fetch_manifest_slice
    cache.submit_prefetch(2)
    cache.ensure_ready(2)


# Room.


@pytest.mark.parametrize("where", ["class", "instance", "subclass"])
def test_whoever_fetches_differently_may_bring_less_than_the_index_tells(
    where: str, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(cache: EpisodeByteCache, episode: int, camera: str) -> tuple[Any, int, Any]:
        return "payload", 32, "decoder"

    kind = EpisodeByteCache
    if where == "class":
        monkeypatch.setattr(EpisodeByteCache, "_fetch_manifest_slice", fetch)
    elif where == "subclass":

        class Mine(EpisodeByteCache):
            _fetch_manifest_slice = fetch

        kind = Mine
    cache = make(max_bytes=100, kind=kind, index=FakeIndex(lambda episode, camera: 5000))
    if where == "instance":
        cache._fetch_manifest_slice = types.MethodType(fetch, cache)
    cache.submit_prefetch(0)
    cache.ensure_ready(0)
    assert (cache.stats.bytes_used, cache.get_decoder(0, "cam1")) == (64, "decoder")


def test_an_episode_larger_than_the_cache_says_so(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=40, kind=TextCache)
    cache.submit_prefetch(0)
    with pytest.raises(EpisodeTooLarge, match=r"episode 0 \(cameras 'cam0', 'cam1'\) takes 64 bytes, more than the 40"):
        cache.ensure_ready(0)
    assert cache.get_decoder(1, "cam0") == "decoder-1-cam0"  # a single camera fits
    with pytest.raises(ValueError, match="more than the 31"):
        make(max_bytes=31).get_decoder(0, "cam0")
    assert issubclass(EpisodeTooLarge, ArenaFull)


def test_what_does_not_fit_waits_for_room_and_is_fetched_when_there_is_some(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64, kind=TextCache)
    cache.submit_prefetch(0)
    cache.submit_prefetch(1)
    cache.ensure_ready(0)
    assert not cache.is_ready(1)
    assert cache.stats.evictions == 0
    for camera in CAMERAS:
        cache.get_decoder(0, camera)  # used, and no lease
    cache.ensure_ready(1)
    assert (cache.is_ready(0), cache.is_ready(1), cache.stats.peak_bytes) == (False, True, 64)


def test_whoever_waits_gets_room_though_all_of_it_was_fetched_ahead(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64, kind=TextCache)
    for episode in range(4):
        cache.submit_prefetch(episode)
    for episode in (3, 1, 0, 2):
        cache.ensure_ready(episode)
        assert [cache.get_decoder(episode, camera) for camera in CAMERAS] == [
            f"decoder-{episode}-{camera}" for camera in CAMERAS
        ]
    assert cache.stats.peak_bytes <= 64


def test_two_who_wait_for_more_than_fits_together_are_served_in_turn(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64, kind=TextCache, max_prefetch_workers=4)
    with ThreadPoolExecutor(8) as others:

        def use(episode: int) -> None:
            for _ in range(20):
                with cache.lease(episode):
                    assert cache.is_ready(episode)

        for done in [others.submit(use, episode) for episode in range(8)]:
            done.result(PATIENCE_SECONDS)
    assert cache.stats.peak_bytes <= 64


def test_what_a_living_decoder_holds_is_never_dropped(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64, lease_timeout=0)
    held = cache.get_decoder(0, "cam0")
    for episode in range(1, 5):
        cache.get_decoder(episode, "cam0")
        assert (0, "cam0") in cache._cache
    other = cache.get_decoder(5, "cam0")
    with pytest.raises(ArenaFull, match=r"64 of 64 bytes are leased.*episode 0 \(camera 'cam0'\) 32") as caught:
        cache.get_decoder(6, "cam0")
    assert sum(caught.value.holders.values()) == 64
    del held, caught
    assert cache.get_decoder(6, "cam0").payload == "payload-6-cam0"
    assert other.payload == "payload-5-cam0"
    assert (0, "cam0") not in cache._cache


def test_the_end_of_a_decoder_lets_others_in_whoever_sees_it(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64)
    cache.submit_prefetch(0)
    cache.ensure_ready(0)
    held = [cache.get_decoder(0, camera) for camera in CAMERAS]
    cache.submit_prefetch(1)
    arrivals = arrivals_at(cache)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(cache.ensure_ready, 1)
        assert arrivals.acquire(timeout=PATIENCE_SECONDS)
        assert not cache.is_ready(1)
        held.clear()
        waiting.result(PATIENCE_SECONDS)
    assert cache.is_ready(1)


def test_a_prefetch_goes_on_when_a_decoder_ends_though_nobody_waits(make: Callable[..., Any]) -> None:
    cache, came = make(max_bytes=64), threading.Event()
    held = [cache.get_decoder(0, camera) for camera in CAMERAS]

    def fetch(episode: int, camera: str) -> Any:
        came.set()
        return "payload", 32, None

    cache._fetch_manifest_slice = fetch
    cache.submit_prefetch(1)
    assert not came.is_set()
    held.clear()
    assert came.wait(PATIENCE_SECONDS)


def test_a_lease_keeps_all_cameras_within_its_block(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64, lease_timeout=0)
    with cache.lease(0):
        assert cache.is_ready(0)
        with pytest.raises(ArenaFull):
            cache.get_decoder(1, "cam0")
    assert cache.get_decoder(1, "cam0").payload == "payload-1-cam0"


def test_an_evicted_episode_that_was_submitted_is_fetched_again(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64, kind=TextCache)
    cache.submit_prefetch(0)
    cache.ensure_ready(0)
    with cache.lease(1):
        assert not cache.is_ready(0)
    cache.ensure_ready(0)
    assert cache.is_ready(0)
    assert cache.stats.prefetch_submitted == 1


def test_bytes_count_as_they_came_not_as_they_were_told(make: Callable[..., Any]) -> None:
    class Less(TextCache):
        def _fetch_manifest_slice(self, episode: int, camera: str) -> tuple[Any, int, Any]:
            return "payload", 32, "decoder"

    for told in (0, 5, 1000):
        cache = make(max_bytes=64, kind=Less, index=FakeIndex(lambda episode, camera, told=told: told))  # type: ignore[misc]
        for episode in range(4):
            cache.submit_prefetch(episode)
        for episode in range(4):
            cache.ensure_ready(episode)
            for camera in CAMERAS:
                cache.get_decoder(episode, camera)
        assert (cache._bytes_used, cache.stats.peak_bytes) == (64, 64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_told_right", [True, False])
def test_many_threads_never_exceed_the_limit(make: Callable[..., Any], seed: int, is_told_right: bool) -> None:
    sizes = random.Random(seed)
    size_of = {(e, c): sizes.randint(1, 60) for e in range(12) for c in CAMERAS}
    told = size_of if is_told_right else {key: sizes.randint(0, 90) for key in size_of}
    cache = make(
        max_bytes=150, max_prefetch_workers=6, index=FakeIndex(lambda e, c: told[e, c]), lease_timeout=PATIENCE_SECONDS
    )
    lock, on_the_way, most = threading.Lock(), [0], [0]
    told_of: list[bool] = []

    def fetch(episode: int, camera: str) -> Any:
        with lock:
            on_the_way[0] += size_of[episode, camera]
            there = sum(num_bytes for _, num_bytes in list(cache._cache.values()))
            most[0] = max(most[0], on_the_way[0] + there)
        if (episode + seed) % 7 == 0 and camera == "cam1":
            with lock:
                on_the_way[0] -= size_of[episode, camera]
            raise RuntimeError(f"no {episode}")
        with lock:
            on_the_way[0] -= size_of[episode, camera]
        return f"payload-{episode}-{camera}", size_of[episode, camera], None

    cache._fetch_manifest_slice = fetch

    def use(number: int) -> None:
        choice = random.Random(1000 * seed + number)
        for _ in range(60):
            episode, how = choice.randrange(12), choice.randrange(4)
            fails = (episode + seed) % 7 == 0
            try:
                if how == 0:
                    cache.submit_prefetch(episode)
                elif how == 1:
                    cache.submit_prefetch(episode)
                    cache.ensure_ready(episode)
                    assert not fails
                elif how == 2:
                    with cache.lease(episode):
                        assert not fails
                        for camera in CAMERAS:
                            assert cache._cache[episode, camera][0] == f"payload-{episode}-{camera}"
                else:
                    decoder = cache.get_decoder(episode, choice.choice(CAMERAS))
                    assert decoder.payload.startswith(f"payload-{episode}")
                    del decoder
            except RuntimeError as error:
                told_of.append(str(error) == f"no {episode}")
            assert cache.stats.bytes_used <= 150

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(use, number) for number in range(8)]:
            done.result()
    assert all(told_of)
    assert cache.stats.peak_bytes <= 150
    assert not is_told_right or most[0] <= 150
    assert cache._bytes_used >= sum(num_bytes for _, num_bytes in cache._cache.values())


# The end.


def test_close_wakes_all_who_wait_and_leaves_no_thread(make: Callable[..., Any]) -> None:
    cache = make(max_bytes=64)
    held = [cache.get_decoder(9, camera) for camera in CAMERAS]
    for episode in range(3):
        cache.submit_prefetch(episode)
    calls: list[Callable[[], Any]] = [
        lambda: cache.ensure_ready(0),
        lambda: cache.get_decoder(1, "cam0"),
        lambda: cache.lease(2).__enter__(),
    ]
    arrivals = arrivals_at(cache)
    with ThreadPoolExecutor(3) as others:
        waiting = [others.submit(call) for call in calls]
        for _ in calls:
            assert arrivals.acquire(timeout=PATIENCE_SECONDS)
        cache.close()
        for one in waiting:
            with pytest.raises(ClosedError, match="closed"):
                one.result(PATIENCE_SECONDS)
    assert not [thread for thread in threading.enumerate() if thread.name == "millpond-episodes"]
    calls += [lambda: cache.submit_prefetch(0), lambda: cache.is_ready(0)]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    assert held[0].payload == "payload-9-cam0"
    cache.close()


def test_close_waits_for_a_fetch_that_is_under_way_and_drops_what_it_brings(make: Callable[..., Any]) -> None:
    cache, begun = make(), threading.Event()
    gate = closed_gate(cache)
    fetch = cache._fetch_manifest_slice

    def noted(episode: int, camera: str) -> Any:
        begun.set()
        return fetch(episode, camera)

    cache._fetch_manifest_slice = noted
    cache.submit_prefetch(0)
    assert begun.wait(PATIENCE_SECONDS)
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(cache.close)
        gate.set()
        closing.result(PATIENCE_SECONDS)
    assert len(cache._cache) == 0


def test_a_cache_that_is_dropped_ends_its_threads(make: Callable[..., Any]) -> None:
    cache = FakeCache(FakeIndex(), 1000)
    cache.submit_prefetch(0)
    cache.ensure_ready(0)
    threads = list(cache._loads._threads)
    reference = weakref.ref(cache)
    del cache
    gc.collect()
    assert reference() is None
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_a_pickled_copy_starts_empty(make: Callable[..., Any]) -> None:
    cache = make(kind=PicklableCache, index=PicklableIndex())
    cache.get_decoder(0, "cam0")
    copy = pickle.loads(pickle.dumps(cache))
    with copy:
        assert (copy.is_ready(0), copy.stats.misses, copy.max_bytes) == (False, 0, 10_000)
        assert copy.get_decoder(0, "cam0") == "decoder"


class PicklableIndex(FakeIndex):
    def __reduce__(self) -> Any:
        return PicklableIndex, ()


class PicklableCache(EpisodeByteCache):
    def _fetch_manifest_slice(self, episode: int, camera: str) -> tuple[Any, int, Any]:
        return "payload", 32, "decoder"

    def _decoder_from_payload(self, payload: Any, episode: int, camera: str) -> Any:
        return "decoder"


def _use_in_child(cache: EpisodeByteCache, answers: Any) -> None:
    try:
        cache.get_decoder(0, "cam0")
    except UsageError as error:
        answers.send(str(error))
    cache.close()
    answers.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_is_told_what_to_do(make: Callable[..., Any]) -> None:
    cache = make(kind=TextCache)
    cache.get_decoder(0, "cam0")
    fork = multiprocessing.get_context("fork")
    receiving, sending = fork.Pipe(duplex=False)
    child = fork.Process(target=_use_in_child, args=(cache, sending))
    child.start()
    sending.close()
    with receiving:
        assert "make a cache in each process, or start processes by spawn" in receiving.recv()
    child.join()
    assert child.exitcode == 0
    child.close()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_bytes": 0}, "max_bytes must be at least 1"),
        ({"max_bytes": "much"}, "is no size"),
        ({"max_prefetch_workers": 0}, "max_prefetch_workers must be at least 1"),
        ({"lease_timeout": -1}, "lease_timeout must not be negative"),
    ],
)
def test_misuse_is_a_value_error(make: Callable[..., Any], options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(**options)
