"""A dataset that is all numbers: a million episodes of cameras, none of which is anywhere; for planning alone.

It stands for a LeRobot dataset: metadata says how long each episode is, each camera's episodes lie one after the other
in files of some hundred episodes, and where a segment may start, and what its bytes are, is known of files that were
looked at (by their sidecars). A rank opens the files that its samples are in, and no others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import WantedRange
from millpond._plan.requests import plan_requests
from millpond._sources.limits import FETCH_LIMITS
from millpond._values import ByteRange, Field

Array = NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """What a modelled dataset is.

    Attributes:
        episodes: Of it.
        episode_frames: Of each, in the mean; they differ by up to a half either way.
        gop: Frames from one keyframe to the next; an episode begins with one.
        cameras: Of each episode.
        episodes_per_file: Of a camera's file.
        frame_bytes: Compressed, in the mean.
        key_factor: A keyframe's bytes over another frame's.
        size: Height and width of a picture.
        seed: Of the lengths of episodes.
    """

    episodes: int
    episode_frames: int
    gop: int
    cameras: int
    episodes_per_file: int
    frame_bytes: int
    key_factor: float
    size: tuple[int, int]
    seed: int = 0

    @property
    def num_files(self) -> int:
        """Of videos, all cameras."""
        return -(-self.episodes // self.episodes_per_file) * self.cameras

    @property
    def delta_bytes(self) -> int:
        """Of a frame that is no keyframe."""
        return max(1, round(self.frame_bytes * self.gop / (self.key_factor + self.gop - 1)))

    def bounds(self) -> Array:
        """int64 (episodes + 1,): first sample of each episode, and all; the metadata, read whole by every rank."""
        half = self.episode_frames // 2
        lengths = np.random.default_rng(self.seed).integers(self.episode_frames - half, self.episode_frames + half + 1,
                                                           self.episodes)  # fmt: skip
        return np.concatenate(([0], np.cumsum(lengths)))


class ModelledDataset:
    """The episodes `first` to `stop` of a shape, as `Loader` sees them; nothing can be read from it.

    Attributes:
        fingerprint, reader_modules, lost, part_fields: As `Dataset` has them.
    """

    fingerprint = "modelled"
    reader_modules: tuple[str, ...] = ()
    lost = ()

    def __init__(self, shape: Shape, bounds: Array | None = None, first: int = 0, stop: int | None = None) -> None:
        self.shape = shape
        self._all_bounds = shape.bounds() if bounds is None else bounds
        self._first, self._stop = first, shape.episodes if stop is None else stop

    def __len__(self) -> int:
        return int(self._all_bounds[self._stop] - self._all_bounds[self._first])

    @property
    def is_surveyed(self) -> bool:
        """See `PartlyOpened`."""
        return False

    def opened_for(self, start: int, stop: int) -> tuple[ModelledDataset, int]:
        """See `PartlyOpened`."""
        per_file = self.shape.episodes_per_file
        first, last = np.searchsorted(self._all_bounds, (start, stop - 1), side="right") - 1
        begin, end = int(first) // per_file * per_file, (int(last) // per_file + 1) * per_file
        part = ModelledDataset(self.shape, self._all_bounds, begin, min(end, self.shape.episodes))
        return part, int(self._all_bounds[begin])

    @property
    def num_files(self) -> int:
        """Of videos, which must be looked at for this part."""
        return -(-(self._stop - self._first) // self.shape.episodes_per_file) * self.shape.cameras

    @property
    def bounds(self) -> Array:
        """int64 (E + 1,): first sample of each episode of this part."""
        return self._all_bounds[self._first : self._stop + 1] - self._all_bounds[self._first]

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `Dataset`."""
        pictures = [Field(part, (*self.shape.size, 3), "uint8", frames=True) for part in self.parts]
        return (*pictures, Field("state", (14,), "float32"), Field("action", (14,), "float32"))

    @property
    def parts(self) -> tuple[str, ...]:
        """See `Dataset`."""
        return tuple(f"camera{number}" for number in range(self.shape.cameras))

    @property
    def part_fields(self) -> dict[str, tuple[str, ...]]:
        """See `Dataset`."""
        first, *others = self.parts
        return {first: (first, "state", "action")} | {part: (part,) for part in others}

    @property
    def groups(self) -> Array:
        """See `Dataset`."""
        return np.repeat(np.arange(self._first, self._stop), np.diff(self.bounds))

    def cuts(self) -> Array:
        """See `Dataset`."""
        bounds, gops = self.bounds, -(-np.diff(self.bounds) // self.shape.gop)
        first = np.repeat(bounds[:-1] - self.shape.gop * (np.cumsum(gops) - gops), gops)
        return np.append(first + self.shape.gop * np.arange(len(first)), bounds[-1])

    def cut_costs(self, starts: Array, stops: Array) -> Array:
        """See `Dataset`."""
        first = self.bounds[np.searchsorted(self.bounds, starts, side="right") - 1]
        costs: Array = (stops - starts + (starts - first) % self.shape.gop) * self.shape.cameras
        return costs

    def unique_frames(self, starts: Array, stops: Array) -> Array:
        """See `Dataset`."""
        return stops - starts

    def describe(self, sample: int) -> dict[str, Any]:
        """See `Dataset`."""
        return {}

    @cached_property
    def byte_source(self) -> ModelledBytes:
        """See `Dataset`."""
        return ModelledBytes(self)

    def close(self) -> None:
        """Nothing is open."""


class ModelledBytes:
    """Which bytes tasks want, as far as that is asked of a `ByteSource` before anything is fetched."""

    def __init__(self, dataset: ModelledDataset) -> None:
        self._dataset, self._shape, self._bounds = dataset, dataset.shape, dataset.bounds

    def segment_bytes(self, starts: Array, stops: Array) -> Array:
        """See `ByteSource`."""
        return self._dataset.cut_costs(starts, stops) * self._shape.frame_bytes

    def wanted(self, parts: Sequence[str], samples: Array) -> list[WantedRange]:
        """See `ByteSource`; of each episode that the samples are in, from the keyframe before them to the last."""
        found: list[WantedRange] = []
        first, last = np.searchsorted(self._bounds, samples[[0, -1]], side="right") - 1
        per_file = self._shape.episodes_per_file
        ranges: dict[int, list[ByteRange]] = {}
        for episode in range(int(first), int(last) + 1):
            start = max(int(samples[0]), int(self._bounds[episode])) - int(self._bounds[episode])
            stop = min(int(samples[-1]) + 1, int(self._bounds[episode + 1])) - int(self._bounds[episode])
            base = self._bytes_before(episode)
            key = start // self._shape.gop * self._shape.gop
            one = ByteRange(base + self._episode_bytes(key), base + self._episode_bytes(stop))
            ranges.setdefault(episode // per_file, []).append(one)
        for part in parts:
            for file, its in ranges.items():
                joined = plan_requests(its, FETCH_LIMITS.max_gap_bytes, sys.maxsize).requests
                found += [WantedRange(part, file, one.start, one.stop) for one in joined]
        return found

    def _bytes_before(self, episode: int) -> int:
        """Of an episode's first frame in its file."""
        first = episode // self._shape.episodes_per_file * self._shape.episodes_per_file
        lengths = np.diff(self._bounds[first : episode + 1])
        return sum(map(self._episode_bytes, lengths.tolist()))

    def _episode_bytes(self, frames: int) -> int:
        """Of the first frames of an episode."""
        keys = -(-frames // self._shape.gop)
        return round(self._shape.delta_bytes * (frames + keys * (self._shape.key_factor - 1)))


def as_dict(shape: Shape) -> dict[str, Any]:
    """What `Shape(**...)` takes."""
    return {**vars(shape), "size": list(shape.size)}
