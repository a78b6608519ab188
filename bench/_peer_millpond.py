"""The contender millpond: constructs a loader, runs whole epochs. Started by `_process.Contender`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import millpond
from _peer import Batch, contend

if importlib.util.find_spec("torch"):
    import torch  # noqa: F401  a training process has it before it makes a loader: it is no cost of the loader's


class MillpondSide:
    """One loader for all epochs, as in training: its workers stay."""

    fills_up = True  # its pond

    def __init__(
        self, *, root: str, window_frames: int, image_size: Any, batch_size: int, num_workers: int, **loader: Any
    ) -> None:
        plain = millpond.LeRobotDataset(root)
        self.cameras = plain.cameras
        seconds = [back / plain.fps for back in range(1 - window_frames, 1)]
        dataset = millpond.LeRobotDataset(
            root,
            delta_timestamps=dict.fromkeys(self.cameras, seconds) if window_frames > 1 else None,
            image_size=tuple(image_size) if image_size else None,
        )
        self.num_samples = len(dataset)
        self.loader = millpond.Loader(
            dataset, batch_size=batch_size, num_workers=num_workers, shuffle=True, seed=0, **loader
        )

    def epoch(self) -> Iterator[Batch]:
        yield from self.loader

    def facts(self) -> dict[str, Any]:
        return {"memory_plan": str(self.loader.memory_plan())}

    def close(self) -> None:
        self.loader.close()


if __name__ == "__main__":
    contend(MillpondSide, millpond=version("millpond"))
