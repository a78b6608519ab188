"""The contender LeRobotDataset + torch's DataLoader, in an environment of its own. Started by `_process.Contender`.

This file is run by the peers' Python (see README.md), and imports nothing of millpond.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported

import _torchvision_shim  # noqa: F401, I001  before anything that imports torchvision
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torchvision.transforms import v2


def make_loader(
    *, root: str, delta_timestamps: Any, image_size: Any, batch_size: int, num_workers: int
) -> torch.utils.data.DataLoader[Any]:
    """Take its defaults, and torchcodec, which is its fastest backend."""
    dataset = LeRobotDataset(
        "local/bench",
        root=root,
        delta_timestamps=delta_timestamps,
        image_transforms=v2.Resize(tuple(image_size), antialias=True) if image_size else None,
        video_backend="torchcodec",
    )
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers)


def run_slice(loader: torch.utils.data.DataLoader[Any], seconds: float) -> dict[str, Any]:
    """Time batches of a fresh epoch, from one turn of all workers to a later one.

    The first turn starts workers and opens decoders, and is not timed. Workers deliver nearly in step, so counting from
    and to a whole turn leaves no batch half counted. They end with the slice, and decode nothing in the others'.
    """
    batches = iter(loader)
    turn = loader.num_workers
    for _ in range(turn):
        next(batches)
    samples, began = 0, time.monotonic()
    for number, batch in enumerate(batches, start=1):
        samples += len(batch["index"])
        elapsed = time.monotonic() - began
        if number % turn == 0 and elapsed >= seconds:
            break
    return {"samples": samples, "wall_seconds": elapsed}


def main() -> None:
    from importlib.metadata import version

    versions = {name: version(name) for name in ("lerobot", "torch", "torchvision", "torchcodec", "av", "datasets")}
    print(json.dumps(versions), flush=True)
    loader: torch.utils.data.DataLoader[Any] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if request.pop("do") == "construct":
            loader = make_loader(**request)
            answer: dict[str, Any] = {"num_samples": len(loader.dataset)}
        else:
            assert loader is not None
            answer = run_slice(loader, **request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
