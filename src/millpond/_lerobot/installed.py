"""The LeRobot that is installed: where its decoding is, which of its names are replaced, and what must be there."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from millpond.errors import UnsupportedFormat

HOME = "lerobot.datasets.video_utils"
FUNCTIONS = (
    "decode_video_frames",
    "decode_video_frames_torchcodec",
    "decode_video_frames_torchvision",  # up to LeRobot 0.4
    "decode_video_frames_pyav",  # after it
)
"""Of HOME, where it has them. The first it must have."""

_PARAMETERS = ("video_path", "timestamps", "tolerance_s")
_DATASETS = {
    "lerobot.datasets.lerobot_dataset": "LeRobotDataset",
    "lerobot.datasets.streaming_dataset": "StreamingLeRobotDataset",
}
_OTHERWISE = "millpond.decode_video_frames() and millpond.LeRobotDataset read the same datasets without LeRobot"


def video_utils() -> ModuleType:
    """LeRobot's module that decodes, which has what `patch` replaces.

    Raises:
        ImportError: LeRobot is not installed, or lacks what its datasets import.
        UnsupportedFormat: This version of it decodes elsewhere, or otherwise.
    """
    if find_spec("lerobot") is None:
        raise ImportError(
            "millpond.lerobot.patch() changes an installed LeRobot, and there is none: pip install lerobot "
            f"(after version 0.4: 'lerobot[dataset]'); {_OTHERWISE}",
            name="lerobot",
        )
    try:
        module = import_module(HOME)
    except ImportError as error:
        if error.name is not None and HOME.startswith(error.name):
            raise _unsupported(f"has no module {HOME}") from error
        raise ImportError(
            f"{_told()} is installed, but {HOME} cannot be imported ({error}): install what its datasets need, "
            f"pip install 'lerobot[dataset]' (up to version 0.4: lerobot); {_OTHERWISE}",
            name=error.name,
        ) from error
    _check(module)
    return module


def dataset_classes() -> list[type]:
    """LeRobot's datasets, which are to be patched wherever they are unpickled."""
    found = [(import_module(home), name) for home, name in _DATASETS.items() if _is_there(home)]
    return [vars(module)[name] for module, name in found if name in vars(module)]


def loaded_modules() -> Iterator[ModuleType]:
    """LeRobot's, of all that this process has imported."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "lerobot" and isinstance(module, ModuleType):
            yield module


def _is_there(module: str) -> bool:
    return find_spec(module) is not None


def _check(module: ModuleType) -> None:
    function = getattr(module, FUNCTIONS[0], None)
    if function is None:
        raise _unsupported(f"has no {FUNCTIONS[0]} in {HOME}")
    parameters = inspect.signature(function).parameters
    for name in _PARAMETERS:
        if name not in parameters:
            raise _unsupported(f"has a {FUNCTIONS[0]} that takes ({', '.join(parameters)}), with no {name}")
    error = getattr(module, "FrameTimestampError", None)
    if not (isinstance(error, type) and issubclass(error, Exception)):
        raise _unsupported(f"has no FrameTimestampError in {HOME}")


def _unsupported(text: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{_told()} {text}: millpond.lerobot.patch() knows LeRobot 0.4.4 and what followed it; take another version of "
        f"either; {_OTHERWISE}"
    )


def _told() -> str:
    try:
        return f"lerobot {importlib.metadata.version('lerobot')}"
    except importlib.metadata.PackageNotFoundError:
        return "lerobot (of an unknown version)"
