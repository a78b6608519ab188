"""The index of episodes: from headers alone, kept by versions of files, and it says no more than is true."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import media_zoo as zoo
from millpond._datasets.dataset_files import LocalFiles
from millpond._datasets.episode_cache import EpisodeByteCache
from millpond._datasets.episode_fetcher import Fetcher
from millpond._datasets.episode_index import EpisodeByteIndex
from millpond._datasets.lerobot import LeRobotDataset
from millpond._datasets.remote_files import RemoteFiles
from millpond._media.frames import bytes_of_frames
from millpond._synth import read_pattern
from millpond.errors import (
    ClosedError,
    CorruptMedia,
    DataError,
    FetchError,
    FetchTimeout,
    ObjectMissing,
    UnsupportedFormat,
)
from store_server import StoreServer, refusing, serving_store
from synthesized import FRONT, FRONT_PATH, LENGTHS, WRIST, MakeDataset

WRIST_PATH = FRONT_PATH.replace(FRONT, WRIST)

pytestmark = pytest.mark.usefixtures("torch_is_imported")


@pytest.fixture
def large(synth: MakeDataset) -> Path:
    """Its videos are far larger than their headers."""
    return synth(episodes=4, frames=40, size=(240, 320), codec="h264", gop=1)


@pytest.fixture
def server(large: Path) -> Iterator[StoreServer]:
    with serving_store(large) as serving:
        yield serving


def build(source: Any, tmp_path: Path, **options: Any) -> EpisodeByteIndex:
    return EpisodeByteIndex.build(source, cache_dir=tmp_path / "sidecars", **options)


def require_own_frames(cache: EpisodeByteCache, episodes: Any) -> None:
    """Every picture of every camera says that it is the one that it should be."""
    for episode in episodes:
        cache.submit_prefetch(episode)
    for episode in episodes:
        cache.ensure_ready(episode)
        for number, camera in enumerate(cache.index.video_keys):
            decoder = cache.get_decoder(episode, camera)
            pictures = np.asarray(decoder[:]).transpose(0, 2, 3, 1)
            assert [read_pattern(p) for p in pictures] == [(episode, number, k) for k in range(len(decoder))]
            del decoder


def test_ranges_are_what_decoding_reads_and_spans_hold_them(synth: MakeDataset, tmp_path: Path) -> None:
    root = synth(b_frames=2, audio=True)
    index = build(root, tmp_path)
    assert index.video_keys == (FRONT, WRIST)
    assert index.episodes.tolist() == list(range(5))
    first = 0
    for episode, length in enumerate(LENGTHS):
        frames = index.frames(episode, WRIST)
        assert frames.tolist() == list(range(first, first + length))
        first += length
        ranges, span = index.byte_ranges(episode, WRIST), index.lookup(episode, WRIST)
        assert all(
            any(have.start <= want.start and want.stop <= have.stop for have in ranges)
            for want in bytes_of_frames(index.sample_table(episode, WRIST), frames)
        )
        assert (span.mdat_offset, span.mdat_offset + span.mdat_length) == (ranges[0].start, ranges[-1].stop)
        assert index.num_bytes(episode, WRIST) == sum(map(len, ranges))
        file = index.file_lookup(span.file_id)
        assert file.file_path == WRIST_PATH
        assert file.file_size == (root / WRIST_PATH).stat().st_size
        assert file.header_length <= int(index.sample_table(episode, WRIST).offset.min())


def test_neither_media_nor_tables_of_numbers_are_fetched(server: StoreServer, large: Path, tmp_path: Path) -> None:
    index = build(server.url, tmp_path)
    assert not [path for path in server.counts.by_path if path.startswith("/data/")]
    for path in (FRONT_PATH, WRIST_PATH):
        assert server.counts.bytes_by_path[f"/{path}"] < 20_000 < (large / path).stat().st_size / 5
    assert index.built is not None
    assert (index.built.num_files, index.built.requests) == (2, server.counts.requests)
    server.forget()
    with EpisodeByteCache(index, max_bytes="10MB") as cache:
        require_own_frames(cache, range(4))
        assert cache.stats.bytes_fetched == server.counts.bytes_sent
    assert server.counts.requests == 8  # a range of each episode and camera


def test_building_again_finds_the_sample_tables(
    server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(server.url, tmp_path)
    monkeypatch.setattr("millpond._media.index.build_header_table", None)
    monkeypatch.setattr("millpond._media.index.build_sample_table", None)
    assert len(build(server.url, tmp_path)) == 4


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_faststart", "h264_fragmented", "h264_co64"])
def test_headers_are_found_wherever_they_are(tmp_path: Path, name: str) -> None:
    path = zoo.clip_path(name)
    with serving_store(zoo.folder()) as server:
        index = build(f"{server.url}/{path.name}", tmp_path)
        assert index.byte_ranges(0, "video") == build(path, tmp_path).byte_ranges(0, "video")
        assert len(index.frames(0, "video")) == zoo.FRAMES
        assert index.file_lookup(0).file_path == f"{server.url}/{path.name}"


def test_a_file_that_must_be_read_as_a_whole_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = zoo.clip_path("h264_mkv")
    with serving_store(zoo.folder()) as server, caplog.at_level(logging.WARNING, "millpond"):
        index = build(f"{server.url}/{path.name}", tmp_path)
        assert f"all {path.stat().st_size} bytes of '{server.url}/h264_mkv.mkv' are fetched" in caplog.text
        assert index.built is not None
        assert index.built.bytes_fetched >= path.stat().st_size


def test_files_that_a_query_names_have_sample_tables_of_their_own(tmp_path: Path) -> None:
    """Also where path, size and time say nothing: the query must not be told, and is known by a digest."""
    folder, names = tmp_path / "store", ["h264_b_frames", "h264_open_gop"]
    folder.mkdir()
    clips = [zoo.clip_path(name).read_bytes() for name in names]
    size = max(map(len, clips)) + 16
    for number, clip in enumerate(clips):
        padding = size - len(clip)
        (folder / f"get.mp4?id={number}").write_bytes(clip + padding.to_bytes(4) + b"free" + bytes(padding - 8))
        os.utime(folder / f"get.mp4?id={number}", ns=(10**18, 10**18))
    with serving_store(folder, queries=True, etags="off") as server:
        urls = [f"{server.url}/get.mp4?id={number}" for number in range(len(names))]
        for _ in range(2):
            index = build(urls, tmp_path)
            with EpisodeByteCache(index, max_bytes="10MB") as cache:
                for episode, name in enumerate(names):
                    picture = np.asarray(cache.get_decoder(episode, "video")[5]).transpose(1, 2, 0)
                    assert np.array_equal(picture, zoo.clip_reference(name)[5])


class Gathering:
    """In place of a method: how many calls run at once, and, if so many are awaited, that they come together."""

    def __init__(self, method: Callable[..., Any], awaited: int = 1) -> None:
        self.most_at_once = self.calls = 0
        self._method, self._barrier = method, threading.Barrier(awaited)
        self._now, self._lock = 0, threading.Lock()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        with self._lock:
            self._now += 1
            self.calls += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._barrier.wait(60)
            return self._method(*arguments, **named)
        finally:
            with self._lock:
                self._now -= 1


FOUR = ["h264_b_frames", "h264_faststart", "h264_fragmented", "h264_co64"]


@pytest.mark.parametrize("files", [LocalFiles, RemoteFiles])
@pytest.mark.parametrize(("workers", "at_once"), [(None, 4), (2, 2), (1, 1)])
def test_files_are_read_so_many_at_a_time(
    workers: int | None, at_once: int, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [zoo.clip_path(name) for name in FOUR]
    gathering = Gathering(files.load_table, at_once)
    monkeypatch.setattr(files, "load_table", lambda *arguments, **named: gathering(*arguments, **named))
    with serving_store(zoo.folder()) as server:
        sources = paths if files is LocalFiles else [f"{server.url}/{path.name}" for path in paths]
        assert len(build(sources, tmp_path, workers=workers)) == 4
    assert (gathering.calls, gathering.most_at_once) == (4, at_once)


@pytest.mark.parametrize(("workers", "at_once"), [(None, 2), (2, 2), (1, 1)])
def test_files_of_a_dataset_are_read_so_many_at_a_time(
    workers: int | None, at_once: int, synth: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathering = Gathering(LocalFiles.load_table, at_once)
    monkeypatch.setattr(LocalFiles, "load_table", lambda *arguments, **named: gathering(*arguments, **named))
    assert len(build(synth(), tmp_path, workers=workers)) == 5
    assert (gathering.calls, gathering.most_at_once) == (2, at_once)


def test_several_files_are_episodes_of_one_camera(tmp_path: Path) -> None:
    names = ["h264_b_frames", "h264_mkv", "mpeg4_mp4", "h264_avi"]
    index = build([zoo.clip_path(name) for name in names], tmp_path)
    assert (index.video_keys, index.root, len(index)) == (("video",), "", 4)
    assert repr(index) == "EpisodeByteIndex(4 files: 4 episodes, 1 camera, 4 files)"
    with EpisodeByteCache(index, max_bytes="10MB") as cache:
        for episode, name in enumerate(names):
            picture = np.asarray(cache.get_decoder(episode, "video")[7]).transpose(1, 2, 0)
            assert np.array_equal(picture, zoo.clip_reference(name)[7])


def test_cameras_and_episodes_may_be_chosen(synth: MakeDataset, tmp_path: Path) -> None:
    root, done = synth(), []
    index = build(root, tmp_path, cameras=[WRIST], episodes=[4, 1], progress=lambda *counts: done.append(counts))
    assert (index.video_keys, index.episodes.tolist(), index.num_files) == ((WRIST,), [1, 4], 1)
    assert done == [(1, 1)]
    with pytest.raises(KeyError, match="no episode 0 in the index, which has 2, 1 to 4"):
        index.lookup(0, WRIST)
    with pytest.raises(KeyError, match=f"no camera '{FRONT}' in the index; it has {WRIST}"):
        index.byte_ranges(1, FRONT)
    with pytest.raises(IndexError):
        index.file_lookup(1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"cameras": ["left"]}, "cameras .'left'. are not in"),
        ({"cameras": ["image_0"]}, "pictures in parquet"),
        ({"episodes": [9]}, "episodes .9. are not in"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"token": "secret"}, "are for stores behind URLs"),
    ],
)
def test_misuse_is_a_value_error(synth: MakeDataset, tmp_path: Path, options: dict[str, Any], match: str) -> None:
    root = synth(cameras=3, image_features=1)
    image = next(c for c in LeRobotDataset(root, cache_dir=tmp_path).cameras if c not in (FRONT, WRIST))
    options = {k: [image] if v == ["image_0"] else v for k, v in options.items()}
    with pytest.raises(ValueError, match=match) as caught:
        build(root, tmp_path, **options)
    assert "secret" not in str(caught.value)


def test_options_of_datasets_are_refused_for_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are for datasets"):
        build([zoo.clip_path("h264_mkv")], tmp_path, episodes=[0])
    with pytest.raises(ValueError, match="at least one video file"):
        build([], tmp_path)
    with pytest.raises(ObjectMissing, match="no LeRobot dataset"):
        build(tmp_path / "nothing", tmp_path)


# Saved.


def test_a_saved_index_says_the_same(synth: MakeDataset, tmp_path: Path) -> None:
    index = build(synth(b_frames=2), tmp_path)
    index.save(tmp_path / "x.index")
    for again in (EpisodeByteIndex.load(tmp_path / "x.index"), pickle.loads(pickle.dumps(index))):
        assert (again.root, again.video_keys, again.num_files) == (index.root, index.video_keys, index.num_files)
        for episode in range(5):
            for camera in index.video_keys:
                assert again.lookup(episode, camera) == index.lookup(episode, camera)
                assert again.byte_ranges(episode, camera) == index.byte_ranges(episode, camera)
                assert again.frames(episode, camera).tolist() == index.frames(episode, camera).tolist()
                assert again.custom_frame_mappings(episode, camera) == index.custom_frame_mappings(episode, camera)
                assert again.sample_table(episode, camera).stream == index.sample_table(episode, camera).stream
        with EpisodeByteCache(again, max_bytes="10MB") as cache:
            require_own_frames(cache, range(5))


def test_a_saved_index_holds_no_secrets(server: StoreServer, tmp_path: Path) -> None:
    server.set(basic="ann:hunter2")
    url = server.url.replace("://", "://ann:hunter2@")
    index = build(url, tmp_path)
    index.save(tmp_path / "x.index")
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [data for data in kept if b"hunter2" in data or b"ann:" in data]
    assert "hunter2" not in repr(index) + repr(index.built)
    with EpisodeByteCache(EpisodeByteIndex.load(tmp_path / "x.index"), max_bytes="10MB") as cache:
        with pytest.raises(FetchError, match="could not be fetched") as caught:
            cache.get_decoder(0, FRONT)
        assert "hunter2" not in str(caught.value)
    for access in ({"data_root": url}, {"storage_options": {"auth": ("ann", "hunter2")}}):
        with EpisodeByteCache(EpisodeByteIndex.load(tmp_path / "x.index"), max_bytes="10MB", **access) as cache:
            require_own_frames(cache, [1])


def test_a_token_is_passed_on_to_the_cache_in_memory_alone(server: StoreServer, tmp_path: Path) -> None:
    server.set(bearer="hunter2")
    index = build(server.url, tmp_path, token="hunter2")
    with EpisodeByteCache(index, max_bytes="10MB") as cache:
        require_own_frames(cache, [2])
    index.save(tmp_path / "x.index")
    assert b"hunter2" not in (tmp_path / "x.index").read_bytes()
    again = EpisodeByteIndex.load(tmp_path / "x.index", token="hunter2")
    with EpisodeByteCache(again, max_bytes="10MB") as cache:
        require_own_frames(cache, [2])


@pytest.mark.parametrize("indexed", ["folder", "store"])
@pytest.mark.parametrize("read", ["copy", "store"])
def test_a_dataset_that_moved_is_found_by_its_new_root(indexed: str, read: str, large: Path, tmp_path: Path) -> None:
    """A copy has other times, and no entity tags or other ones; its size it has."""
    copy = tmp_path / "copy"
    shutil.copytree(large, copy, copy_function=shutil.copy)
    with serving_store(large) as server, serving_store(copy) as other:
        index = build(large if indexed == "folder" else server.url, tmp_path)
        data_root = copy if read == "copy" else other.url
        with EpisodeByteCache(index, max_bytes="10MB", data_root=data_root) as cache:
            require_own_frames(cache, [1])
        for path in copy.rglob("*.mp4"):
            path.write_bytes(path.read_bytes() + b"x")
        with (
            EpisodeByteCache(index, max_bytes="10MB", data_root=data_root) as cache,
            pytest.raises(CorruptMedia, match=r"changed since it was indexed \([\d,]+ bytes then, "),
        ):
            cache.get_decoder(1, FRONT)


@pytest.mark.parametrize("read", ["copy", "store"])
def test_what_is_read_of_a_copy_is_of_one_version(read: str, large: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(large, copy)
    index = build(large, tmp_path)
    with (
        serving_store(copy) as other,
        EpisodeByteCache(index, max_bytes="10MB", data_root=copy if read == "copy" else other.url) as cache,
    ):
        require_own_frames(cache, [1])
        for path in (FRONT_PATH, WRIST_PATH):
            os.utime(copy / path, ns=(10**18, 10**18))  # as one that was written anew
        with pytest.raises(CorruptMedia, match="changed since it was indexed"):
            cache.get_decoder(2, FRONT)
        with pytest.raises(CorruptMedia, match="changed since it was indexed"):
            cache._source.fetch(1, WRIST)
    with EpisodeByteCache(index, max_bytes="10MB", data_root=copy) as cache:
        require_own_frames(cache, [1, 2])


@pytest.mark.parametrize("told", ["absolute", "relative", "dotted", "file url", "linked"])
def test_the_own_place_of_an_index_is_no_copy_however_it_is_told(
    told: str, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was written anew there is another one, also of the same size."""
    root = tmp_path / "dataset"
    shutil.copytree(large, root, copy_function=shutil.copy2)
    index = build(root, tmp_path / "sidecars")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(root)
    places = {"absolute": str(root), "relative": "dataset", "dotted": "dataset/../dataset", "linked": "link"}
    data_root = (places | {"file url": root.as_uri()})[told]
    for path in root.rglob("*.mp4"):
        os.utime(path, ns=(1, 1))
    with (
        EpisodeByteCache(index, max_bytes="10MB", data_root=data_root) as cache,
        pytest.raises(CorruptMedia, match="changed since it was indexed"),
    ):
        cache.get_decoder(1, FRONT)


