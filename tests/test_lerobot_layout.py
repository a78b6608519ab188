"""What makes a whole dataset unreadable is raised when it is opened, by name and with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millpond._datasets.lerobot import LeRobotDataset
from millpond.errors import CorruptMedia, ObjectMissing, UnsupportedFormat
from synthesized import EPISODES_PATH, FRONT, LENGTHS, WRIST, MakeDataset, edit_table, open_dataset


def edit_info(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def test_a_folder_without_metadata_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match=r"no meta/info\.json; give the folder"):
        LeRobotDataset(tmp_path)
    with pytest.raises(FileNotFoundError):
        LeRobotDataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("version", "remedy"), [("v2.1", "convert_dataset_v21_to_v30"), ("v4.0", "a version of millpond"), (None, "None")]
)
def test_other_versions_are_refused_with_a_remedy(damaged: MakeDataset, version: str | None, remedy: str) -> None:
    root = damaged()
    edit_info(root, lambda info: info.update(codebase_version=version))
    with pytest.raises(UnsupportedFormat, match=remedy) as caught:
        open_dataset(root)
    assert caught.value.version == version


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda info: info.pop("fps"), CorruptMedia, "lacks fps"),
        (lambda info: info.pop("features"), CorruptMedia, "lacks features"),
        (lambda info: info.update(video_path=None), CorruptMedia, "no video_path"),
        (lambda info: info.update(data_path="{nonsense}"), CorruptMedia, "unusable path"),
        (lambda info: info["features"].update(odd={"dtype": "quaternion", "shape": [4]}), UnsupportedFormat, "'odd'"),
    ],
)
def test_an_unusable_info_is_refused(
    damaged: MakeDataset, change: Callable[[dict[str, Any]], object], error: type[Exception], match: str
) -> None:
    root = damaged()
    edit_info(root, change)
    with pytest.raises(error, match=match):
        open_dataset(root)


def test_an_info_that_is_no_json_is_refused(damaged: MakeDataset) -> None:
    root = damaged()
    (root / "meta/info.json").write_text("{")
    with pytest.raises(CorruptMedia, match="does not read as JSON"):
        open_dataset(root)


@pytest.mark.parametrize("name", [EPISODES_PATH, "meta/tasks.parquet"])
def test_a_table_of_metadata_that_does_not_parse_is_refused(damaged: MakeDataset, name: str) -> None:
    root = damaged()
    (root / name).write_bytes(b"PAR1 no PAR1")
    with pytest.raises(CorruptMedia, match=name):
        open_dataset(root)


def test_episodes_listed_twice_are_refused(damaged: MakeDataset) -> None:
    root = damaged()
    edit_table(root / EPISODES_PATH, lambda columns: columns["episode_index"].__setitem__(4, 3))
    with pytest.raises(CorruptMedia, match="episode 3 more than once") as caught:
        open_dataset(root)
    assert caught.value.episode == 3


@pytest.mark.parametrize("value", [-1, 1 << 31])
def test_a_file_index_that_cannot_be_is_refused(value: int, damaged: MakeDataset) -> None:
    root = damaged()
    edit_table(root / EPISODES_PATH, lambda columns: columns["data/file_index"].__setitem__(2, value))
    with pytest.raises(CorruptMedia, match=f"has {value} in column 'data/file_index', row 2"):
        open_dataset(root)


def test_metadata_without_any_data_is_refused(damaged: MakeDataset) -> None:
    root = damaged()
    (root / "data/chunk-000/file-000.parquet").unlink()
    with pytest.raises(ObjectMissing, match="none of the data files"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"episodes": [0, 7]}, ValueError, r"episodes \[7\] are not in"),
        ({"episodes": []}, ValueError, "episodes is empty"),
        ({"cameras": ["front"]}, ValueError, f"it has {FRONT}, {WRIST}"),
        ({"cameras": FRONT}, TypeError, "not the string"),
        ({"image_size": (0, 5)}, ValueError, "image_size"),
        ({"interpolation": "nearest"}, ValueError, "nearest"),
    ],
)
def test_misuse_is_refused(synth: MakeDataset, options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        open_dataset(synth(), **options)


def test_a_dataset_shows_what_it_is(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(gop=6))
    assert f"{sum(LENGTHS)} samples in 5 episodes, 2 cameras, 30 fps" in repr(dataset)
    facts = dataset.video_facts[FRONT]
    assert (facts.codecs, facts.backends, facts.num_files) == (("h264",), ("packets",), 1)
    assert (facts.num_frames, facts.picture_size) == (sum(LENGTHS), (96, 128))
    assert facts.gop_frames.tolist() == [6] * 11 + [3]


def test_what_cameras_have_in_common_is_in_memory_once(synth: MakeDataset) -> None:
    front, wrist = open_dataset(synth())._layout.videos.values()
    assert front.to_seconds is wrist.to_seconds


def test_episodes_in_several_metadata_files_are_one_list(damaged: MakeDataset) -> None:
    import pyarrow.parquet as pq

    root = damaged()
    table = pq.read_table(root / EPISODES_PATH, partitioning=None)
    pq.write_table(table.slice(3), root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(table.slice(0, 3), root / "meta/episodes/chunk-000/file-001.parquet")
    dataset = open_dataset(root)
    assert dataset.episode_index.tolist() == [0, 1, 2, 3, 4]
    assert dataset.check() == []


def test_metadata_in_many_row_groups_is_taken_apart_once(damaged: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As LeRobot's recorder writes it: a group for every ten episodes."""
    import pyarrow.parquet as pq

    root = damaged()
    pq.write_table(pq.read_table(root / EPISODES_PATH, partitioning=None), root / EPISODES_PATH, row_group_size=2)
    monkeypatch.setattr("millpond._datasets.episode_columns._MANY_GROUPS", 2)
    first = open_dataset(root, lazy=True)
    with monkeypatch.context() as spied:
        spied.delattr("millpond._datasets.episode_columns.ParquetReader")
        again = open_dataset(root, lazy=True)
    assert (again.fingerprint, again.check()) == (first.fingerprint, [])
    edit_table(root / EPISODES_PATH, lambda columns: columns["length"].__setitem__(4, 3))
    assert open_dataset(root, lazy=True).episode_lengths[4] == 3


def test_channels_may_come_first_in_the_metadata(damaged: MakeDataset) -> None:
    root = damaged(cameras=1, image_features=1)
    first = {"shape": [3, 96, 128], "names": ["channels", "height", "width"]}
    edit_info(root, lambda info: info["features"][FRONT].update(first))
    assert open_dataset(root).fields[0].shape == (96, 128, 3)
