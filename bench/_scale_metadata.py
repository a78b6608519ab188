"""The metadata of a modelled dataset, as LeRobot has it on disk; of its media there is one file, of two frames."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from _scale_model import Shape
from millpond._synth import write_dataset

_FILE_EPISODES = 50_000
_CHUNK_FILES = 1000
_FPS = 30


def write_metadata(root: Path, shape: Shape) -> None:
    """Write it; without the statistics of episodes, which are columns that nobody here reads."""
    write_dataset(root, episodes=1, frames=2, cameras=shape.cameras, size=(64, 64), codec="h264", gop=2)
    info = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
    bounds = shape.bounds()
    info |= {"total_episodes": shape.episodes, "total_frames": int(bounds[-1])}
    (root / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    cameras = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    shutil.rmtree(root / "meta/episodes")
    folder = root / "meta/episodes/chunk-000"
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, shape.episodes, _FILE_EPISODES)):
        episodes = np.arange(first, min(first + _FILE_EPISODES, shape.episodes))
        pq.write_table(_rows(shape, bounds, episodes, cameras), folder / f"file-{number:03d}.parquet")


def _rows(shape: Shape, bounds: np.ndarray, episodes: np.ndarray, cameras: list[str]) -> pa.Table:
    file = episodes // shape.episodes_per_file
    place = {"chunk_index": file // _CHUNK_FILES, "file_index": file % _CHUNK_FILES}
    first = bounds[file * shape.episodes_per_file]
    times = {"from_timestamp": (bounds[episodes] - first) / _FPS, "to_timestamp": (bounds[episodes + 1] - first) / _FPS}
    columns = {
        "episode_index": episodes,
        "tasks": pa.array([["pick up the block"]]).take(pa.array(np.zeros(len(episodes), np.int64))),
        "length": np.diff(bounds)[episodes],
        **{f"data/{name}": values for name, values in place.items()},
        "dataset_from_index": bounds[episodes],
        "dataset_to_index": bounds[episodes + 1],
    }
    for camera in cameras:
        columns |= {f"videos/{camera}/{name}": values for name, values in (place | times).items()}
    return pa.table(columns)
