"""The contenders of LeRobot, in the peers' environment: LeRobotDataset, and with `--streaming` StreamingLeRobotDataset.

Both with torch's DataLoader, and with their own defaults and torchcodec, which is LeRobot's fastest backend.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from _peer import Batch, contend, leave

os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported

try:
    import _torchvision_shim  # noqa: F401, I001  before anything that imports torchvision
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
    from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2
except (ImportError, OSError, RuntimeError) as error:
    leave(error)

NAME = "local/bench"
VERSIONS = ("lerobot", "torch", "torchvision", "torchcodec", "av", "datasets")


class LeRobotSide:
    """Its map-style dataset."""

    fills_up = False

    def __init__(
        self, *, root: str, window_frames: int, image_size: Any, batch_size: int, num_workers: int, **more: Any
    ) -> None:
        told = LeRobotDatasetMetadata(NAME, root)
        self.cameras = tuple(told.video_keys)
        self.num_samples = told.total_frames
        self.arguments = {
            "root": root,
            "delta_timestamps": self.windows(window_frames, told.fps),
            "image_transforms": v2.Resize(tuple(image_size), antialias=True) if image_size else None,
            **more,
        }
        self.loader = self.make_loader(batch_size, num_workers)

    def windows(self, frames: int, fps: int) -> dict[str, list[float]] | None:
        """The latest frames of every camera, the sample's own last."""
        seconds = [back / fps for back in range(1 - frames, 1)]
        return dict.fromkeys(self.cameras, seconds) if frames > 1 else None

    def make_loader(self, batch_size: int, num_workers: int) -> DataLoader[Any]:
        dataset = LeRobotDataset(NAME, **self.arguments, video_backend="torchcodec")
        return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers)

    def epoch(self) -> Iterator[Batch]:
        yield from self.loader

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


class StreamingSide(LeRobotSide):
    """It shuffles by itself, within a buffer; more workers than there are files of rows get nothing to do."""

    fills_up = True

    def make_loader(self, batch_size: int, num_workers: int) -> DataLoader[Any]:
        dataset = StreamingLeRobotDataset(NAME, **self.arguments)
        self.data_files = dataset.hf_dataset.num_shards
        return DataLoader(dataset, batch_size=batch_size, num_workers=min(num_workers, self.data_files))

    def facts(self) -> dict[str, Any]:
        return {"workers": self.loader.num_workers, "data_files": self.data_files}


if __name__ == "__main__":
    side = StreamingSide if "--streaming" in sys.argv else LeRobotSide
    contend(side, **{name: version(name) for name in VERSIONS})
