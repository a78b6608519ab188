"""Options of clips: checked when they are made, frozen, and the same after a pickle."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from millpond import AudioOptions, ImageOptions, VideoOptions
from millpond._media.containers import MAX_FRAME_PIXELS
from millpond._media.options import INTERPOLATION_NAMES, MAX_PICTURE_PIXELS
from millpond._media.pictures import INTERPOLATIONS


def test_numbers_of_numpy_become_plain_ones_so_that_options_compare_and_hash() -> None:
    ours = VideoOptions(num_frames=np.int64(16), image_size=np.array([224, 200]).tolist())  # type: ignore[arg-type]
    assert ours == VideoOptions(num_frames=16, image_size=(224, 200))
    assert hash(ours) == hash(pickle.loads(pickle.dumps(ours)))
    assert VideoOptions(times=np.array([0.0, 0.5])).times == (0.0, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"num_frames": 4, "fps": 2},
        {"num_frames": 0},
        {"fps": 0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"times": []},
        {"times": ""},
        {"times": [1.0, 0.5]},
        {"times": [-1.0]},
        {"times": [float("nan")]},
        {"num_frames": 4, "max_frames": 2},
        {"times": [0.5], "max_frames": 2},
        {"num_frames": 4, "image_size": (0, 4)},
        {"num_frames": 4, "image_size": (40000, 40000)},
        {"num_frames": 4, "interpolation": "lanczos"},
    ],
)
def test_a_value_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        VideoOptions(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_frames": 2.5},
        {"num_frames": True},
        {"fps": "2"},
        {"times": 3.0},
        {"times": ["a"]},
        {"num_frames": 4, "image_size": 224},
        {"num_frames": 4, "image_size": "ab"},
        {"num_frames": 4, "image_size": (1, 2, 3)},
        {"num_frames": 4, "column": 3},
    ],
)
def test_a_value_of_another_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"."):
        VideoOptions(**wrong)


def test_max_frames_bounds_what_the_clip_or_its_row_decides() -> None:
    assert VideoOptions(fps=2, max_frames=8).max_frames == 8
    assert VideoOptions(times="seconds", max_frames=8).times == "seconds"


def test_options_of_sound_and_images_are_checked() -> None:
    assert AudioOptions(sampling_rate=16000, max_seconds=2).max_seconds == 2.0
    for wrong in ({"sampling_rate": 0}, {"sampling_rate": 16000, "max_seconds": 0}):
        with pytest.raises(ValueError, match="must be"):
            AudioOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whole number"):
        AudioOptions(sampling_rate=16000.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'bilinear', 'area', 'bicubic'"):
        ImageOptions(interpolation="nearest")


def test_a_picture_may_be_as_large_as_one_that_is_decoded() -> None:
    assert MAX_PICTURE_PIXELS == MAX_FRAME_PIXELS
    assert ImageOptions(image_size=(4352, 8192)).image_size == (4352, 8192)
    with pytest.raises(ValueError, match=r"image_size is \(4353, 8192\), 35,659,776 pixels: at most 35,651,584"):
        ImageOptions(image_size=(4353, 8192))


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ImageOptions().image_size = (1, 1)  # type: ignore[misc]


def test_every_name_of_an_interpolation_has_its_flag() -> None:
    assert tuple(INTERPOLATIONS) == INTERPOLATION_NAMES
    assert len(set(INTERPOLATIONS.values())) == len(INTERPOLATIONS)
