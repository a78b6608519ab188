"""Whether a dataset can be made as asked for: looked at as a whole, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from millpond._synth.encode import CODECS, MAX_B_FRAMES
from millpond._synth.pattern import MIN_HEIGHT, MIN_WIDTH, pattern_bits

_ENTRIES = {"data", "meta", "videos", "clips", "manifest.jsonl"}


def check_request(
    lengths: Sequence[int],
    *,
    episodes: int,
    cameras: int,
    image_features: int,
    size: tuple[int, int],
    codec: str,
    b_frames: int,
    **at_least_one: int | None,
) -> None:
    """Raise ValueError where a request makes no sense; the numbers are `write_dataset`'s.

    Args:
        lengths: Frames of each episode.
        episodes: How many there must be.
        cameras: All of them.
        image_features: Those of them that are no video.
        size: (height, width).
        codec: One of `CODECS`.
        b_frames: In a row.
        at_least_one: Every other number, by name; None where it was not given.
    """
    if episodes < 1 or len(lengths) != episodes or min(lengths) < 1:
        raise ValueError(f"{episodes} episodes with lengths {list(lengths)[:5]}: every episode needs at least 1 frame")
    if cameras < 0 or not 0 <= image_features <= cameras:
        raise ValueError(f"image_features={image_features} is not within 0 and cameras={cameras}")
    pattern_bits(episodes - 1, max(cameras - 1, 0), max(lengths) - 1)
    if codec not in CODECS:
        raise ValueError(f"codec {codec!r} is none of {', '.join(CODECS)}")
    if not 0 <= b_frames <= MAX_B_FRAMES:
        raise ValueError(f"b_frames={b_frames} is not within 0 and {MAX_B_FRAMES}")
    for name, value in at_least_one.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    _check_size(*size)


def _check_size(height: int, width: int) -> None:
    asked = f"width {width}, height {height}"
    if height < MIN_HEIGHT or width < MIN_WIDTH:
        raise ValueError(f"{asked}: too small for the pattern, which needs at least {MIN_WIDTH} and {MIN_HEIGHT}")
    if height % 2 or width % 2:
        raise ValueError(f"{asked}: both must be even, as 4:2:0 halves them")


def check_place(root: Path) -> None:
    """Raise FileExistsError unless `root` is free: not there, or an empty folder."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"'{root}' exists and is not empty; name another folder or remove it")


def is_left_over(unfinished: Path) -> bool:
    """Whether a folder holds nothing but what a killed `write_dataset` or `write_clip_set` leaves."""
    return unfinished.is_dir() and {path.name for path in unfinished.iterdir()} <= _ENTRIES
