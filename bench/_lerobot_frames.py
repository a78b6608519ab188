"""Where each sample of a LeRobot v3 dataset lies: its frames in the video files, and its row. Only pyarrow and numpy.

People who read such a dataset without LeRobot write this by hand; here it is written once, for every peer that has no
reader of its own, and for the independent decode that all pictures are held against.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

COLUMNS = ("observation.state", "action", "episode_index", "index")


@dataclass(frozen=True)
class LeRobotFrames:
    """Sample i is row i.

    Attributes:
        fps: Of all videos.
        cameras: Names, in the order of the dataset's features.
        columns: Of all samples, beside the pictures.
        files: Of each camera, all video files.
        file_of: Of each camera, an index into its `files` for each sample.
        frame_of: Of each camera, the number of a sample's frame in its file.
        first_frame_of: Of each camera, the number of the first frame of the sample's episode in that file.
        window_frames: Frames of each camera in a sample: so many latest ones, the sample's own last, and none from
            before its episode, whose first frame is shown again instead.
    """

    fps: float
    cameras: tuple[str, ...]
    columns: dict[str, NDArray[Any]]
    files: dict[str, list[str]]
    file_of: dict[str, NDArray[np.int64]]
    frame_of: dict[str, NDArray[np.int64]]
    first_frame_of: dict[str, NDArray[np.int64]]
    window_frames: int

    def __len__(self) -> int:
        return len(self.columns["index"])

    def window(self, camera: str, sample: int) -> list[int]:
        """Numbers of the sample's frames in their file, ascending."""
        last, first = int(self.frame_of[camera][sample]), int(self.first_frame_of[camera][sample])
        return [max(first, last - back) for back in range(self.window_frames - 1, -1, -1)]

    def file(self, camera: str, sample: int) -> str:
        return self.files[camera][self.file_of[camera][sample]]

    def row(self, samples: Any) -> dict[str, Any]:
        """State, action and indices of one sample, or of many."""
        return {name: values[samples] for name, values in self.columns.items()}


def read_frames(root: str | Path, window_frames: int) -> LeRobotFrames:
    root = Path(root)
    info = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))
    cameras = tuple(name for name, feature in info["features"].items() if feature["dtype"] == "video")
    rows = _columns_of(root / "data", [*(name for name in COLUMNS if name in info["features"]), "frame_index"])
    names = [f"videos/{camera}/{field}" for camera in cameras for field in _VIDEO_FIELDS]
    episodes = _columns_of(root / "meta" / "episodes", ["episode_index", *names])
    of_episode = np.empty(int(episodes["episode_index"].max()) + 1, np.int64)
    of_episode[episodes["episode_index"]] = np.arange(len(episodes["episode_index"]))
    place = of_episode[rows["episode_index"]]  # of each sample, its episode's row
    files, file_of, frame_of, first_frame_of = {}, {}, {}, {}
    for camera in cameras:
        chunk, file, began = (episodes[f"videos/{camera}/{field}"] for field in _VIDEO_FIELDS)
        keys, which = np.unique(np.stack([chunk, file]), axis=1, return_inverse=True)
        files[camera] = [
            str(root / info["video_path"].format(video_key=camera, chunk_index=int(chunk), file_index=int(file)))
            for chunk, file in keys.T
        ]
        file_of[camera] = which.ravel()[place]
        first_frame_of[camera] = np.rint(began * info["fps"]).astype(np.int64)[place]
        frame_of[camera] = first_frame_of[camera] + rows["frame_index"]
    columns = {name: values for name, values in rows.items() if name in COLUMNS}
    return LeRobotFrames(info["fps"], cameras, columns, files, file_of, frame_of, first_frame_of, window_frames)


_VIDEO_FIELDS = ("chunk_index", "file_index", "from_timestamp")


def _columns_of(folder: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    """Of all its files, one after the other; vectors become rows of a matrix."""
    tables = [pq.read_table(path, columns=names) for path in sorted(folder.glob("*/*.parquet"))]
    return {name: np.concatenate([np.array(table[name].to_pylist()) for table in tables]) for name in names}
