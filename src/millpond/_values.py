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
    """What must stay the same for bytes and tables read from a file to stay true.

    Attributes:
        size_bytes: Its size.
        mtime_ns: When it was last written to; 0 where an entity tag is known, or neither is.
        etag: Of an object in a store, as the store gives it; "" where it gives none, and of local files.
    """

    size_bytes: int
    mtime_ns: int
    etag: str = ""

    @property
    def has_strong_etag(self) -> bool:
        """Whether a store can be asked for bytes of this version and no other."""
        return bool(self.etag) and not self.etag.startswith("W/")

    def is_surely(self, other: FileIdentity) -> bool:
        """Whether they are of one version, by what both say: one strong tag, or one time where neither has a tag."""
        if self.size_bytes != other.size_bytes:
            return False
        if self.etag or other.etag:
            return self.etag == other.etag and self.has_strong_etag
        return self.mtime_ns == other.mtime_ns != 0

    def differs_from(self, other: FileIdentity) -> bool:
        """Whether they are of two versions, as far as both say something."""
        if self.size_bytes != other.size_bytes:
            return True
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.mtime_ns and other.mtime_ns and self.mtime_ns != other.mtime_ns)


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
    """One array of a sample: its name, its shape as it is stored, without the batch dimension, its dtype.

    `frames` is True for pixels: `shape` is (..., H, W, C), and they are delivered (..., C, H, W), channels-last in
    memory. `length` names the field of shape () and an integer dtype that says how much of the first axis of a sample
    is data; what lies behind is zeros. None: all of it is data.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    frames: bool = False
    length: str | None = None

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of this field."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def delivered_axes(self) -> tuple[int, ...] | None:
        """The stored axes of a sample in the order in which they are delivered; None where that is the same."""
        if not self.frames:
            return None
        last = len(self.shape) - 1
        return (*range(last - 2), last, last - 2, last - 1)


def no_progress() -> None:
    """Called in place of a user's `progress`, where nobody watches."""
