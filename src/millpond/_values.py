"""Small frozen values that every layer speaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """Bytes `start` up to, and not including, `stop` of one file."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What must stay the same for bytes and tables read from a file to stay true."""

    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """Everything a bare codec context needs to know of a video stream.

    A context is never fed with packets of a stream whose parameters differ: that gives wrong frames without an error.
    The colour fields are FFmpeg's enumeration values as the container states them (2 or 0 where it does not).
    """

    codec_name: str
    extradata: bytes
    time_base: tuple[int, int]
    width: int
    height: int
    pix_fmt: str
    rotation_degrees: int = 0
    color_range: int = 0
    colorspace: int = 2
    color_primaries: int = 2
    color_trc: int = 2
    stream_index: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """One array of a sample: its name, its shape without the batch dimension, its dtype.

    `frames` is True for pixels: they are stored (..., H, W, C) and delivered (..., C, H, W), channels-last in memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    frames: bool = False

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of this field."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize
