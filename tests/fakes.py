"""A dataset without media, whose every frame says which sample and camera it is, and which fails on request."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import Progress, ReadReport, Sink
from millpond._values import Field
from millpond.errors import CorruptMedia, DataError, MillpondError

HEIGHT, WIDTH = 4, 6


def picture_of(sample: int, camera: int) -> NDArray[np.uint8]:
    """uint8 (4, 6, 3): the sample's number in its first bytes, the camera in the next."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    flat = picture.reshape(-1)
    flat[:4] = np.frombuffer(np.uint32(sample).tobytes(), np.uint8)
    flat[4] = camera
    flat[5:] = 200
    return picture


def identity_of(picture: NDArray[np.uint8]) -> tuple[int, int]:
    """(sample, camera) of a delivered uint8 (3, 4, 6) picture."""
    flat = np.ascontiguousarray(np.moveaxis(picture, -3, -1)).reshape(-1)
    assert (flat[5:] == 200).all(), "a picture that nobody wrote whole"
    return int(flat[:4].view(np.uint32)[0]), int(flat[4])


@dataclass
class FakeReader:
    """Gives `picture_of`; `bad` samples fail; at `deadly` ones a worker dies, once if there is a path `died`; it is
    `stuck` for ever at others."""

    cameras: tuple[str, ...]
    episode_frames: int
    total: int
    offsets: tuple[int, ...] | None
    bad: frozenset[int] = frozenset()
    deadly: frozenset[int] = frozenset()
    died: Path | None = None
    broken: bool = False
    stuck: frozenset[int] = frozenset()

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        if self.broken:
            raise TypeError("a bug in a reader")
        self._die_once(samples)
        while set(samples.tolist()) & self.stuck:
            pass
        wanted = samples[:, None] + np.asarray(self.offsets or (0,))
        first = samples // self.episode_frames * self.episode_frames
        last = np.minimum(first + self.episode_frames, self.total) - 1
        frames = np.clip(wanted, first[:, None], last[:, None])
        unique, window = np.unique(frames, return_inverse=True)
        write = sink.frame_writer(part, window.reshape(frames.shape).astype(np.int32))
        camera = self.cameras.index(part)
        for j, sample in enumerate(unique.tolist()):
            if sample not in self.bad:
                write(j, picture_of(sample, camera))
            progress()
        if camera == 0:
            sink.put("index", samples)
            sink.put("state", np.stack([samples, -samples], axis=1).astype(np.float32))
        failed = np.flatnonzero(np.isin(frames, list(self.bad)).any(axis=1))
        failures: list[tuple[NDArray[np.int64], MillpondError]] = []
        if len(failed):
            failures.append((failed, CorruptMedia(f"{part} is corrupt", camera=part)))
        return ReadReport(failures, {"frames_decoded": len(unique)}, learned=(part, len(unique)))

    def _die_once(self, samples: NDArray[np.int64]) -> None:
        if not set(samples.tolist()) & self.deadly:
            return
        try:
            if self.died is not None:
                self.died.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def attributes(self, sample: int) -> dict[str, Any]:
        return {"task": f"task {sample % 3}"}

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class FakeDataset:
    """`total` samples in episodes of `episode_frames`, a GOP every `gop`."""

    total: int = 400
    gop: int = 10
    episode_frames: int = 50
    cameras: tuple[str, ...] = ("front", "wrist")
    offsets: tuple[int, ...] | None = None
    bad: frozenset[int] = frozenset()
    deadly: frozenset[int] = frozenset()
    died: Path | None = None
    broken: bool = False
    stuck: frozenset[int] = frozenset()
    fingerprint: str = "fake"
    reader_modules: tuple[str, ...] = ()
    learned: list[object] = field(default_factory=list)
    lost: tuple[DataError, ...] = ()
    byte_source: None = None

    @property
    def fields(self) -> tuple[Field, ...]:
        steps = () if self.offsets is None else (len(self.offsets),)
        pictures = [Field(camera, (*steps, HEIGHT, WIDTH, 3), "uint8", frames=True) for camera in self.cameras]
        return (*pictures, Field("index", (), "int64"), Field("state", (2,), "float32"))

    @property
    def parts(self) -> tuple[str, ...]:
        return self.cameras

    @property
    def part_fields(self) -> Mapping[str, tuple[str, ...]]:
        return {camera: (camera, "index", "state") if at == 0 else (camera,) for at, camera in enumerate(self.cameras)}

    @property
    def groups(self) -> NDArray[np.int64]:
        return np.arange(self.total) // self.episode_frames

    def __len__(self) -> int:
        return self.total

    def cuts(self) -> NDArray[np.int64]:
        return np.append(np.arange(0, self.total, self.gop), self.total)

    def cut_costs(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        return (stops - starts // self.gop * self.gop) * len(self.cameras)

    def unique_frames(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        reach = 0 if self.offsets is None else max(self.offsets) - min(self.offsets)
        episodes = (stops - 1) // self.episode_frames - starts // self.episode_frames + 1
        return stops - starts + reach * episodes

    def reader(self) -> FakeReader:
        return FakeReader(
            self.cameras,
            self.episode_frames,
            self.total,
            self.offsets,
            self.bad,
            self.deadly,
            self.died,
            self.broken,
            self.stuck,
        )

    def describe(self, sample: int) -> dict[str, Any]:
        return {"episode_index": sample // self.episode_frames, "frame_index": sample % self.episode_frames}

    def decorate(self, batch: dict[str, Any], samples: NDArray[np.int64]) -> None:
        batch["task"] = [f"task {sample % 3}" for sample in samples]

    def learn(self, learned: object) -> None:
        self.learned.append(learned)

    def keep_learned(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""
