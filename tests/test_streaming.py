"""Datasets in stores: the same batches as from the folder, whatever the store, the options, and what goes wrong."""

from __future__ import annotations

import gc
import json
import logging
import os
import pickle
import queue
import shutil
import sys
import threading
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import millpond
from millpond import LeRobotDataset, errors
from millpond._datasets.remote_files import RemoteFiles
from millpond._datasets.survey import Surveyor
from millpond._loader.worker_driver import WorkerDriver
from programs import forked, program
from real_servers import BUCKET, put, rclone_http, s3_options
from store_server import serving_store
from streamed import (
    MANY,
    Batches,
    Crowd,
    Held,
    SmallSteps,
    altered,
    asked_for,
    assert_same,
    assert_same_rows,
    before_get,
    camera_paths,
    copied,
    epoch_of,
    limit,
    loader_of,
    media_bytes,
    quarantined,
    samples_in,
    samples_of,
    script_ranges,
    streamed,
    taken,
    texts_below,
    transcode,
)
from synthesized import DATA_PATH, FRONT, FRONT_PATH, WRIST, MakeDataset

WINDOWS = {FRONT: [-0.1, 0.0, 0.2], "action": [0.0, 1 / 30]}


@pytest.fixture
def own_sidecars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sidecars that nobody else writes to."""
    folder = tmp_path / "sidecars of this test"
    monkeypatch.setenv("MILLPOND_CACHE_DIR", str(folder))
    return folder


# ---- the same batches


RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # what is written, how it is opened, how it is loaded
    "one file": ({}, {}, {}),
    "files": (MANY, {}, {}),
    "hevc": ({**MANY, "codec": "hevc", "b_frames": 3}, {}, {}),
    "av1": ({"codec": "av1", "gop": 2}, {}, {}),
    "sound": ({**MANY, "audio": True}, {}, {}),
    "windows": (MANY, {"delta_timestamps": WINDOWS}, {}),
    "text and other columns": ({"extra_columns": True}, {}, {}),
    "some of it": (MANY, {"episodes": [1, 4, 5, 7], "cameras": [WRIST], "image_size": (48, 64)}, {}),
    "a transform": ({}, {}, {"transform": lambda sample: {"mean": sample[FRONT].mean(), "index": sample["index"]}}),
    "no shuffle": (MANY, {}, {"shuffle": False}),
    "one request at a time": (MANY, {}, {"video_fetch_workers": 1}),
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_batches_are_those_of_the_folder(
    recipe: str,
    num_workers: int,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    written, opened, loaded = RECIPES[recipe]
    root = synth(**written)
    small_steps()
    expected = epoch_of(LeRobotDataset(root, **opened), num_workers=0, **loaded)
    with streamed(root, **opened) as (dataset, server):
        with loader_of(dataset, num_workers=num_workers, **loaded) as loader:
            server.forget()
            assert_same(taken(loader), expected)
            told = loader.statistics().counters
        assert told["tasks_not_fetched_ahead"] == told.get("late_requests", 0) == 0
        assert (told["requests"], told["bytes_fetched"]) == asked_for(server)
        if recipe != "sound":  # which lies between the packets
            assert told["bytes_fetched"] == told["bytes_read"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_open_gops_are_those_of_the_folder(
    num_workers: int, damaged: MakeDataset, small_steps: SmallSteps, tmp_path: Path
) -> None:
    """They are fed the next key and what leads to it, too."""
    root = damaged(**MANY)
    for path in root.rglob("*.mp4"):
        transcode(path, "libx264", {"g": "6", "x264-params": "open-gop=1:bframes=3:scenecut=0:b-adapt=0"})
    small_steps()
    expected = epoch_of(LeRobotDataset(root, cache_dir=tmp_path / "sidecars"), num_workers=0)
    with streamed(root) as (dataset, _):
        for place in camera_paths(dataset, FRONT):
            assert dataset._files.load_table(place, dataset._store)[0].is_open_gop.any()
        with loader_of(dataset, num_workers=num_workers) as loader:
            assert_same(taken(loader), expected)
            assert not loader.statistics().counters.get("late_requests", 0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_windows_that_are_gathered_are_those_of_the_folder(
    num_workers: int,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    root = synth(**MANY)
    small_steps(layout="gathered")
    expected = epoch_of(LeRobotDataset(root, delta_timestamps=WINDOWS), num_workers=0)
    with streamed(root, delta_timestamps=WINDOWS) as (dataset, _):
        with loader_of(dataset, num_workers=num_workers) as loader:
            assert loader.memory_plan().layout == "gathered"
            assert_same(taken(loader), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("image_features", [1, 2])
def test_pictures_in_parquet_are_those_of_the_folder(
    num_workers: int,
    image_features: int,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    """In another order: a row group is fetched as one, so it is a GOP."""
    root = synth(**MANY, image_features=image_features)
    expected = epoch_of(LeRobotDataset(root), num_workers=0)
    small_steps(ring_bytes=1 << 20)
    with streamed(root) as (dataset, server):
        server.forget()
        with loader_of(dataset, num_workers=num_workers) as loader:
            assert_same_rows(taken(loader), expected)
            told = loader.statistics().counters
        assert told["tasks_not_fetched_ahead"] == told.get("late_requests", 0) == 0
        assert (told["requests"], told["bytes_fetched"]) == asked_for(server)
        if image_features == 2:  # every chunk of pictures, and no other byte
            chunks = [r for group in _parquet_chunks(dataset) for r in group]
            assert told["bytes_fetched"] == sum(map(len, chunks))


def _parquet_chunks(dataset: LeRobotDataset) -> Iterator[list[Any]]:
    from millpond._datasets.parquet_files import ParquetReader

    for place in dataset._layout.data.paths:
        version = dataset._files.version(place)
        with ParquetReader(dataset._files.open(version, dataset._store), place) as parquet:
            for group in range(len(parquet.bounds) - 1):
                yield parquet.ranges(group, list(dataset.cameras))


def test_several_epochs_are_those_of_the_folder(synth: MakeDataset, small_steps: SmallSteps) -> None:
    root = synth(**MANY)
    small_steps()
    with loader_of(LeRobotDataset(root)) as local, streamed(root) as (dataset, _), loader_of(dataset) as loader:
        for _ in range(3):
            assert_same(taken(loader), taken(local))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ring_bytes", [1, 2500])
def test_what_does_not_fit_the_ring_is_fetched_by_who_reads_it(
    ring_bytes: int,
    num_workers: int,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    root = synth(**MANY)
    small_steps(ring_bytes=ring_bytes)
    expected = epoch_of(LeRobotDataset(root), num_workers=0)
    with streamed(root) as (dataset, server):
        limit(dataset, hedge_seconds=600.0)  # of workers, too
        server.forget()
        with loader_of(dataset, num_workers=num_workers) as loader:
            assert_same(taken(loader), expected)
            told = loader.statistics().counters
            tasks = loader.memory_plan().num_segments * 2
        assert (told["tasks_not_fetched_ahead"] == tasks) is (ring_bytes == 1)
        assert told["late_requests"] >= told["tasks_not_fetched_ahead"] > 0
        fetched = told["bytes_fetched"] + (told["late_bytes"] if num_workers else 0)
        assert fetched == asked_for(server)[1]


# ---- whatever the store


@contextmanager
def _on_http(root: Path, s3: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with rclone_http(root) as url:
        yield url, {}


@contextmanager
def _on_s3(root: Path, s3: str) -> Iterator[tuple[str, dict[str, Any]]]:
    prefix = uuid.uuid4().hex
    for path in root.rglob("*"):
        if path.is_file():
            put(s3, f"{prefix}/{path.relative_to(root).as_posix()}", path.read_bytes())
    yield f"s3://{BUCKET}/{prefix}", {"storage_options": s3_options(s3)}


@contextmanager
def _in_memory(root: Path, s3: str) -> Iterator[tuple[str, dict[str, Any]]]:
    files, target = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for path in root.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{target}/{path.relative_to(root).as_posix()}", path.read_bytes())
    yield f"memory:/{target}", {}
    files.rm(target, recursive=True)


@contextmanager
def _by_file_url(root: Path, s3: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield root.as_uri(), {}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("store", [_on_http, _on_s3, _in_memory, _by_file_url])
def test_every_store_gives_the_same_batches(
    store: Callable[..., Any],
    num_workers: int,
    s3: str,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    root = synth(**MANY)
    small_steps()
    expected = epoch_of(LeRobotDataset(root), num_workers=0)
    with store(root, s3) as (url, options):
        assert_same(epoch_of(LeRobotDataset(url, **options), num_workers=num_workers), expected)


@pytest.mark.parametrize(
    "settings",
    [{"etags": "off"}, {"etags": "weak"}, {"etags": "off", "last_modified": False}, {"head_status": 405}],
    ids=lambda settings: ", ".join(f"{name} {value}" for name, value in settings.items()),
)
def test_servers_that_tell_little_give_the_same_batches(settings: dict[str, Any], synth: MakeDataset) -> None:
    root = synth(**MANY)
    expected = epoch_of(LeRobotDataset(root), num_workers=0)
    with streamed(root, server=settings) as (dataset, _):
        assert_same(epoch_of(dataset, num_workers=0), expected)


def test_a_dataset_below_a_path_and_behind_a_query(synth: MakeDataset) -> None:
    root = synth()
    with serving_store(root.parent) as server:
        dataset = LeRobotDataset(f"{server.url}/{root.name}/?signature=abc")
        assert_same(epoch_of(dataset), epoch_of(LeRobotDataset(root)))
        assert all(path.endswith("?signature=abc") for path, _ in ((r[1], r) for r in server.requests))


# ---- how much is fetched


def test_an_epoch_fetches_the_packets_and_hardly_anything_else(
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    with streamed(synth(**MANY)) as (dataset, server):
        small_steps()
        needed = media_bytes(dataset)
        server.forget()
        with loader_of(dataset) as loader:
            taken(loader)
            told = loader.statistics().counters
        assert (told["requests"], told["bytes_fetched"]) == asked_for(server, ".mp4") == asked_for(server)
        assert told["requests"] - told["hedges"] - told["retries"] == told["ranges_planned"]
        assert needed <= told["bytes_fetched"] <= needed + 64 * told["ranges_planned"]  # 32 bytes on either side
        assert told["most_bytes_held"] <= 16 << 10


def test_a_second_open_takes_from_sidecars_what_it_can(synth: MakeDataset) -> None:
    with serving_store(synth(**MANY, image_features=1)) as server:
        LeRobotDataset(server.url).close()
        first = asked_for(server)
        server.forget()
        LeRobotDataset(server.url).close()
        assert asked_for(server)[1] < first[1] / 2
        assert first[0] <= 45
        assert asked_for(server, ".mp4") == (4, 4 * 4096)  # is it the file that is known?
        data = [method for method, path, _ in server.requests if path.startswith("/data")]
        assert data == ["HEAD"] * 5  # the first is also looked for, to see that it is a dataset


def test_tables_are_made_from_headers(synth: MakeDataset, own_sidecars: Path) -> None:
    root = synth(episodes=2, frames=200, gop=100)
    size = (root / FRONT_PATH).stat().st_size
    with streamed(root) as (_, server):
        requests, num_bytes = asked_for(server, FRONT_PATH)
        assert requests <= 2
        assert num_bytes < size / 2
    assert any(own_sidecars.rglob("*.npz"))


def test_a_small_parquet_takes_one_request(synth: MakeDataset) -> None:
    with streamed(synth(**MANY)) as (_, server):
        got = [path for method, path, _ in server.requests if method == "GET" and path.endswith(".parquet")]
    assert len(got) == len(set(got)) == 6  # tasks, episodes, four of data


def test_files_of_all_kinds_are_opened_side_by_side(synth: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a store most of it is waiting."""
    all_are_here = threading.Barrier(3)

    def meeting(survey: Callable[..., None]) -> Callable[..., None]:
        def met(*arguments: Any) -> None:
            all_are_here.wait(30)
            survey(*arguments)

        return met

    monkeypatch.setattr(Surveyor, "_survey_video", meeting(Surveyor._survey_video))
    monkeypatch.setattr(Surveyor, "_survey_rows", meeting(Surveyor._survey_rows))
    with streamed(synth()) as (dataset, _):
        assert (len(dataset.cameras), dataset.problems) == (2, {})