def test_an_index_that_does_not_read_says_so(
    synth: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, path = build(synth(), tmp_path), tmp_path / "x.index"
    with pytest.raises(ObjectMissing, match="no index at"):
        EpisodeByteIndex.load(path)
    path.write_bytes(b"torn")
    with pytest.raises(CorruptMedia, match="does not read as an index of millpond"):
        EpisodeByteIndex.load(path)
    index.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptMedia):
        EpisodeByteIndex.load(path)
    index.save(path)
    monkeypatch.setattr("millpond._datasets.index_file._libraries", lambda: "other")
    with pytest.raises(UnsupportedFormat, match="build it again"):
        EpisodeByteIndex.load(path)


# What changed, or is bad.


def test_a_file_that_changed_is_an_error_in_use_and_indexed_anew_by_build(damaged: MakeDataset, tmp_path: Path) -> None:
    root = damaged()
    build(root, tmp_path).save(tmp_path / "x.index")
    shutil.copy(root / WRIST_PATH, root / FRONT_PATH)
    os.utime(root / FRONT_PATH, ns=(5, 5))
    with EpisodeByteCache(EpisodeByteIndex.load(tmp_path / "x.index"), max_bytes="10MB") as cache:
        cache.submit_prefetch(0)
        for call in (lambda: cache.ensure_ready(0), lambda: cache.get_decoder(0, FRONT)):
            with pytest.raises(CorruptMedia, match=r"changed since it was indexed.*build the index again"):
                call()
    with EpisodeByteCache(build(root, tmp_path), max_bytes="10MB") as cache:
        picture = np.asarray(cache.get_decoder(0, FRONT)[3]).transpose(1, 2, 0)
        assert read_pattern(picture) == (0, 1, 3)


