"""Which frame of an MP4 each sample shows: by the sample table's times, compared with what the metadata says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.layout import Layout, Placement
from millpond._datasets.places import NOWHERE, Places, Runs
from millpond._plan.sample_table import SampleTable
from millpond.errors import CorruptMedia, DataError, FrameTimestampError


@dataclass(frozen=True)
class Claims:
    """What the metadata says of the episodes of one camera.

    Attributes:
        camera: The feature.
        placement: The files, and the times in them.
        layout: All the rest.
    """

    camera: str
    placement: Placement
    layout: Layout

    def contradictions(self) -> dict[int, DataError]:
        """Episodes, of all that there are, whose times cannot be right whatever the files hold."""
        found = self._wrong_spans()
        # An episode whose own numbers disagree says nothing about others.
        is_sound = ~np.isin(np.arange(len(self.layout.lengths)), list(found))
        for file in range(len(self.placement.paths)):
            episodes = np.flatnonzero(is_sound & (self.placement.file_of == file))
            for episode, other in self._overlaps(episodes).items():
                text = f"its time in the file overlaps that of episode {self.layout.episode_index[other]}"
                found[episode] = self._error(episode, text)
        return found

    def _wrong_spans(self) -> dict[int, DataError]:
        start, stop, lengths = self.placement.from_seconds, self.placement.to_seconds, self.layout.lengths
        frames = (stop - start) * self.layout.fps
        with np.errstate(invalid="ignore"):
            is_right = (start >= -0.5 / self.layout.fps) & (np.abs(frames - lengths) <= 0.5)  # False for NaN
        return {
            episode: self._error(
                episode,
                f"meta/episodes gives it {lengths[episode]} frames, but {start[episode]:.6f} s to "
                f"{stop[episode]:.6f} s of the file, which is {frames[episode]:.2f} frames",
            )
            for episode in np.flatnonzero(~is_right).tolist()
        }

    def _overlaps(self, episodes: NDArray[np.int64]) -> dict[int, int]:
        """Episodes of one file that share half a frame or more with another, and with which."""
        slack = 0.5 / self.layout.fps
        order = episodes[np.argsort(self.placement.from_seconds[episodes], kind="stable")]
        start = self.placement.from_seconds[order]
        stop = start + self.layout.lengths[order] / self.layout.fps - slack
        found: dict[int, int] = {}
        if len(order) < 2:
            return found
        reach = np.maximum.accumulate(stop)
        for late in (np.flatnonzero(start[1:] < reach[:-1]) + 1).tolist():
            early = int(np.argmax(stop[:late]))
            found.setdefault(int(order[late]), int(order[early]))
            found.setdefault(int(order[early]), int(order[late]))
        return found

    def _error(self, episode: int, text: str) -> DataError:
        number, path = int(self.layout.episode_index[episode]), self.path_of(episode)
        return CorruptMedia(
            f"episode {number} of camera {self.camera!r}: {text} ('{path}')",
            path=path,
            episode=number,
            camera=self.camera,
        )

    def path_of(self, episode: int) -> str:
        """The file of an episode."""
        return self.placement.paths[int(self.placement.file_of[episode])]


def match_frames(
    claims: Claims, file: int, table: SampleTable, episodes: NDArray[np.int64], tolerance_s: float, places: Places
) -> None:
    """Find the frames of some episodes in one file.

    Args:
        claims: The metadata of the camera.
        file: The file's number.
        table: Of that file.
        episodes: int64, (n,), positions in the layout, in this file, without contradictions.
        tolerance_s: Greatest distance of a frame's time from the sample's.
        places: Takes the results.
    """
    if not len(episodes):
        return
    lengths, fps = claims.layout.lengths[episodes], claims.layout.fps
    runs = Runs.of(lengths)
    # The times of samples are frame / fps in float64: `timestamp` was compared with that, and is float32.
    seconds = claims.placement.from_seconds[episodes][runs.episode] + runs.position / fps
    frames, distance = _nearest(table.frame_seconds, seconds)
    frames[distance > tolerance_s] = NOWHERE
    firsts = frames[runs.bounds[:-1]]
    is_run = runs.all((frames != NOWHERE) & (frames == firsts[runs.episode] + runs.position))
    places.put(episodes[is_run], file, firsts[is_run])
    for n in np.flatnonzero(~is_run).tolist():
        own = slice(int(runs.bounds[n]), int(runs.bounds[n + 1]))
        _match_one(claims, file, table, int(episodes[n]), frames[own], distance[own], tolerance_s, places)


def _nearest(times: NDArray[np.float64], seconds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The frame nearest to each time, and how far it is."""
    if not len(times):
        return np.zeros(len(seconds), np.int64), np.full(len(seconds), np.inf)
    after = np.minimum(np.searchsorted(times, seconds), len(times) - 1)
    before = np.maximum(after - 1, 0)
    frames = np.where(times[after] - seconds < seconds - times[before], after, before)
    return frames.astype(np.int64), np.abs(times[frames] - seconds)


def _match_one(
    claims: Claims,
    file: int,
    table: SampleTable,
    episode: int,
    frames: NDArray[np.int64],
    distance: NDArray[np.float64],
    tolerance_s: float,
    places: Places,
) -> None:
    """An episode that is no run of frames: say what is missing, or that it is another count altogether."""
    number, path, camera = int(claims.layout.episode_index[episode]), claims.path_of(episode), claims.camera
    facts = {"path": path, "episode": number, "camera": camera}
    who = f"episode {number} of camera {camera!r}"
    missing = np.flatnonzero(frames == NOWHERE)
    found = frames[frames != NOWHERE]
    if not len(missing) or np.any(np.diff(found) < 1):
        spanned = int(found[-1] - found[0]) + 1 if len(found) else 0
        places.fail(
            episode,
            CorruptMedia(
                f"{who}: '{path}' shows {spanned} frames in its time, where meta/episodes says {len(frames)}", **facts
            ),
        )
        return
    end = float(table.frame_seconds[-1]) if table.num_frames else 0.0
    start = float(claims.placement.from_seconds[episode])
    problem = FrameTimestampError(
        f"{who}: '{path}' has no frame within {tolerance_s:g} s for {len(missing)} of its {len(frames)} samples, the "
        f"first at {start + missing[0] / claims.layout.fps:.6f} s, {distance[missing[0]]:g} s from the nearest; the "
        f"last of the file's {table.num_frames} frames is at {end:.6f} s",
        frame=int(missing[0]),
        missing_frames=len(missing),
        tolerance_seconds=tolerance_s,
        **facts,
    )
    if len(missing) == len(frames):
        places.fail(episode, problem)
    else:
        places.scatter(episode, file, frames.copy(), problem)


def gops_of(table: SampleTable, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The GOP of each frame, and how many frames a decoder gives from the keyframe to it, both included."""
    gop = np.searchsorted(table.gop_starts, frames, side="right") - 1
    return gop.astype(np.int64), (frames - table.gop_starts[gop] + 1).astype(np.int64)


def unclaimed_frames(claims: Claims, file: int, table: SampleTable) -> DataError | None:
    """Say so where a file shows more frames than its episodes, of all that there are, take up."""
    claimed = int(claims.layout.lengths[claims.placement.file_of == file].sum())
    if claimed >= table.num_frames:
        return None
    path = claims.placement.paths[file]
    return CorruptMedia(
        f"camera {claims.camera!r}: '{path}' shows {table.num_frames} frames, its episodes take up {claimed}; the "
        "others are never delivered",
        path=path,
        camera=claims.camera,
        frames=table.num_frames - claimed,
    )