def test_an_error_of_ours_ends_opening_with_files_still_to_come(
    synth: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    are_cancelled = threading.Event()

    class OneThread(ThreadPoolExecutor):
        def __init__(self, *_: object) -> None:
            super().__init__(1)

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            are_cancelled.set()
            super().shutdown(wait)

    def survey(_: Surveyor, work: object, file: int) -> None:
        if opened:
            assert are_cancelled.wait(30)
        opened.append(file)
        raise ZeroDivisionError

    monkeypatch.setattr(Surveyor, "_survey_video", survey)
    monkeypatch.setattr("millpond._datasets.survey.ThreadPoolExecutor", OneThread)
    with pytest.raises(ZeroDivisionError):
        LeRobotDataset(synth(**MANY))
    assert 1 <= len(opened) <= 2  # of eight


def test_a_column_is_fetched_without_the_pictures_beside_it(synth: MakeDataset) -> None:
    root = synth(image_features=2)
    with streamed(root) as (_, server):
        assert asked_for(server, DATA_PATH)[1] < (root / DATA_PATH).stat().st_size / 4


def test_opening_some_episodes_asks_for_their_files_alone(synth: MakeDataset) -> None:
    with streamed(synth(**MANY), episodes=[0, 7]) as (dataset, server):
        epoch_of(dataset)
        asked = {path for _, path, _ in server.requests if not path.startswith("/meta")}
    assert {path[-8:-4] for path in asked if path.endswith(".mp4")} == {"-000", "-003"}
    assert {path for path in asked if path.endswith(".parquet")} == {
        f"/data/chunk-000/file-{number}.parquet" for number in ("000", "003")
    }


def test_a_store_is_opened_with_a_count_of_its_files(synth: MakeDataset) -> None:
    seen: list[tuple[int, int]] = []
    with streamed(synth(**MANY), progress=lambda done, total: seen.append((done, total))):
        assert seen == [(number, 12) for number in range(1, 13)]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"ranges": False}, "the server sends the whole object where a byte range is asked for"),
        ({"lengths": False}, "the server does not say how long it is"),
    ],
)
def test_a_server_that_cannot_be_streamed_from_is_told_so(
    settings: dict[str, Any], reason: str, synth: MakeDataset
) -> None:
    with serving_store(synth(), **settings) as server, pytest.raises(errors.FetchError, match=reason):
        LeRobotDataset(server.url)


