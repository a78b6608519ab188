"""Where the pictures of a LeRobot dataset's samples are, and what a decoder must do for them; read with nothing of
millpond.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray


@dataclass(frozen=True)
class Camera:
    """The frames of a camera, sample by sample; N samples.

    Attributes:
        name: As in info.json.
        paths: Its video files.
        file_of: int64, (N,), position in `paths`.
        seconds: float64, (N,), when the sample's frame is shown in its file.
    """

    name: str
    paths: list[str]
    file_of: NDArray[np.int64]
    seconds: NDArray[np.float64]

    def place(self, sample: int) -> tuple[str, float]:
        return self.paths[self.file_of[sample]], float(self.seconds[sample])


@dataclass(frozen=True)
class Samples:
    """All samples of a dataset.

    Attributes:
        fps: Frames per second.
        episode_of: int64, (N,).
        cameras: Those that are video.
    """

    fps: float
    episode_of: NDArray[np.int64]
    cameras: list[Camera]

    def __len__(self) -> int:
        return len(self.episode_of)


def read_samples(root: Path) -> Samples:
    info = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))
    names = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    files = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    wanted = ["episode_index", "length"]
    wanted += [f"videos/{name}/{what}" for name in names for what in ("chunk_index", "file_index", "from_timestamp")]
    rows: list[dict[str, Any]] = []
    for file in files:
        rows += pq.ParquetFile(file).read(columns=wanted).to_pylist()
    rows.sort(key=lambda row: row["episode_index"])
    cameras = [_camera(root, info, name, rows) for name in names]
    episode_of = np.repeat([row["episode_index"] for row in rows], [row["length"] for row in rows])
    return Samples(float(info["fps"]), episode_of.astype(np.int64), cameras)


def _camera(root: Path, info: dict[str, Any], name: str, rows: list[dict[str, Any]]) -> Camera:
    paths: dict[str, int] = {}
    file_of, seconds = [], []
    for row in rows:
        place = {what: row[f"videos/{name}/{what}"] for what in ("chunk_index", "file_index")}
        path = str(root / info["video_path"].format(video_key=name, **place))
        file_of.append(np.full(row["length"], paths.setdefault(path, len(paths)), np.int64))
        seconds.append(row[f"videos/{name}/from_timestamp"] + np.arange(row["length"]) / info["fps"])
    return Camera(name, list(paths), np.concatenate(file_of), np.concatenate(seconds))


def keyframes_of(path: str) -> NDArray[np.int64]:
    """Which frames of a file are keyframes, counted as they are shown, ascending."""
    with av.open(path) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    shown = sorted(packets, key=lambda packet: packet.pts or 0)
    return np.flatnonzero([packet.is_keyframe for packet in shown])


def frames_one_by_one(keyframes: NDArray[np.int64], indices: NDArray[np.int64]) -> int:
    """What must be decoded for frames each of which begins at its keyframe."""
    return int(np.sum(indices - keyframes[np.searchsorted(keyframes, indices, side="right") - 1] + 1))


def frames_in_one_pass(keyframes: NDArray[np.int64], indices: NDArray[np.int64]) -> int:
    """What must be decoded for frames in ascending order, each GOP once, up to the last one wanted of it."""
    gops = np.searchsorted(keyframes, indices, side="right") - 1
    return sum(int(indices[gops == gop].max() - keyframes[gop] + 1) for gop in np.unique(gops))
