"""Fixtures of the claims about a real LeRobot: nothing stays patched, and nothing open."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest
import torch
from lerobot.datasets import video_utils

from millpond._datasets.decoders.cache import default_cache

# What loads a dataset shows its progress, and would leave a thread for that.
import_module("tqdm").tqdm.monitor_interval = 0

# Pictures are small here: torch's threads would wait for each other, on a machine that is busy.
torch.set_num_threads(1)

_OWN = {name: value for name, value in vars(video_utils).items() if "decode" in name.lower()}


@pytest.fixture(autouse=True)
def all_is_given_back(nothing_left_behind: None) -> Iterator[None]:
    """LeRobot has its names again after each claim, and both caches let go of their files."""
    yield
    default_cache().clear()
    _OWN["_default_decoder_cache"].clear()
    assert {name: vars(video_utils)[name] for name in _OWN} == _OWN


@pytest.fixture
def torchcodec() -> None:
    """It is installed, and finds FFmpeg's libraries."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec is not to be used here: {type(error).__name__}: {str(error).splitlines()[0]}")
