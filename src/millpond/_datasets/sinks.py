"""Where readers put samples that are somebody's own: arrays made for them, and pictures written to several places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import FrameWriter
from millpond._values import Field


def writer_to(targets: Iterable[NDArray[Any]], window: NDArray[np.int32]) -> FrameWriter:
    """Write each unique frame wherever it is shown.

    Args:
        targets: Of each sample, uint8 (H, W, 3), or (T, H, W, 3) with a window.
        window: See `Sink.frame_writer`.
    """
    steps = window.shape[1]
    shows: dict[int, list[NDArray[Any]]] = {}
    for target, frames in zip(targets, window.tolist(), strict=True):
        pictures = target.reshape(steps, *target.shape[-3:])
        for step, frame in enumerate(frames):
            shows.setdefault(frame, []).append(pictures[step])

    def write(frame: int, picture: NDArray[np.uint8]) -> None:
        first, *others = shows[frame]
        first[...] = picture
        for target in others:
            target[...] = first

    return write


def drop_picture(frame: int, picture: NDArray[np.uint8]) -> None:
    """The `FrameWriter` of a field that nobody takes: a reader that sees it need not decode the field."""


class SampleSink:
    """See `Sink`. Each sample has arrays of its own, which share no memory with another's.

    Args:
        fields: By name.
        count: Samples.

    Attributes:
        samples: Field to array, of each; pictures are stored (..., H, W, C).
    """

    def __init__(self, fields: Mapping[str, Field], count: int) -> None:
        self._fields = fields
        self.samples: list[dict[str, NDArray[Any]]] = [{} for _ in range(count)]

    def frame_writer(self, field: str, window: NDArray[np.int32]) -> FrameWriter:
        """See `Sink`."""
        shape = self._fields[field].shape
        for sample in self.samples:
            sample[field] = np.empty(shape, np.uint8)
        return writer_to((sample[field] for sample in self.samples), window)

    def put(self, field: str, values: NDArray[Any]) -> None:
        """See `Sink`."""
        for sample, value in zip(self.samples, values, strict=True):
            sample[field] = np.array(value)