def test_a_loader_needs_at_least_one_request_at_a_time(synth: MakeDataset) -> None:
    with streamed(synth()) as (dataset, _), pytest.raises(ValueError, match="video_fetch_workers"):
        loader_of(dataset, video_fetch_workers=0)


@pytest.mark.parametrize(("video_fetch_workers", "most"), [(1, range(1, 2)), (3, range(2, 4))])
def test_no_more_requests_are_under_way_than_a_loader_may_have(
    video_fetch_workers: int, most: range, synth: MakeDataset, small_steps: SmallSteps
) -> None:
    small_steps()
    with streamed(synth(**MANY)) as (dataset, server):
        crowd = Crowd(server)
        epoch_of(dataset, num_workers=0, video_fetch_workers=video_fetch_workers)
        assert crowd.most in most


# ---- resume


@pytest.mark.parametrize("stop_at", [1, 9, 17])
@pytest.mark.parametrize("goes_to", ["folder", "store"])
def test_an_epoch_goes_on_elsewhere(
    stop_at: int,
    goes_to: str,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    root = synth(**MANY)
    small_steps()
    with streamed(root) as (remote, _):
        here, there = (remote, LeRobotDataset(root)) if goes_to == "folder" else (LeRobotDataset(root), remote)
        with loader_of(here, num_workers=2) as loader:
            whole = taken(loader)
        with loader_of(here, num_workers=0) as loader:
            first = taken(loader, stop_at)
            state = json.loads(json.dumps(loader.state_dict()))
        with loader_of(there, num_workers=1) as loader:
            loader.load_state_dict(state)
            assert_same([*first, *taken(loader)], whole)
            books = loader.statistics().books
            assert books is not None
            assert (books.delivered, books.balance) == (144, 0)


# ---- objects that are not what they were, or not there


def _name_of(camera: str, file: int) -> str:
    return f"videos/{camera}/chunk-000/file-{file:03d}.mp4"


def _rewritten(root: Path, camera: str, file: int) -> None:
    """Put another file in the place of one."""
    path = root / _name_of(camera, file)
    shutil.copyfile(root / _name_of(camera, (file + 1) % 4), path)
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ring_bytes", [8 << 10, 1], ids=["fetched ahead", "fetched by who reads it"])
def test_an_object_that_changes_amid_an_epoch_fails_its_own_samples(
    ring_bytes: int, num_workers: int, damaged: MakeDataset, small_steps: SmallSteps, tmp_path: Path
) -> None:
    root = damaged(**MANY)
    small_steps(ring_bytes)
    expected = epoch_of(LeRobotDataset(root, cache_dir=tmp_path / "sidecars"), num_workers=0, shuffle=False)
    quarantine = tmp_path / "quarantine.jsonl"
    with streamed(root) as (dataset, server):
        with loader_of(
            dataset, num_workers=num_workers, shuffle=False, on_error="skip", quarantine=quarantine
        ) as loader:
            before_get(server, _name_of(FRONT, 3), lambda: _rewritten(root, FRONT, 3))
            found = taken(loader)
            books = loader.statistics().books
        bad = samples_in(dataset, FRONT, 3).tolist()
        assert len(bad) == 36
        assert_same_rows(found, expected, [sample for sample in range(144) if sample not in bad])
        assert books is not None
        assert (books.delivered, books.skipped, books.balance) == (108, 36, 0)
        lines = quarantined(quarantine)
        assert sorted(line["sample"] for line in lines) == bad
        assert {line["error"] for line in lines} == {"CorruptMedia"}
        assert all(f"{server.url}/{_name_of(FRONT, 3)}" in line["message"] for line in lines)
        assert all("open the dataset again" in line["message"] for line in lines)
        again = LeRobotDataset(server.url)
        assert FRONT in again.cameras
        again.close()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ring_bytes", [1 << 20, 1], ids=["fetched ahead", "fetched by who reads it"])
def test_a_table_of_another_version_is_not_taken_for_that_of_the_dataset(
    ring_bytes: int,
    num_workers: int,
    damaged: MakeDataset,
    own_sidecars: Path,
    small_steps: SmallSteps,
    tmp_path: Path,
) -> None:
    """Also where the sidecar is gone, and the header is read anew."""
    root = damaged(**MANY)
    small_steps(ring_bytes, segment=18)
    quarantine = tmp_path / "quarantine.jsonl"
    with streamed(root) as (dataset, _):
        for path in own_sidecars.rglob("*.table*"):
            path.unlink()
        _rewritten(root, WRIST, 1)
        batches = epoch_of(dataset, num_workers=num_workers, on_error="skip", quarantine=quarantine)
        bad = samples_in(dataset, WRIST, 1).tolist()
    lines = quarantined(quarantine)
    assert sorted(line["sample"] for line in lines) == bad == sorted({*range(144)} - {*samples_of(batches)})
    assert {line["error"] for line in lines} == {"CorruptMedia"}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_object_that_changed_stops_an_epoch_that_skips_nothing(
    num_workers: int,
    damaged: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    root = damaged(**MANY)
    small_steps(ring_bytes=8 << 10)
    with streamed(root) as (dataset, server), loader_of(dataset, num_workers=num_workers, shuffle=False) as loader:
        before_get(server, _name_of(WRIST, 2), lambda: _rewritten(root, WRIST, 2))
        found: Batches = []
        with pytest.raises(errors.CorruptMedia, match="open the dataset again") as caught:
            found.extend(copied(batch) for batch in loader)
        assert f"{server.url}/{_name_of(WRIST, 2)}" in str(caught.value)
        assert samples_of(found) == [*range(72)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_object_that_goes_amid_an_epoch_is_named(
    num_workers: int,
    damaged: MakeDataset,
    small_steps: SmallSteps,
    tmp_path: Path,
) -> None:
    root = damaged(**MANY)
    small_steps(ring_bytes=8 << 10)
    name = _name_of(FRONT, 3)
    quarantine = tmp_path / "quarantine.jsonl"
    with streamed(root) as (dataset, server):
        options: dict[str, Any] = {"shuffle": False, "on_error": "skip", "quarantine": quarantine}
        before_get(server, name, (root / name).unlink)
        found = epoch_of(dataset, num_workers=num_workers, **options)
        assert samples_of(found) == [*range(108)]
        lines = quarantined(quarantine)
        assert {line["error"] for line in lines} == {"ObjectMissing"}
        assert all(f"{server.url}/{name}" in line["message"] for line in lines)


def _without_a_video(root: Path) -> None:
    (root / "videos" / FRONT / "chunk-000" / "file-001.mp4").unlink()


def _without_rows(root: Path) -> None:
    (root / "data" / "chunk-000" / "file-002.parquet").unlink()


def _with_a_video_cut_short(root: Path) -> None:
    path = root / "videos" / WRIST / "chunk-000" / "file-000.mp4"
    os.truncate(path, path.stat().st_size * 2 // 3)


def _with_rows_cut_short(root: Path) -> None:
    path = root / "data" / "chunk-000" / "file-001.parquet"
    os.truncate(path, path.stat().st_size * 2 // 3)


def _with_an_empty_video(root: Path) -> None:
    os.truncate(root / "videos" / WRIST / "chunk-000" / "file-002.mp4", 0)


def _with_garbage_for_a_video(root: Path) -> None:
    path = root / "videos" / WRIST / "chunk-000" / "file-002.mp4"
    path.write_bytes(np.random.default_rng(1).bytes(30_000))


def _with_a_hole_in_a_video(root: Path) -> None:
    with open(root / "videos" / FRONT / "chunk-000" / "file-003.mp4", "r+b") as file:
        file.seek(5000)
        file.write(bytes(2000))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "damage",
    [
        _without_a_video,
        _without_rows,
        _with_a_video_cut_short,
        _with_rows_cut_short,
        _with_an_empty_video,
        _with_garbage_for_a_video,
        _with_a_hole_in_a_video,
    ],
)
def test_what_is_wrong_with_a_folder_is_wrong_with_it_in_a_store(
    damage: Callable[[Path], None], num_workers: int, damaged: MakeDataset, tmp_path: Path
) -> None:
    """The same samples fail, for the same kind of reason, and the others are what they were."""
    root = damaged(**MANY)
    damage(root)

    def outcome(dataset: LeRobotDataset, name: str) -> tuple[Batches, dict[int, str], list[tuple[int, str]]]:
        options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / name}
        batches = epoch_of(dataset, num_workers=num_workers, shuffle=False, **options)
        lines = quarantined(tmp_path / name)
        problems = {episode: type(error).__name__ for episode, error in dataset.problems.items()}
        return batches, problems, sorted((line["sample"], line["error"]) for line in lines)

    batches, problems, skipped = outcome(LeRobotDataset(root, cache_dir=tmp_path / "sidecars"), "local.jsonl")
    with streamed(root) as (dataset, server):
        found = outcome(dataset, "remote.jsonl")
        assert found[1:] == (problems, skipped)
        assert skipped
        assert_same_rows(found[0], batches)
        assert all(server.url in str(error) for error in dataset.problems.values())
        again = LeRobotDataset(server.url)  # from sidecars, as far as there are any
        assert {episode: type(error).__name__ for episode, error in again.problems.items()} == problems
        again.close()


def test_a_folder_that_is_none_says_what_is_missing(tmp_path: Path) -> None:
    with serving_store(tmp_path) as server:
        with pytest.raises(errors.ObjectMissing, match=r"no LeRobot dataset at 'http.*there is no meta/info\.json"):
            LeRobotDataset(f"{server.url}/nothing")


def test_a_dataset_without_any_data_says_so(damaged: MakeDataset) -> None:
    root = damaged()
    shutil.rmtree(root / "data")
    with serving_store(root) as server, pytest.raises(errors.ObjectMissing, match="none of the data files"):
        LeRobotDataset(server.url)


def test_videos_that_decode_only_through_a_container_are_fetched_whole_by_who_reads_them(
    damaged: MakeDataset, caplog: pytest.LogCaptureFixture
) -> None:
    root = damaged()
    transcode(root / FRONT_PATH, "mpeg4", {"g": "6"})
    expected = epoch_of(LeRobotDataset(root))
    with streamed(root) as (dataset, _):
        assert f"of '{dataset.root}/{FRONT_PATH}' are fetched to index it" in caplog.text
        for num_workers in (0, 2):
            assert_same(epoch_of(dataset, num_workers=num_workers), expected)
    with streamed(root, cameras=[FRONT]) as (dataset, _), loader_of(dataset, num_workers=0) as loader:
        taken(loader)
        assert loader.statistics().counters["ranges_planned"] == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_video_that_is_fetched_whole_is_of_the_version_that_was_opened(
    num_workers: int, damaged: MakeDataset, tmp_path: Path
) -> None:
    root = damaged()
    transcode(root / FRONT_PATH, "mpeg4", {"g": "6"})
    shutil.copyfile(root / FRONT_PATH, tmp_path / "the same.mp4")
    with streamed(root, cameras=[FRONT]) as (dataset, server):
        (tmp_path / "the same.mp4").replace(root / FRONT_PATH)
        with pytest.raises(errors.CorruptMedia, match="open the dataset again") as caught:
            epoch_of(dataset, num_workers=num_workers)
        assert f"{server.url}/{FRONT_PATH}" in str(caught.value)


# ---- a store that is gone, or silent


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("how", ["connection refused", "503"])
def test_a_store_that_is_gone_for_good_is_an_error_that_counts_the_tries(
    how: str,
    num_workers: int,
    synth: MakeDataset,
    small_steps: SmallSteps,
    quick_tries: None,
) -> None:
    small_steps(ring_bytes=8 << 10)
    with ExitStack() as serving:
        server = serving.enter_context(serving_store(synth(**MANY)))
        dataset = LeRobotDataset(server.url, fetch_timeout=20.0)  # a try for every two seconds
        going = threading.Thread(target=serving.close)

        def go() -> None:
            if how == "503":
                server.set(unavailable=1.0)
            else:
                server.set(slow=1.0, hang_seconds=600.0)  # so much for all that comes before it is gone
                going.start()

        before_get(server, ".mp4", go, number=20)
        with loader_of(dataset, num_workers=num_workers, shuffle=False) as loader:
            with pytest.raises(errors.FetchError) as caught:
                deque(loader, maxlen=0)
        if how != "503":
            going.join()
        told = str(caught.value)
        assert f"'{dataset.root}/videos/observation.images." in told
        assert caught.value.facts["path"].endswith(".mp4")
        assert (caught.value.facts["tries"], "10 tries" in told) == (10, True)
        assert caught.value.facts.get("status") == (503 if how == "503" else None)


def test_a_store_that_does_not_answer_in_time_is_an_error_with_the_limit(synth: MakeDataset) -> None:
    with streamed(synth(**MANY)) as (dataset, server):
        limit(dataset, timeout_seconds=4.0)
        server.set(hang_seconds=600.0)
        script_ranges(server, ".mp4", 503, "hang")
        with loader_of(dataset) as loader, pytest.raises(errors.FetchTimeout) as caught:
            next(iter(loader))
        assert caught.value.limit_seconds == 4.0
        assert caught.value.tries > 1
        assert dataset.root in str(caught.value)


def test_a_store_that_is_silent_when_a_dataset_is_opened_has_the_time_that_was_given(synth: MakeDataset) -> None:
    with serving_store(synth(), slow=1.0, hang_seconds=600.0) as server:
        with pytest.raises(errors.FetchTimeout, match=r"meta/info\.json") as caught:
            LeRobotDataset(server.url, fetch_timeout=0.5)
        assert caught.value.limit_seconds == 0.5


def test_opening_that_fails_asks_the_store_for_nothing_more(
    synth: MakeDataset, own_sidecars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it wait for a thread that was between two requests."""
    begun, closed, asked = threading.Event(), threading.Event(), list[int]()
    usual, close = RemoteFiles.load_table, RemoteFiles.close

    def load_table(files: RemoteFiles, place: str, *arguments: Any) -> Any:
        if place.endswith(FRONT_PATH):
            assert begun.wait(60)
            raise RuntimeError("as a bug would")
        begun.set()
        assert closed.wait(60)
        return usual(files, place, *arguments)

    def closing(files: RemoteFiles, **options: bool) -> None:
        server.set(slow=1.0, hang_seconds=600.0)
        close(files, **options)
        asked.append(server.counts.requests)
        closed.set()

    with serving_store(synth()) as server:
        monkeypatch.setattr(RemoteFiles, "load_table", load_table)
        monkeypatch.setattr(RemoteFiles, "close", closing)
        with pytest.raises(RuntimeError, match="as a bug would"):
            LeRobotDataset(server.url, cache_dir=own_sidecars)
        assert asked == [server.counts.requests]


def test_a_store_that_is_gone_costs_each_sample_its_line_and_the_books_balance(
    synth: MakeDataset,
    small_steps: SmallSteps,
    quick_tries: None,
    tmp_path: Path,
) -> None:
    small_steps(ring_bytes=8 << 10)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl"}
    with streamed(synth(**MANY)) as (dataset, server), loader_of(dataset, **options) as loader:
        before_get(server, ".mp4", lambda: server.set(unavailable=1.0), number=20)
        found = taken(loader)
        skipped = [line["sample"] for line in quarantined(tmp_path / "q.jsonl")]
        assert min(len(found), len(skipped)) > 0
        assert sorted(samples_of(found) + skipped) == [*range(144)]
        books = loader.statistics().books
        assert books is not None
        assert books.balance == 0
        server.set(unavailable=0.0)
        assert sorted(samples_of(taken(loader))) == [*range(144)]  # it is back


def test_a_store_that_is_gone_when_a_dataset_is_opened(synth: MakeDataset, quick_tries: None) -> None:
    with serving_store(synth(), unavailable=1.0) as server:
        with pytest.raises(errors.FetchError, match=r"meta/info\.json") as caught:
            LeRobotDataset(server.url, fetch_timeout=60.0)
        assert caught.value.tries == 30


# ---- the end, whenever it comes


def _in_time(act: Callable[[], object]) -> None:
    """Do something that must not wait for a server that hangs."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for the server"


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("hangs", [False, True], ids=["while it answers", "while it hangs"])
def test_a_loader_is_closed_amid_an_epoch(
    hangs: bool,
    num_workers: int,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    small_steps(ring_bytes=8 << 10)
    with streamed(synth(**MANY)) as (dataset, server):
        loader = loader_of(dataset, num_workers=num_workers)
        iterator = iter(loader)
        next(iterator)
        if hangs:
            server.set(slow=1.0, hang_seconds=600.0)
        _in_time(loader.close)
        with pytest.raises(errors.ClosedError):
            next(iterator)
        del iterator


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_is_closed_before_its_first_bytes_come(num_workers: int, synth: MakeDataset) -> None:
    with streamed(synth()) as (dataset, server):
        server.set(slow=1.0, hang_seconds=600.0)
        loader = loader_of(dataset, num_workers=num_workers)
        iterator = iter(loader)
        _in_time(loader.close)
        del iterator


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_is_closed_while_the_header_of_a_file_is_waited_for(
    num_workers: int, synth: MakeDataset, own_sidecars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, usual = threading.Event(), RemoteFiles.load_table

    def load_table(*arguments: Any) -> Any:
        begun.set()
        return usual(*arguments)

    with streamed(synth()) as (dataset, server):
        shutil.rmtree(own_sidecars)
        server.set(slow=1.0, hang_seconds=600.0)
        monkeypatch.setattr(RemoteFiles, "load_table", load_table)
        loader = loader_of(dataset, num_workers=num_workers)
        iterator = iter(loader)
        assert begun.wait(20)
        _in_time(loader.close)
        del iterator


def test_who_waits_for_a_batch_is_let_go_when_the_loader_is_closed(synth: MakeDataset) -> None:
    with streamed(synth()) as (dataset, server):
        server.set(slow=1.0, hang_seconds=600.0)
        loader, seen = loader_of(dataset), queue.SimpleQueue[BaseException]()
        begun = threading.Event()

        def consume() -> None:
            try:
                iterator = iter(loader)
                begun.set()
                next(iterator)
            except BaseException as error:  # noqa: BLE001 - it is what the test looks at
                seen.put(error)

        consumer = threading.Thread(target=consume, daemon=True)
        consumer.start()
        assert begun.wait(20)
        _in_time(loader.close)
        assert isinstance(seen.get(timeout=20), errors.ClosedError)
        consumer.join()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_that_are_broken_off_leave_nothing_in_the_next(
    num_workers: int,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    root = synth(**MANY)
    small_steps(ring_bytes=12 << 10)
    with loader_of(LeRobotDataset(root), num_workers=0) as local, streamed(root) as (dataset, _):
        with loader_of(dataset, num_workers=num_workers) as loader:
            for stop_at in (1, 5, 11, 17, 2):
                assert_same(taken(loader, stop_at), taken(local, stop_at))
            assert_same(taken(loader), taken(local))


def test_an_epoch_that_is_broken_off_fetches_no_more(synth: MakeDataset, small_steps: SmallSteps) -> None:
    small_steps(ring_bytes=1 << 20)
    with streamed(synth(**MANY)) as (dataset, server):
        with loader_of(dataset, num_workers=0, shuffle=False, video_fetch_workers=1) as loader:
            held = Held(server, number=20)
            taken(loader, 1, after_first=lambda: held.has_come.wait(20))
            assert held.has_come.is_set()
            server.forget()
            held.release()
            for _ in range(20):  # time enough
                dataset._files.version(camera_paths(dataset, FRONT)[0])
            assert {method for method, _, _ in server.requests} == {"HEAD"}


def test_who_waits_for_bytes_is_as_patient_as_their_fetch(
    synth: MakeDataset, small_steps: SmallSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long no worker answers, while tasks wait for their bytes."""
    small_steps(ring_bytes=8 << 10)
    tasks_are_held, looks = threading.Event(), list[float]()
    give_out, patience_left = WorkerDriver._give_out, WorkerDriver._patience_left

    def noted(driver: WorkerDriver) -> None:
        give_out(driver)
        if driver._held:
            tasks_are_held.set()

    def counted(driver: WorkerDriver, began: float) -> float | None:
        looks.append(began)
        if len(looks) == 4:
            driver._patience_seconds = 100.0
            held.release()
        return patience_left(driver, began)

    monkeypatch.setattr(WorkerDriver, "_give_out", noted)
    monkeypatch.setattr(WorkerDriver, "_patience_left", counted)
    root = synth(**MANY)
    with streamed(root) as (dataset, server), loader_of(dataset) as loader:
        held = Held(server)
        batches: Any = iter(loader)
        assert tasks_are_held.wait(20)
        batches._driver._patience_seconds = 0.02
        assert_same([copied(batch) for batch in batches], epoch_of(LeRobotDataset(root), num_workers=0))
        assert len(looks) > 4


@pytest.mark.parametrize("num_workers", [0, 1])
def test_two_loaders_share_a_dataset(
    num_workers: int,
    synth: MakeDataset,
    small_steps: SmallSteps,
) -> None:
    """Also after one of them was closed, and with it the connections of both."""
    root = synth(**MANY)
    small_steps(ring_bytes=12 << 10)
    expected = epoch_of(LeRobotDataset(root), num_workers=0)
    found: tuple[Batches, Batches] = ([], [])
    with streamed(root) as (dataset, _), loader_of(dataset, num_workers=num_workers) as second:
        with loader_of(dataset, num_workers=num_workers) as first:
            of_first, of_second = iter(first), iter(second)
            for _ in range(11):
                found[0].append(copied(next(of_first)))
                found[1].append(copied(next(of_second)))
        found[1].extend(copied(batch) for batch in of_second)
        del of_first
    assert_same(found[0], expected[:11])
    assert_same(found[1], expected)


def test_a_closed_dataset_is_opened_by_its_next_use(synth: MakeDataset) -> None:
    root = synth()
    with streamed(root) as (dataset, _):
        first = epoch_of(dataset)
        dataset.close()
        dataset.close()
        assert_same(epoch_of(dataset), first)


def test_a_dataset_that_is_dropped_leaves_no_thread(synth: MakeDataset) -> None:
    with serving_store(synth()) as server:
        LeRobotDataset(server.url)  # what is left behind is looked for after each test


@pytest.mark.parametrize(
    ("num_workers", "thread", "place"),
    [
        (0, "millpond-prefetch", "prefetch.Ring.take"),
        (2, "millpond-prefetch", "prefetch.Ring.take"),
        (2, "millpond-driver", "worker_driver.WorkerDriver._give_out"),
    ],
)
def test_a_loader_that_is_collected_in_a_thread_of_its_own_is_closed(
    num_workers: int,
    thread: str,
    place: str,
    synth: MakeDataset,
    small_steps: SmallSteps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Garbage is collected wherever memory is allocated, also with the lock of the requests in hand."""
    small_steps(ring_bytes=8 << 10)
    dropped, collected = threading.Event(), threading.Event()
    with streamed(synth(**MANY)) as (dataset, _):
        loader = loader_of(dataset, num_workers=num_workers, shuffle=False)
        iterator = iter(loader)
        next(iterator)
        driver: Any = iterator._driver  # type: ignore[attr-defined]
        prefetcher = driver._prefetch
        module, owner, name = f"millpond._loader.{place}".rsplit(".", 2)
        usual = getattr(getattr(sys.modules[module], owner), name)

        def collecting(self: Any, *arguments: Any) -> Any:
            if dropped.is_set() and not collected.is_set() and threading.current_thread().name == thread:
                gc.collect()
                collected.set()
            return usual(self, *arguments)

        monkeypatch.setattr(f"millpond._loader.{place}", collecting)
        gc.disable()
        try:
            loader.me = loader, iterator  # type: ignore[attr-defined]
            del loader, iterator
            dropped.set()
            with prefetcher._lock:
                prefetcher._has_work.notify_all()
            if num_workers:
                driver._supervisor.wake()
            del driver, prefetcher
            assert collected.wait(20), "the thread hangs"
        finally:
            gc.enable()


# ---- other processes


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_forked_child_is_told_what_to_do(num_workers: int, synth: MakeDataset) -> None:
    with streamed(synth()) as (dataset, _):

        def work() -> bytes:
            try:
                epoch_of(dataset, num_workers=num_workers)
            except errors.UsageError as error:
                return str(error).encode()
            finally:
                millpond.shutdown()
            return b"no error"

        with forked(work) as result:
            assert b"start processes by spawn or forkserver" in result()
        assert len(epoch_of(dataset)) == 9  # the parent's connections are as they were


def test_a_dataset_that_was_pickled_reads_for_itself(synth: MakeDataset) -> None:
    root = synth()
    with streamed(root) as (dataset, server):
        copy = pickle.loads(pickle.dumps(dataset))
        server.forget()
        assert_same(epoch_of(copy), epoch_of(LeRobotDataset(root)))
        assert server.counts.requests > 0
        assert copy._files is not dataset._files


_READ = """
import pickle, sys
from streamed import epoch_of, samples_of
with open(sys.argv[1], "rb") as file:
    dataset = pickle.load(file)
print(sorted(samples_of(epoch_of(dataset))) == [*range(69)])
"""


def test_a_dataset_is_read_by_another_program(synth: MakeDataset, tmp_path: Path) -> None:
    with streamed(synth()) as (dataset, _):
        (tmp_path / "dataset.pickle").write_bytes(pickle.dumps(dataset))
        with program(_READ, tmp_path / "temporary", str(tmp_path / "dataset.pickle")) as other:
            assert other.ended() == (0, "True\n", "")
        assert not [*(tmp_path / "temporary").iterdir()]


# ---- sidecars


def test_nothing_is_lost_where_sidecars_cannot_be_kept(
    synth: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = synth(**MANY, image_features=1)
    expected = epoch_of(LeRobotDataset(root), num_workers=0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MILLPOND_CACHE_DIR", str(tmp_path / "file" / "below"))
    with streamed(root) as (dataset, _):
        assert "cannot keep sample tables" in caplog.text
        for num_workers in (0, 2):
            assert_same_rows(epoch_of(dataset, num_workers=num_workers), expected)


def test_crcs_that_an_epoch_learned_are_known_to_the_next_process(
    damaged: MakeDataset,
    own_sidecars: Path,
) -> None:
    root = damaged()
    with streamed(root) as (dataset, server):
        epoch_of(dataset)
        again = LeRobotDataset(server.url)
        place = camera_paths(again, FRONT)[0]
        assert again._files.load_table(place, again._store)[0].crc_known.all()
        again.close()


# ---- bytes kept on a disk


@pytest.mark.parametrize("image_features", [0, 1])
def test_what_was_fetched_once_needs_no_network_again(
    image_features: int, synth: MakeDataset, small_steps: SmallSteps, tmp_path: Path
) -> None:
    root = synth(**MANY, image_features=image_features)
    small_steps(ring_bytes=1 << 20)
    with ExitStack() as serving:
        server = serving.enter_context(serving_store(root))
        dataset = LeRobotDataset(server.url, cache_dir=tmp_path / "cache")
        with loader_of(dataset, num_workers=0) as loader:
            expected = [taken(loader)]
        with serving_store(root) as other, loader_of(LeRobotDataset(other.url), num_workers=0) as loader:
            expected.append(taken(loader))  # of what is not the same object
            fetched = loader.statistics().counters["bytes_fetched"]
        serving.close()
        with loader_of(dataset) as loader:
            assert_same(taken(loader), expected[0])
            assert_same(expected[0], expected[1])
            assert len(taken(loader)) == 18  # another order, the same ranges
            told = loader.statistics().counters
        assert (told["requests"], told["bytes_fetched"], told["bytes_from_cache"]) == (0, 0, 2 * fetched)


def test_the_next_run_fetches_no_media_either(synth: MakeDataset, small_steps: SmallSteps, tmp_path: Path) -> None:
    small_steps()
    with serving_store(synth(**MANY)) as server:
        first = epoch_of(LeRobotDataset(server.url, cache_dir=tmp_path / "cache"))
        again = LeRobotDataset(server.url, cache_dir=tmp_path / "cache")
        server.forget()
        assert_same(epoch_of(again), first)
        assert not server.requests


def test_bytes_kept_of_another_version_are_not_taken(
    damaged: MakeDataset, small_steps: SmallSteps, tmp_path: Path
) -> None:
    root = damaged(**MANY)
    small_steps()
    with serving_store(root) as server:
        epoch_of(LeRobotDataset(server.url, cache_dir=tmp_path / "cache"))
        for file in range(4):
            path = root / f"videos/{FRONT}/chunk-000/file-{file:03d}.mp4"
            transcode(path, "libx264", {"g": "6", "bf": "0"})
        found = epoch_of(LeRobotDataset(server.url, cache_dir=tmp_path / "cache"))
    assert_same(found, epoch_of(LeRobotDataset(root, cache_dir=tmp_path / "sidecars")))


@pytest.mark.parametrize("damage", ["cut short", "other bytes", "empty"])
def test_kept_bytes_that_are_damaged_are_fetched_again(
    damage: str, synth: MakeDataset, small_steps: SmallSteps, tmp_path: Path
) -> None:
    small_steps()
    with serving_store(synth(**MANY)) as server:
        dataset = LeRobotDataset(server.url, cache_dir=tmp_path / "cache")
        first = epoch_of(dataset)
        kept = [path for path in (tmp_path / "cache" / "ranges").rglob("*.range") if path.stat().st_size > 100]
        for path in kept:
            data = bytearray(path.read_bytes())
            if damage == "other bytes":
                data[50:90] = bytes(40)
            path.write_bytes(data[: {"cut short": len(data) // 2, "empty": 0}.get(damage, len(data))])
        server.forget()
        assert_same(epoch_of(dataset), first)
        assert len({path for _, path, _ in server.requests}) == 8 < len(kept)  # all videos


@pytest.fixture
def no_garbage_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bytes_that_did_not_decode_are_not_kept(
    num_workers: int, damaged: MakeDataset, small_steps: SmallSteps, tmp_path: Path, no_garbage_collected: None
) -> None:
    """Nor do their errors keep frames of callers, and with them batches, until garbage is collected."""
    root = damaged(**MANY)
    small_steps()
    options: dict[str, Any] = {"num_workers": num_workers, "on_error": "skip", "quarantine": tmp_path / "q.jsonl"}
    with serving_store(root) as server:
        first = epoch_of(LeRobotDataset(server.url, cache_dir=tmp_path / "cache"))  # which learns the CRCs
        shutil.rmtree(tmp_path / "cache" / "ranges")
        dataset = LeRobotDataset(server.url, cache_dir=tmp_path / "cache")
        with loader_of(dataset, **options) as loader:
            with altered(root / _name_of(FRONT, 1), 4700, 40):
                assert len(samples_of(taken(loader))) < 144
            loader.set_epoch(0)
            assert_same(taken(loader), first)


def test_kept_bytes_are_bounded(synth: MakeDataset, small_steps: SmallSteps, tmp_path: Path) -> None:
    small_steps()
    root = synth(**MANY)
    with serving_store(root) as server:
        dataset = LeRobotDataset(server.url, cache_dir=tmp_path / "cache", cache_bytes=10_000)
        for _ in range(2):
            assert_same(epoch_of(dataset), epoch_of(LeRobotDataset(root)))
            sizes = [path.stat().st_size for path in (tmp_path / "cache" / "ranges").rglob("*") if path.is_file()]
            assert 5_000 < sum(sizes) <= 10_000


def test_bytes_that_cannot_be_kept_are_fetched_each_time(
    synth: MakeDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = synth()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "ranges").touch()
    with serving_store(root) as server:
        dataset = LeRobotDataset(server.url, cache_dir=tmp_path / "cache")
        for _ in range(2):
            assert_same(epoch_of(dataset), epoch_of(LeRobotDataset(root)))
    assert len([record for record in caplog.records if "cannot keep ranges in" in record.message]) == 1


def test_two_datasets_keep_their_bytes_in_one_place(
    synth: MakeDataset, small_steps: SmallSteps, tmp_path: Path
) -> None:
    root = synth(**MANY)
    small_steps()
    expected = epoch_of(LeRobotDataset(root))
    with serving_store(root) as server:
        datasets = [LeRobotDataset(server.url, cache_dir=tmp_path / "cache", cache_bytes=20_000) for _ in range(2)]
        with loader_of(datasets[0]) as first, loader_of(datasets[1]) as second:
            for _ in range(2):
                of_first, of_second = iter(first), iter(second)
                found: tuple[Batches, Batches] = ([], [])
                for _ in expected:
                    found[0].append(copied(next(of_first)))
                    found[1].append(copied(next(of_second)))
                assert (next(of_first, None), next(of_second, None)) == (None, None)
                assert_same(*found)
                for loader in (first, second):
                    loader.set_epoch(0)
                assert_same(found[0], expected)


# ---- secrets


SECRETS = ("swordfish", "opensesame")


def _tokens() -> dict[str, Any]:
    return {"token": SECRETS[0], "storage_options": {"headers": {"X-Key": SECRETS[1]}}}


def _wrong_tokens() -> dict[str, Any]:
    return {"token": SECRETS[1]}


@pytest.mark.parametrize("way", ["token", "password", "query"])
def test_secrets_are_told_to_the_server_and_to_nobody_else(
    way: str,
    damaged: MakeDataset,
    own_sidecars: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    quick_tries: None,
) -> None:
    caplog.set_level(logging.DEBUG)
    root = damaged(**MANY)
    (root / "videos" / FRONT / "chunk-000" / "file-001.mp4").unlink()
    told: list[str] = []
    settings = {"token": {"bearer": SECRETS[0]}, "password": {"basic": ":".join(SECRETS)}, "query": {}}[way]
    with serving_store(root, **settings) as server:
        url, options = server.url, dict[str, Any]()
        if way == "token":
            options = _tokens()
        else:
            url = url.replace("//", f"//{':'.join(SECRETS)}@") if way == "password" else f"{url}?sig={SECRETS[0]}"
        dataset = LeRobotDataset(url, cache_dir=tmp_path / "cache", **options)
        quarantine = tmp_path / "quarantine.jsonl"
        with loader_of(dataset, on_error="skip", quarantine=quarantine, shuffle=False) as loader:
            batches = iter(loader)
            next(batches)
            server.set(unavailable=1.0)
            for _ in batches:
                pass
            told += [repr(loader), str(loader.statistics()), json.dumps(loader.state_dict())]
        told += [repr(dataset), dataset.root, str(dataset.problems), repr(vars(dataset)), repr(dataset.byte_source)]
        told += [repr(error.facts) + "".join(traceback.format_exception(error)) for error in dataset.problems.values()]
        told.append(dataset.fingerprint)
        assert dataset.problems
        with pytest.raises(errors.FetchError) as caught:
            LeRobotDataset(url, **options)
        told += ["".join(traceback.format_exception(caught.value)), repr(caught.value), repr(caught.value.facts)]
        dataset.close()
        assert any(SECRETS[0] in repr(request) or way == "password" for request in server.requests)
    told += [record.getMessage() + repr(record.args) for record in caplog.records]
    files = [*texts_below(tmp_path / "cache"), *texts_below(own_sidecars), (str(quarantine), quarantine.read_bytes())]
    assert any("npz" in name for name, _ in files)
    told += [name + data.decode("latin-1") for name, data in files]
    assert not [text[:2000] for text in told for secret in SECRETS if secret in text]


@pytest.mark.parametrize("way", ["token", "password", "s3"])
def test_a_secret_that_is_wrong_is_not_told(way: str, synth: MakeDataset, s3: str) -> None:
    with serving_store(synth(), bearer="right") as server:
        url, options = server.url, dict[str, Any]()
        if way == "token":
            options = _wrong_tokens()
        elif way == "password":
            url = url.replace("//", f"//{':'.join(SECRETS)}@")
        else:
            url = "s3://no-such-bucket/dataset"
            options = {"storage_options": {**s3_options(s3), "key": SECRETS[0], "secret": SECRETS[1]}}
        with pytest.raises(errors.MillpondError) as caught:
            LeRobotDataset(url, **options)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.facts)
    assert not any(secret in told for secret in SECRETS)
    if way != "s3":
        assert isinstance(caught.value, errors.FetchError)
        assert caught.value.status == 401


def test_options_that_mean_nothing_are_refused_without_their_values(synth: MakeDataset) -> None:
    with pytest.raises(ValueError, match="storage_options= and token= are for stores behind URLs"):
        LeRobotDataset(synth(), token=SECRETS[0])
    with pytest.raises(ValueError, match="secrit") as caught:
        LeRobotDataset("s3://bucket/dataset", storage_options={"secrit": SECRETS[0]})
    assert SECRETS[0] not in str(caught.value)
    with pytest.raises(ValueError, match="beside"):
        LeRobotDataset("s3://bucket/dataset", cache_dir="beside")
