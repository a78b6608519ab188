"""Many small videos, made once per session. A plugin, named by conftest.py; what tests import is in `open_videos`."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from open_videos import FRAMES, Videos


def _scene(number: int) -> Callable[[int], NDArray[np.uint8]]:
    return lambda k: zoo.moving_picture(k + 31 * number)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    """Twenty of them, of two GOPs each."""
    folder = tmp_path_factory.mktemp("videos")
    options = {**zoo.X264, "g": "4"}
    paths = [
        zoo.make(
            zoo.Clip(f"v{n:02}", "libx264", options, frames=FRAMES, picture=_scene(n)),
            folder,
        )
        for n in range(20)
    ]
    return Videos(tuple(paths), tuple(tuple(zoo.reference(path)) for path in paths))


@pytest.fixture(scope="session")
def torch_is_imported() -> None:
    """Ahead of what is held against a test: torch makes a temporary folder for itself."""
    for name in ("torch", "torchcodec.decoders"):
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError, OSError):  # not installed, or not to be used here
            return
