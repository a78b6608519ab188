"""What a user gives to say where a dataset lies, and is told where that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millpond import EpisodeByteCache, LeRobotDataset, Loader
from millpond._datasets.opening import open_files
from millpond.errors import UnsupportedFormat

URL = "https://host.invalid/data"


@pytest.mark.parametrize(
    ("root", "options", "error", "text"),
    [
        (URL, {"cache_dir": "s3://user:pw@bucket/x"}, ValueError, "a folder of this machine, not 's3://bucket/x'"),
        (URL, {"cache_dir": "beside"}, ValueError, "give a folder of this machine"),
        (URL, {"fetch_timeout": 0}, ValueError, "fetch_timeout must be a number of seconds above 0, not 0"),
        (URL, {"fetch_timeout": "10"}, ValueError, "fetch_timeout must be"),
        (URL, {"cache_bytes": -1}, ValueError, "cache_bytes must be at least 1"),
        (URL, {"storage_options": "key=x"}, TypeError, "must be a mapping of names to values, not str"),
        (URL, {"storage_options": {"no_such": 1}}, ValueError, "no_such"),
        ("folder", {"storage_options": {"key": "x"}}, ValueError, "on this machine: leave them out"),
        ("file:///folder", {"token": "x"}, ValueError, "on this machine"),
    ],
)
def test_what_makes_no_sense_is_refused(root: str, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        open_files(root, **options)


def test_a_home_folder_may_be_written_as_people_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _, store = open_files(URL, cache_dir="~/cache")
    assert store.folder == tmp_path / "cache"


@pytest.mark.parametrize("url", ["nonsense://bucket/x", "hdfs2://bucket/x"])
def test_a_scheme_that_nothing_reads_is_told_as_such(url: str) -> None:
    with pytest.raises(UnsupportedFormat, match="fsspec"):
        LeRobotDataset(url)


@pytest.mark.parametrize("path", ["s3://bucket/x", Path("folder")])
def test_a_path_is_no_dataset(path: Any) -> None:
    with pytest.raises(TypeError, match="LeRobotDataset"):
        Loader(path)


@pytest.mark.parametrize("index", ["demo.npz", 3])
def test_a_path_is_no_index(index: Any) -> None:
    with pytest.raises(TypeError, match=r"EpisodeByteIndex\.load"):
        EpisodeByteCache(index, max_bytes=1000)


def test_a_dataset_closes_with_its_block(tmp_path: Path) -> None:
    from millpond._synth import write_dataset

    write_dataset(tmp_path / "data", episodes=1, frames=4, cameras=1, size=(64, 64), codec="h264", gop=2)
    with LeRobotDataset(tmp_path / "data") as dataset:
        assert len(dataset) == 4
