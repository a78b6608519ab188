"""Whole epochs of a loader, long enough to be timed, every sample known by the CRC-32 of its pixels."""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import millpond
from millpond._synth import write_dataset

SYNTH: dict[str, Any] = {
    "episodes": 12,
    "frames": 100,
    "cameras": 2,
    "size": (240, 320),
    "codec": "h264",
    "gop": 10,
}


@dataclass(frozen=True)
class Epoch:
    """What came, in which order, and how fast.

    Attributes:
        samples: (index in the dataset, CRC-32 of the pixels of all cameras) in the order of delivery.
        wall_seconds: From asking for the epoch to its last batch.
        training_cpu_seconds: Of this process, the CRCs included.
        longest_wait_seconds: For a batch.
        first_batch_seconds: From asking for the epoch to its first batch.
    """

    samples: list[tuple[int, int]]
    wall_seconds: float
    training_cpu_seconds: float
    longest_wait_seconds: float
    first_batch_seconds: float

    @property
    def samples_per_second(self) -> float:
        return len(self.samples) / self.wall_seconds

    def __str__(self) -> str:
        return (
            f"{self.samples_per_second:.0f} samples/s, {self.wall_seconds:.1f} s, "
            f"longest wait {self.longest_wait_seconds:.2f} s"
        )


def add_options(parser: argparse.ArgumentParser, *, seconds: float, num_workers: int) -> None:
    parser.add_argument("dataset", nargs="?", type=Path, help="of LeRobot v3; none: one that is made for this")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="least length of a calm epoch (default: %(default)s)"
    )
    parser.add_argument("--num-workers", type=int, default=num_workers, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--memory", default="1GiB", help="(default: %(default)s)")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="figures go here, too")


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What is told of a run; no path."""
    return {name: value for name, value in vars(options).items() if name not in ("dataset", "json")}


@contextmanager
def dataset_of(options: argparse.Namespace) -> Iterator[Path]:
    """The folder that was given, or a small synthetic dataset for the time of the block."""
    if options.dataset is not None:
        yield options.dataset
        return
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        yield write_dataset(Path(folder) / "synth", **SYNTH)


def open_dataset(root: Path, options: argparse.Namespace) -> millpond.LeRobotDataset:
    return millpond.LeRobotDataset(root, image_size=tuple(options.image_size) if options.image_size else None)


def make_loader(dataset: Any, options: argparse.Namespace, **changes: Any) -> millpond.Loader:
    settings = {
        "batch_size": options.batch_size,
        "shuffle": True,
        "seed": options.seed,
        "num_workers": options.num_workers,
        "memory": options.memory,
        "output": "numpy",
    }
    return millpond.Loader(dataset, **settings | changes)


def repeats_to_fill(root: Path, options: argparse.Namespace) -> int:
    """How often a dataset is to be gone through for an epoch to last long enough: by the fastest of three, since a
    machine that stands still amid one makes it look long."""
    seconds = math.inf
    with make_loader(open_dataset(root, options), options) as loader:
        for _ in range(3):
            began = time.monotonic()
            for _batch in loader:
                pass
            del _batch
            seconds = min(seconds, time.monotonic() - began)
    return max(1, int(1.2 * options.seconds / seconds) + 1)


def run_epoch(loader: millpond.Loader, *, crcs: bool = True) -> Epoch:
    """Run epoch 0, so that all of a loader's epochs are the same."""
    cameras = [field.name for field in loader.dataset.fields if field.frames] if crcs else []
    loader.set_epoch(0)
    samples: list[tuple[int, int]] = []
    longest = first = 0.0
    cpu, began = time.process_time(), time.monotonic()
    asked = began
    for batch in loader:
        longest = max(longest, time.monotonic() - asked)
        first = first or longest
        pictures = [np.moveaxis(batch[camera], -3, -1) for camera in cameras]
        for row, index in enumerate(batch["index"].tolist()):
            crc = 0
            for camera in pictures:
                crc = zlib.crc32(np.ascontiguousarray(camera[row]), crc)
            samples.append((index, crc))
        asked = time.monotonic()
    return Epoch(samples, time.monotonic() - began, time.process_time() - cpu, longest, first)
