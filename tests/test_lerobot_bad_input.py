"""Bad data fails just the samples concerned, by name, and everything else is still served."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond._datasets.lerobot import LeRobotDataset
from millpond.errors import CorruptMedia, FrameTimestampError, MillpondError, ObjectMissing
from synthesized import (
    DATA_PATH,
    EPISODES_PATH,
    FRONT,
    FRONT_PATH,
    LENGTHS,
    WRIST,
    MakeDataset,
    MemorySink,
    edit_table,
    expected_identities,
    failures_of,
    identities,
    open_dataset,
)

STARTS = [0, *np.cumsum(LENGTHS).tolist()]
FRONT_FROM, FRONT_TO = f"videos/{FRONT}/from_timestamp", f"videos/{FRONT}/to_timestamp"

Columns = dict[str, list[Any]]


def samples_of(*episodes: int) -> set[int]:
    return {sample for episode in episodes for sample in range(STARTS[episode], STARTS[episode + 1])}


def assert_rest_is_served(dataset: LeRobotDataset, camera: str, number: int, failed: set[int]) -> None:
    expected = expected_identities(dataset, number)
    assert identities(dataset, camera) == {sample: expected[sample] for sample in expected.keys() - failed}


def assert_named(error: MillpondError, episode: int, camera: str | None = None) -> None:
    assert error.episode == episode
    assert f"episode {episode}" in str(error)
    assert error.path
    if camera is not None:
        assert error.camera == camera
        assert repr(camera) in str(error)


def set_values(name: str, values: dict[int, Any]) -> Callable[[Columns], object]:
    def change(columns: Columns) -> None:
        for row, value in values.items():
            columns[name][row] = value

    return change


def drop_rows(*rows: int) -> Callable[[Columns], object]:
    def change(columns: Columns) -> None:
        for values in columns.values():
            for row in sorted(rows, reverse=True):
                del values[row]

    return change


def test_a_missing_mp4_fails_its_episodes_of_its_camera(damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=2)
    (root / FRONT_PATH).unlink()
    dataset = open_dataset(root)
    assert set(dataset.problems) == {0, 1}
    failed = failures_of(dataset, FRONT)
    assert failed.keys() == samples_of(0, 1)
    assert isinstance(failed[0], ObjectMissing)
    assert_named(failed[STARTS[1]], 1, FRONT)
    assert_rest_is_served(dataset, FRONT, 0, samples_of(0, 1))
    assert_rest_is_served(dataset, WRIST, 1, set())


def test_a_camera_without_any_file_still_has_its_size(damaged: MakeDataset) -> None:
    root = damaged()
    shutil.rmtree(root / f"videos/{FRONT}")
    dataset = open_dataset(root)
    assert dataset.fields[0].shape == (96, 128, 3)
    assert failures_of(dataset, FRONT).keys() == set(range(len(dataset)))
    assert_rest_is_served(dataset, WRIST, 1, set())


def test_a_truncated_mp4_serves_the_gops_that_are_there(damaged: MakeDataset) -> None:
    root = damaged(codec="h264", gop=6)
    os.truncate(root / FRONT_PATH, int((root / FRONT_PATH).stat().st_size * 0.6))
    dataset = open_dataset(root)
    failed = failures_of(dataset, FRONT)
    first_lost = min(failed)
    assert first_lost % 6 == 0
    assert 12 <= first_lost <= len(dataset) - 12
    assert failed.keys() == set(range(first_lost, len(dataset)))
    assert "cut short" in str(failed[first_lost])
    assert_named(failed[len(dataset) - 1], 4, FRONT)
    assert_rest_is_served(dataset, FRONT, 0, set(failed))


def test_an_mp4_cut_in_its_header_fails_as_a_whole(damaged: MakeDataset) -> None:
    root = damaged()
    os.truncate(root / FRONT_PATH, 200)
    dataset = open_dataset(root)
    assert failures_of(dataset, FRONT).keys() == set(range(len(dataset)))
    assert_rest_is_served(dataset, WRIST, 1, set())


def test_zeroed_bytes_fail_only_their_gop(damaged: MakeDataset) -> None:
    root = damaged(codec="av1", gop=2)
    data = bytearray((root / FRONT_PATH).read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 300] = bytes(300)
    (root / FRONT_PATH).write_bytes(data)
    dataset = open_dataset(root)
    failed = failures_of(dataset, FRONT)
    assert dataset.problems == {}
    assert 2 <= len(failed) <= 6
    assert all(isinstance(error, CorruptMedia) for error in failed.values())
    assert_named(next(iter(failed.values())), int(dataset.groups[min(failed)]), FRONT)
    assert_rest_is_served(dataset, FRONT, 0, set(failed))


def test_a_parquet_that_does_not_parse_fails_its_rows_but_no_picture_of_others(damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=2)
    (root / DATA_PATH).write_bytes(b"PAR1 this is none PAR1")
    dataset = open_dataset(root)
    failed = failures_of(dataset, FRONT)
    assert failed.keys() == samples_of(0, 1)
    assert_named(failed[0], 0)
    assert "parquet" in str(failed[0])
    assert_rest_is_served(dataset, FRONT, 0, samples_of(0, 1))


def test_a_parquet_without_rows_fails_its_episodes(damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=2)
    edit_table(root / DATA_PATH, drop_rows(*range(LENGTHS[0] + LENGTHS[1])))
    dataset = open_dataset(root)
    assert failures_of(dataset, FRONT).keys() == samples_of(0, 1)
    assert "none of its 10 rows" in str(dataset.problems[0])


def test_a_missing_parquet_fails_its_episodes(damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=2)
    (root / DATA_PATH).unlink()
    failed = failures_of(open_dataset(root), FRONT)
    assert failed.keys() == samples_of(0, 1)
    assert isinstance(failed[0], ObjectMissing)


def test_rows_of_failed_samples_are_zero(damaged: MakeDataset) -> None:
    root = damaged()
    edit_table(root / DATA_PATH, drop_rows(3))
    sink, reader = MemorySink(), open_dataset(root).reader()
    report = reader.read(FRONT, np.arange(2, 6), sink, lambda: None)
    reader.close()
    assert [positions.tolist() for positions, _ in report.failures] == [[1]]
    assert sink.values["frame_index"].tolist() == [2, 0, 4, 5]
    assert not sink.values["action"][1].any()


def test_missing_rows_fail_themselves_and_the_windows_that_reach_them(damaged: MakeDataset) -> None:
    root = damaged()
    edit_table(root / DATA_PATH, drop_rows(STARTS[1] + 4, STARTS[1] + 5))
    alone, windowed = open_dataset(root), open_dataset(root, delta_timestamps={"action": [-1 / 30, 0.0]})
    failed = failures_of(alone, FRONT)
    assert failed.keys() == {STARTS[1] + 4, STARTS[1] + 5}
    assert_named(failed[STARTS[1] + 4], 1)
    assert "first without is frame 4" in str(failed[STARTS[1] + 4])
    assert failures_of(windowed, FRONT).keys() == {STARTS[1] + 4, STARTS[1] + 5, STARTS[1] + 6}


def test_shuffled_rows_are_found(damaged: MakeDataset) -> None:
    root = damaged()

    def swap(columns: Columns) -> None:
        for values in columns.values():
            values[2], values[40] = values[40], values[2]

    edit_table(root / DATA_PATH, swap)
    dataset = open_dataset(root)
    assert dataset.check() == []
    assert failures_of(dataset, FRONT) == {}


CONTRADICTIONS: dict[str, tuple[str, Callable[[Columns], object], set[int], str]] = {
    "length too small": (EPISODES_PATH, set_values("length", {1: 20}), {1}, "gives it 20 frames"),
    "length too large": (EPISODES_PATH, set_values("length", {1: 22}), {1}, "gives it 22 frames"),
    "index range": (EPISODES_PATH, set_values("dataset_to_index", {2: 45}), {2}, "13 frames, but the rows 31 to 45"),
    "another numbering": (DATA_PATH, set_values("index", {STARTS[3] + 1: 7}), {3}, "has index 7"),
    "a frame twice": (DATA_PATH, set_values("frame_index", {STARTS[3] + 1: 2}), {3}, "more than once"),
    "a frame beyond": (DATA_PATH, set_values("frame_index", {STARTS[3] + 7: 8}), {3}, "frames 0 to 8"),
    "an unknown task": (DATA_PATH, set_values("task_index", {STARTS[2]: 9}), {2}, "task 9"),
    "time too long": (EPISODES_PATH, set_values(FRONT_TO, {1: 1.1}), {1}, "frames"),
    "time empty": (EPISODES_PATH, set_values(FRONT_FROM, {1: None}), {1}, "frames"),
    "time overlaps": (
        EPISODES_PATH,
        lambda c: (set_values(FRONT_FROM, {1: 0.2})(c), set_values(FRONT_TO, {1: 0.9})(c))[0],
        {0, 1},
        "overlaps",
    ),
    "time between frames": (
        EPISODES_PATH,
        lambda c: (set_values(FRONT_FROM, {4: 52.5 / 30})(c), set_values(FRONT_TO, {4: 69.5 / 30})(c))[0],
        {4},
        "no frame within",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_metadata_that_contradicts_the_data_fails_the_episode(damaged: MakeDataset, name: str) -> None:
    path, change, episodes, match = CONTRADICTIONS[name]
    root = damaged()
    edit_table(root / path, change)
    dataset = open_dataset(root)
    assert set(dataset.problems) == episodes
    for episode in episodes:
        assert match in str(dataset.problems[episode])
        assert_named(dataset.problems[episode], episode)
    bad = {sample for sample in range(len(dataset)) if int(dataset.groups[sample]) in episodes}
    failed = failures_of(dataset, FRONT)
    assert failed.keys() == bad
    assert_rest_is_served(dataset, FRONT, 0, bad)


def test_a_wrong_timestamp_fails_its_row(damaged: MakeDataset) -> None:
    root = damaged()
    edit_table(root / DATA_PATH, set_values("timestamp", {STARTS[2] + 3: 0.2}))
    dataset = open_dataset(root)
    failed = failures_of(dataset, FRONT)
    assert failed.keys() == {STARTS[2] + 3}
    assert isinstance(failed[STARTS[2] + 3], FrameTimestampError)
    assert failures_of(open_dataset(root, tolerance_s=0.2), FRONT) == {}


def test_an_mp4_too_short_for_its_episodes_fails_the_last_samples(damaged: MakeDataset, synth: MakeDataset) -> None:
    root = damaged(cameras=1)
    shorter = synth(cameras=1, frames=(*LENGTHS[:4], LENGTHS[4] - 5))
    shutil.copy(shorter / FRONT_PATH, root / FRONT_PATH)
    dataset = open_dataset(root)
    failed = failures_of(dataset, FRONT)
    assert failed.keys() == set(range(len(dataset) - 5, len(dataset)))
    assert_named(failed[len(dataset) - 1], 4, FRONT)
    assert "no frame within" in str(failed[len(dataset) - 1])
    assert_rest_is_served(dataset, FRONT, 0, set(failed))


def test_an_mp4_of_another_rate_is_not_taken_for_this_one(damaged: MakeDataset, synth: MakeDataset) -> None:
    root = damaged(cameras=1)
    doubled = synth(cameras=1, fps=60, frames=tuple(2 * length for length in LENGTHS))
    shutil.copy(doubled / FRONT_PATH, root / FRONT_PATH)
    dataset = open_dataset(root)
    assert set(dataset.problems) == set(range(5))
    assert "shows 19 frames in its time" in str(dataset.problems[0])


def test_frames_of_no_episode_are_remarked(damaged: MakeDataset, synth: MakeDataset) -> None:
    root = damaged(cameras=1)
    longer = synth(cameras=1, frames=(*LENGTHS[:4], LENGTHS[4] + 5))
    shutil.copy(longer / FRONT_PATH, root / FRONT_PATH)
    dataset = open_dataset(root)
    assert failures_of(dataset, FRONT) == {}
    assert [str(error) for error in dataset.check() if "shows 74 frames, its episodes take up 69" in str(error)]


def test_orphan_rows_are_listed(damaged: MakeDataset) -> None:
    root = damaged()
    edit_table(root / EPISODES_PATH, drop_rows(3))
    dataset = open_dataset(root)
    assert set(dataset.problems) == {3}
    assert "8 orphan rows of episode 3" in str(dataset.problems[3])
    assert failures_of(dataset, FRONT) == {}
    assert any("total_episodes" in str(error) for error in dataset.check())


def test_a_file_of_another_size_needs_a_resize(damaged: MakeDataset, synth: MakeDataset) -> None:
    root = damaged(episodes_per_file=2)
    other = synth(episodes_per_file=2, size=(64, 80))
    name = f"videos/{FRONT}/chunk-000/file-002.mp4"
    shutil.copy(other / name, root / name)
    assert failures_of(open_dataset(root), FRONT).keys() == samples_of(4)
    resized = open_dataset(root, image_size=(96, 96))
    assert identities(resized, FRONT) == expected_identities(resized, 0)


def test_a_file_that_changes_under_a_reader_fails_and_says_so(damaged: MakeDataset, synth: MakeDataset) -> None:
    root = damaged()
    reader = open_dataset(root).reader()
    shutil.copy(synth(b_frames=2) / FRONT_PATH, root / FRONT_PATH)
    report = reader.read(FRONT, np.arange(4), MemorySink(), lambda: None)
    reader.close()
    ((positions, error),) = report.failures
    assert positions.tolist() == [0, 1, 2, 3]
    assert "changed since the dataset was opened" in str(error)
    assert_named(error, 0, FRONT)


def test_pictures_of_a_file_that_is_replaced_just_before_it_is_opened_are_not_those_of_the_new_one(
    damaged: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other = damaged(cameras=1, image_features=1), tmp_path / "other.parquet"
    shutil.copy(root / DATA_PATH, other)
    edit_table(other, lambda c: c[FRONT].reverse())

    def open_too_late(path: str, *args: Any, **options: Any) -> Any:
        if other.exists():
            other.rename(path)
        return open(path, *args, **options)

    reader = open_dataset(root).reader()
    monkeypatch.setattr("millpond._datasets.dataset_files.open", open_too_late, raising=False)
    report = reader.read(FRONT, np.arange(4), MemorySink(), lambda: None)
    reader.close()
    ((positions, error),) = report.failures
    assert positions.tolist() == [0, 1, 2, 3]
    assert "changed since the dataset was opened" in str(error)


def test_a_picture_in_parquet_that_does_not_decode_fails_alone(damaged: MakeDataset) -> None:
    root = damaged(cameras=1, image_features=1)
    edit_table(root / DATA_PATH, lambda c: c[FRONT][5].update(bytes=c[FRONT][5]["bytes"][:200]))
    dataset = open_dataset(root)
    failed = failures_of(dataset, FRONT)
    assert failed.keys() == {5}
    assert_named(failed[5], 0, FRONT)
    assert_rest_is_served(dataset, FRONT, 0, {5})


def test_a_problem_of_an_episode_not_taken_is_no_problem(damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=2)
    (root / FRONT_PATH).unlink()
    dataset = open_dataset(root, episodes=[2, 3, 4])
    assert dataset.problems == {}
    assert identities(dataset, FRONT) == expected_identities(dataset, 0)


def test_column_files_that_vanish_fail_by_name(damaged: MakeDataset) -> None:
    root = damaged()
    reader = open_dataset(root).reader()
    shutil.rmtree(root / ".millpond")
    report = reader.read(FRONT, np.arange(4), MemorySink(), lambda: None)
    reader.close()
    assert "open the dataset again" in str(report.failures[0][1])


def test_errors_survive_a_worker(damaged: MakeDataset) -> None:
    import pickle

    root = damaged()
    (root / FRONT_PATH).unlink()
    reader = pickle.loads(pickle.dumps(open_dataset(root).reader()))
    report = pickle.loads(pickle.dumps(reader.read(FRONT, np.arange(4), MemorySink(), lambda: None)))
    reader.close()
    assert_named(report.failures[0][1], 0, FRONT)


def test_pictures_of_a_truncated_mp4_may_lie_before_the_header(damaged: MakeDataset, tmp_path: Path) -> None:
    """Without faststart the header is at the end, and lost with it."""
    import av

    root = damaged(cameras=1)
    with av.open(str(root / FRONT_PATH)) as source, av.open(str(tmp_path / "late.mp4"), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    os.truncate(tmp_path / "late.mp4", (tmp_path / "late.mp4").stat().st_size - 400)
    shutil.copy(tmp_path / "late.mp4", root / FRONT_PATH)
    dataset = open_dataset(root)
    assert failures_of(dataset, FRONT).keys() == set(range(len(dataset)))
