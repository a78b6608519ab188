"""The samples of a patched LeRobot are those of LeRobot as it is, with torchcodec, to the bit."""

from __future__ import annotations

import pytest

import millpond.lerobot
from lerobot_samples import assert_same, opened, windows
from synthesized import MakeDataset

pytestmark = pytest.mark.usefixtures("torchcodec")


@pytest.mark.parametrize(
    ("backend", "codec", "are_windows"),
    [("torchcodec", "h264", False), ("pyav", "av1", False), ("torchcodec", "av1", True), ("pyav", "h264", True)],
)
def test_every_sample_is_the_same(synth: MakeDataset, backend: str, codec: str, are_windows: bool) -> None:
    root = synth(codec=codec, episodes_per_file=2, image_features=1, cameras=3)
    wanted = windows(opened(root).fps) if are_windows else None
    expected = list(opened(root, delta_timestamps=wanted, video_backend="torchcodec"))
    with millpond.lerobot.patch():
        found = list(opened(root, delta_timestamps=wanted, video_backend=backend))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