def test_an_object_that_changed_is_an_error_in_use_and_indexed_anew_by_build(
    damaged: MakeDataset, tmp_path: Path
) -> None:
    root = damaged()
    with serving_store(root) as server:
        index = build(server.url, tmp_path)
        shutil.copy(root / WRIST_PATH, root / FRONT_PATH)
        os.utime(root / FRONT_PATH, ns=(5, 5))
        with EpisodeByteCache(index, max_bytes="10MB") as cache:
            with pytest.raises(CorruptMedia, match=r"changed since it was indexed.*build the index again"):
                cache.get_decoder(0, FRONT)
        with EpisodeByteCache(build(server.url, tmp_path), max_bytes="10MB") as cache:
            assert len(cache.get_decoder(0, FRONT)) == LENGTHS[0]


@pytest.mark.parametrize("how", ["missing", "cut short"])
def test_what_cannot_be_decoded_is_told_and_the_rest_is_served(damaged: MakeDataset, tmp_path: Path, how: str) -> None:
    root = damaged(episodes_per_file=3)
    path = root / FRONT_PATH
    if how == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size * 2 // 3)
    index = build(root, tmp_path)
    index.save(tmp_path / "x.index")
    bad = [0, 1, 2] if how == "missing" else [1, 2]
    for one in (index, EpisodeByteIndex.load(tmp_path / "x.index")):
        assert sorted(one.problems) == bad
        with EpisodeByteCache(one, max_bytes="10MB") as cache:
            cache.submit_prefetch(2)
            for call in (lambda: cache.ensure_ready(2), lambda: cache.get_decoder(2, FRONT)):
                with pytest.raises(DataError, match="episode 2 of camera 'observation") as caught:
                    call()
                assert caught.value.episode == 2
            assert len(cache.get_decoder(2, WRIST)) == LENGTHS[2]
            require_own_frames(cache, [3, 4])


