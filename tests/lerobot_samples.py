"""LeRobot's datasets over ours, and what claims about them need. Workers import it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets import video_utils
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from millpond import VideoDecoderCache
from millpond._synth import read_pattern

CAMERAS = ("observation.images.front", "observation.images.wrist")


def opened(root: Path, **options: Any) -> Any:
    """LeRobot's own class over a folder."""
    return LeRobotDataset("local/dataset", root=root, **options)


def windows(fps: int) -> dict[str, list[float]]:
    """Of pictures and of actions, some of them before the episode and some after it."""
    return {CAMERAS[0]: [-3 / fps, 0.0, 1 / fps], "action": [0.0, 1 / fps]}


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Two samples are the same to the bit: keys, dtypes, shapes and values."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.dtype
            assert torch.equal(found[key], value), key
        else:
            assert found[key] == value


def shown(sample: Mapping[str, Any], camera: str) -> tuple[int, int, int]:
    """(episode, camera, frame) that a synthesized picture says."""
    picture = (sample[camera] * 255).round().to(torch.uint8)
    return read_pattern(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))


def named(sample: Mapping[str, Any], number: int) -> tuple[int, int, int]:
    """The same, of the numbers beside it."""
    return int(sample["episode_index"]), number, int(sample["frame_index"])


def videos_open() -> list[str]:
    """MP4 files that this process has descriptors of; one entry each."""
    targets = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # the one with which the folder is listed
            continue
    return [target for target in targets if target.endswith(".mp4")]


def with_process(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate by naming the process and what decodes in it."""
    cache: Any = vars(video_utils)["_default_decoder_cache"]
    is_ours = isinstance(cache, VideoDecoderCache)
    return {
        "samples": list(samples),
        "pid": os.getpid(),
        "max_size": cache.max_size if is_ours else "LeRobot's own",
        "opened": cache.statistics().misses if is_ours else 0,
        "descriptors": len(videos_open()),
    }
