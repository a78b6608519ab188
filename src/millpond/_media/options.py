"""What is wanted of a clip's pictures, of its sound, of an image: small frozen groups, checked when they are made."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

INTERPOLATION_NAMES = ("bilinear", "area", "bicubic")
"""Ways to resize, by swscale's names. FAST_BILINEAR is not among them: it aliases."""

MAX_PICTURE_PIXELS = 35_651_584
"""That a picture is resized to. As many as one that is decoded may have, by `containers.py`, which loads PyAV."""


def require_interpolation(name: str) -> None:
    """Raise ValueError for a name that is not one of `INTERPOLATION_NAMES`."""
    if name not in INTERPOLATION_NAMES:
        raise ValueError(f"interpolation {name!r} is not one of {', '.join(map(repr, INTERPOLATION_NAMES))}")


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Which frames of a clip are wanted, and in what size. Exactly one of `num_frames`, `fps` and `times` is given.

    Attributes:
        num_frames: So many frames, spread evenly: each is the one shown at the middle of one of `num_frames` equal
            parts of the clip. A clip with fewer frames repeats some.
        fps: The frames shown at start + k / fps, as many as the clip lasts. More than the clip's own repeats frames.
        times: The frames shown at these seconds after the clip's first frame, ascending; a text names the column of
            a manifest that holds a list of them for each clip.
        max_frames: With `fps`, or with a column of `times`: the first so many, and the rest of the clip is not decoded.
        image_size: (height, width) of the frames; None keeps the clip's own.
        interpolation: "bilinear", "area" or "bicubic".
        column: The manifest's column of clips; None where there is but one that fits.
    """

    num_frames: int | None = None
    fps: float | None = None
    times: Sequence[float] | str | None = None
    max_frames: int | None = None
    image_size: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    column: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("num_frames", "fps", "times") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of num_frames, fps and times, not {' and '.join(given) or 'none'}")
        _set(self, "num_frames", _count_or_none("num_frames", self.num_frames))
        _set(self, "max_frames", _count_or_none("max_frames", self.max_frames))
        _set(self, "fps", None if self.fps is None else _positive("fps", self.fps))
        _set(self, "times", _checked_times(self.times))
        if self.max_frames is not None and self.fps is None and not isinstance(self.times, str):
            raise ValueError("max_frames goes with fps, or with a column of times: else the number of frames is known")
        _set(self, "image_size", checked_size(self.image_size))
        require_interpolation(self.interpolation)
        _require_column(self.column)


@dataclass(frozen=True, kw_only=True)
class AudioOptions:
    """How the sound of a clip is wanted.

    Attributes:
        sampling_rate: Samples per second.
        mono: Mixed down to one channel; else the channels that the clip has.
        max_seconds: Only so much from the beginning.
        column: The manifest's column of sound, which may be that of the clips; None where there is but one that fits.
    """

    sampling_rate: int
    mono: bool = True
    max_seconds: float | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        _set(self, "sampling_rate", _count("sampling_rate", self.sampling_rate))
        _set(self, "max_seconds", None if self.max_seconds is None else _positive("max_seconds", self.max_seconds))
        _require_column(self.column)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How an image is wanted.

    Attributes:
        image_size: (height, width); None keeps the image's own.
        interpolation: "bilinear", "area" or "bicubic".
        column: The manifest's column of images; None where there is but one that fits.
    """

    image_size: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    column: str | None = None

    def __post_init__(self) -> None:
        _set(self, "image_size", checked_size(self.image_size))
        require_interpolation(self.interpolation)
        _require_column(self.column)


def _set(options: Any, name: str, value: Any) -> None:
    object.__setattr__(options, name, value)


def _count(name: str, value: Any) -> int:
    """A whole number of at least 1, also numpy's."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} is {value!r}, it must be a whole number")
    if number < 1:
        raise ValueError(f"{name} is {number}, it must be at least 1")
    return number


def _count_or_none(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, str | bytes | bool):
        raise TypeError(f"{name} is {value!r}, it must be a number")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, it must be a number") from None


def _positive(name: str, value: Any) -> float:
    number = _number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} is {number:g}, it must be positive and finite")
    return number


def _checked_times(times: Any) -> tuple[float, ...] | str | None:
    if times is None or isinstance(times, str):
        if times == "":
            raise ValueError("times names the column '': give the name of a column, or seconds")
        return times
    try:
        seconds = tuple(_number("a time", value) for value in times)
    except TypeError:
        raise TypeError(f"times is {times!r}, it must be a list of seconds or the name of a column") from None
    if not seconds:
        raise ValueError("times is empty: give at least one time")
    if not all(math.isfinite(value) and value >= 0 for value in seconds):
        raise ValueError(f"times has {min(seconds):g}: each must be finite, and not before the clip's first frame")
    if any(later < earlier for earlier, later in itertools.pairwise(seconds)):
        raise ValueError("times do not ascend: sort them, and put the frames into your own order afterwards")
    return seconds


def checked_size(image_size: Any) -> tuple[int, int] | None:
    """(height, width), or None; TypeError or ValueError for anything else."""
    if image_size is None:
        return None
    if isinstance(image_size, str | bytes) or not isinstance(image_size, Sequence) or len(image_size) != 2:
        raise TypeError(f"image_size is {image_size!r}, it must be (height, width) or None")
    height, width = _count("image_size's height", image_size[0]), _count("image_size's width", image_size[1])
    require_picture_size(height, width)
    return height, width


def require_picture_size(height: int, width: int) -> None:
    """Raise ValueError for an `image_size` larger than any video's pictures can be."""
    if height * width > MAX_PICTURE_PIXELS:
        raise ValueError(
            f"image_size is {(height, width)}, {height * width:,} pixels: at most {MAX_PICTURE_PIXELS:,}, as many as "
            "the largest level of H.264, HEVC, VP9 and AV1 has"
        )


def _require_column(column: Any) -> None:
    if column is not None and not (isinstance(column, str) and column):
        raise TypeError(f"column is {column!r}, it must be the name of a column or None")
