"""Decoded frames as torchcodec gives them: the same fields and shapes, as torch tensors where torch is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Frame:
    """One frame.

    Attributes:
        data: uint8, (3, H, W), RGB, CPU; channels-last in memory.
        pts_seconds: When it is shown, on the clock of its file.
        duration_seconds: For how long.
    """

    data: Any
    pts_seconds: float
    duration_seconds: float

    def __iter__(self) -> Iterator[Any]:
        return iter((self.data, self.pts_seconds, self.duration_seconds))

    def __repr__(self) -> str:
        return _told(self)


@dataclass
class FrameBatch:
    """Several frames; an index or a slice gives a part.

    Attributes:
        data: uint8, (N, 3, H, W), RGB, CPU; channels-last in memory.
        pts_seconds: float64, (N,), when each is shown, on the clock of its file.
        duration_seconds: float64, (N,), for how long.
    """

    data: Any
    pts_seconds: Any
    duration_seconds: Any

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Any) -> FrameBatch:
        return FrameBatch(self.data[key], self.pts_seconds[key], self.duration_seconds[key])

    def __iter__(self) -> Iterator[FrameBatch]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        return _told(self)


def as_array(values: NDArray[Any]) -> Any:
    """A torch tensor over the same memory where torch is installed, else the array itself."""
    if not _has_torch():
        return values
    import torch

    return torch.from_numpy(values)


def as_pictures(pictures: NDArray[np.uint8]) -> Any:
    """(N, 3, H, W), over the memory of uint8, (N, H, W, 3)."""
    return as_array(pictures.transpose(0, 3, 1, 2))


@cache
def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _told(frames: Frame | FrameBatch) -> str:
    return (
        f"{type(frames).__name__}(data: {tuple(frames.data.shape)}, pts_seconds: {frames.pts_seconds}, "
        f"duration_seconds: {frames.duration_seconds})"
    )
