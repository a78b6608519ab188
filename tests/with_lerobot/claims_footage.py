"""The same of real footage, as LeRobot's own writer has put it down."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lerobot.datasets import lerobot_dataset

import millpond.lerobot
from lerobot_samples import assert_same, opened, windows

pytestmark = pytest.mark.usefixtures("torchcodec")

NAMES = ["lerobot_v3_av1", "lerobot_v3_h264_gop30", "lerobot_v3_h264_gop250", "lerobot_v3_multifile"]
_STEP = 16


@pytest.mark.parametrize("name", NAMES)
def test_frames_in_order_are_the_same(shared_dir: Path, name: str) -> None:
    root = shared_dir / "data" / name
    dataset = opened(root)
    episode = dataset.meta.episodes[dataset.meta.total_episodes // 2]
    for camera in dataset.meta.video_keys:
        path = root / dataset.meta.get_video_file_path(episode["episode_index"], camera)
        times = [episode[f"videos/{camera}/from_timestamp"] + n / dataset.fps for n in range(episode["length"])]
        for start in range(0, len(times), 2 * _STEP):
            call = (path, times[start : start + _STEP], 1e-4, "torchcodec")
            expected = lerobot_dataset.decode_video_frames(*call)
            with millpond.lerobot.patch():
                assert torch.equal(lerobot_dataset.decode_video_frames(*call), expected)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_the_same(shared_dir: Path, name: str) -> None:
    dataset = opened(shared_dir / "data" / name, delta_timestamps=windows(30), video_backend="torchcodec")
    for index in range(0, len(dataset), 997):
        expected = dataset[index]
        with millpond.lerobot.patch():
            assert_same(dataset[index], expected)
