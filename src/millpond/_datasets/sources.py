"""Where a reader finds the pictures and the numbers of samples: a few numbers per episode, small enough to travel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import ReadReport
from millpond._datasets.dataset_files import DatasetFiles
from millpond._datasets.places import NOWHERE, Places
from millpond._datasets.windows import window_positions
from millpond._media.sidecars import FileVersion
from millpond._values import FileIdentity
from millpond.errors import CorruptMedia, ObjectMissing

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class CameraSource:
    """Where one camera's pictures are.

    Attributes:
        name: The feature.
        in_parquet: PNGs in the data parquets rather than MP4s.
        offsets: int64, (T,), the window.
        files: Of the dataset.
        paths: The places of its files.
        identities: The version of each file that the plan was made from; None where it does not open.
        places: Frames in the MP4s, or rows in the parquets.
        picture_size: (height, width) as delivered.
        is_resized: Whether they are resized to that, or must have that size.
        interpolation: For the resize.
    """

    name: str
    in_parquet: bool
    offsets: Positions
    files: DatasetFiles
    paths: tuple[str, ...]
    identities: tuple[FileIdentity | None, ...]
    places: Places
    picture_size: tuple[int, int]
    is_resized: bool
    interpolation: str

    def version(self, file: int) -> FileVersion:
        """Of a file; ObjectMissing where there was none when the dataset was opened."""
        path, identity = self.paths[file], self.identities[file]
        if identity is None:
            raise ObjectMissing(f"no file at '{path}'", path=path)
        return FileVersion(path, identity)


@dataclass(frozen=True)
class TableSource:
    """Where the numbers are.

    Attributes:
        paths: Column files, mapped; empty where the parquet does not read.
        places: Rows in them.
        columns: Name, shape and dtype of one frame's value.
        offsets: Of the columns and cameras with a window, int64 (T,).
    """

    paths: tuple[str, ...]
    places: Places
    columns: tuple[tuple[str, tuple[int, ...], str], ...]
    offsets: dict[str, Positions]


@dataclass(frozen=True)
class Call:
    """The samples of one call of `read`.

    Attributes:
        episodes: int64, (L,), which episode, 0 to E - 1.
        numbers: int64, (L,), its `episode_index`.
        positions: int64, (L,), which frame of it.
        lengths: int64, (L,), how many frames it has.
    """

    episodes: Positions
    numbers: Positions
    positions: Positions
    lengths: Positions

    @classmethod
    def of(cls, samples: Positions, bounds: Positions, episode_index: Positions) -> Call:
        """Find the episodes of samples; `bounds` is where each begins, int64 (E + 1,)."""
        episodes = np.searchsorted(bounds, samples, side="right") - 1
        starts = bounds[episodes]
        return cls(episodes, episode_index[episodes], samples - starts, bounds[episodes + 1] - starts)


@dataclass(frozen=True)
class FramesWanted:
    """The frames, or pictures, of one camera that the samples of a call show.

    Attributes:
        jobs: (file, number of its first unique frame, frames ascending), each frame once.
        window: int32, (L, T), which unique frame each sample shows at each step; NOWHERE for bad samples.
        bad: bool, (L,), samples without a place.
    """

    jobs: list[tuple[int, int, Positions]]
    window: NDArray[np.int32]
    bad: NDArray[np.bool_]


def frames_wanted(camera: CameraSource, call: Call) -> FramesWanted:
    """What of a camera's files the samples of a call show."""
    positions = window_positions(call.positions, call.lengths, camera.offsets)
    frames = camera.places.at(call.episodes, positions)
    files = camera.places.file_of[call.episodes]
    bad = (frames == NOWHERE).any(axis=1)
    if frames.size == 1 and not bad[0]:  # what is below, but in a third of its time: `dataset[i]` without a window
        return FramesWanted([(int(files[0]), 0, frames[0])], np.zeros((1, 1), np.int32), bad)
    window = np.full(frames.shape, NOWHERE, np.int32)
    jobs: list[tuple[int, int, Positions]] = []
    first = 0
    good = ~bad
    for file in dict.fromkeys(files[good].tolist()):
        own = good & (files == file)
        wanted, inverse = np.unique(frames[own], return_inverse=True)
        window[own] = inverse.reshape(-1, frames.shape[1]) + first
        jobs.append((file, first, wanted))
        first += len(wanted)
    return FramesWanted(jobs, window, bad)


def explain(places: Places, call: Call, bad: NDArray[np.bool_], camera: str | None, report: ReadReport) -> None:
    """Give each sample without a place, bool (L,), the problem of its episode."""
    if not bad.any():
        return
    for episode in np.unique(call.episodes[bad]).tolist():
        hit = np.flatnonzero(bad & (call.episodes == episode))
        problem = places.problems.get(episode)
        if problem is None:
            number = int(call.numbers[hit[0]])
            problem = CorruptMedia(f"episode {number} has no place", episode=number, camera=camera)
        report.failures.append((hit, problem))