def test_a_bad_file_among_others_is_a_problem_of_its_own(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    index = build([zoo.clip_path("h264_mkv"), bad, tmp_path / "nothing.mp4"], tmp_path)
    assert sorted(index.problems) == [1, 2]
    assert isinstance(index.problems[2], ObjectMissing)
    with pytest.raises(CorruptMedia, match=r"episode 1 of camera 'video': .*bad\.mp4"):
        index.lookup(1, "video")
    with pytest.raises(CorruptMedia, match="bad"):
        build(bad, tmp_path)


# Over a network that is not always well.


def test_faults_of_the_store_cost_no_frame(server: StoreServer, tmp_path: Path) -> None:
    server.set(unavailable=0.1, reset=0.05, truncated=0.05, seed=3)
    with EpisodeByteCache(build(server.url, tmp_path), max_bytes="10MB", max_prefetch_workers=4) as cache:
        require_own_frames(cache, range(4))


def test_close_cancels_requests_that_would_take_for_ever(
    server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, begun, read = build(server.url, tmp_path), threading.Semaphore(0), Fetcher.read

    def noted(*arguments: Any) -> Any:
        begun.release()
        return read(*arguments)

    monkeypatch.setattr(Fetcher, "read", noted)
    server.set(slow=1.0, hang_seconds=1000.0)
    cache = EpisodeByteCache(index, max_bytes="10MB", fetch_timeout=1000.0)
    cache.submit_prefetch(0)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(cache.ensure_ready, 0)
        for _ in index.video_keys:
            assert begun.acquire(timeout=60)
        cache.close()
        with pytest.raises(ClosedError):
            waiting.result(60)


def test_many_threads_and_little_room_lose_no_frame_of_a_faulty_store(server: StoreServer, tmp_path: Path) -> None:
    index = build(server.url, tmp_path)
    server.set(unavailable=0.05, reset=0.02, truncated=0.02, seed=5)
    largest = max(sum(index.num_bytes(e, c) for c in index.video_keys) for e in range(4))
    with EpisodeByteCache(index, max_bytes=largest * 3 // 2, max_prefetch_workers=6) as cache:

        def read(start: int) -> None:
            require_own_frames(cache, [(start + k) % 4 for k in range(4)])

        with ThreadPoolExecutor(3) as threads:
            for done in [threads.submit(read, start) for start in range(3)]:
                done.result()
        assert cache.stats.peak_bytes <= cache.max_bytes
        assert cache.stats.evictions


def test_what_is_fetched_in_several_requests_is_one_range(
    server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build(server.url, tmp_path)
    monkeypatch.setattr("millpond._datasets.episode_fetcher._REQUEST_BYTES", 1000)
    with EpisodeByteCache(index, max_bytes="10MB") as cache:
        require_own_frames(cache, range(4))


def test_a_store_that_is_gone_is_named_by_both_calls(large: Path, tmp_path: Path) -> None:
    index = build(large, tmp_path)
    with refusing() as url, EpisodeByteCache(index, max_bytes="10MB", data_root=url, fetch_timeout=0.5) as cache:
        cache.submit_prefetch(1)
        for call in (lambda: cache.ensure_ready(1), lambda: cache.get_decoder(1, FRONT)):
            with pytest.raises(DataError) as caught:
                call()
            assert isinstance(caught.value, FetchError | FetchTimeout)
            assert f"{url}/videos/" in str(caught.value)
