"""`delta_timestamps`: which frames of its episode a sample shows, with LeRobot's meaning of padding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

PAD_SUFFIX = "_is_pad"


def frame_offsets(
    delta_timestamps: Mapping[str, Sequence[float]] | None, *, known: Iterable[str], fps: float, tolerance_s: float
) -> dict[str, tuple[int, ...]]:
    """Turn times into frames, and refuse those that fall between frames.

    Args:
        delta_timestamps: Feature to seconds relative to the sample, any order, repeats allowed.
        known: Features that may be asked for.
        fps: Frames per second of the dataset.
        tolerance_s: The greatest distance of a time from a multiple of 1 / fps, as LeRobot checks it.

    Returns:
        Feature to offsets in frames, in the order given.

    Raises:
        ValueError: An unknown feature, no time at all, or a time between two frames.
    """
    names = set(known)
    found: dict[str, tuple[int, ...]] = {}
    for name, deltas in (delta_timestamps or {}).items():
        if name not in names:
            raise ValueError(
                f"delta_timestamps names {name!r}, which is no feature of numbers or pictures that this dataset "
                f"delivers; it has {', '.join(sorted(names))}"
            )
        found[name] = _offsets_of(name, deltas, fps, tolerance_s)
    return found


def _offsets_of(name: str, deltas: Sequence[float], fps: float, tolerance_s: float) -> tuple[int, ...]:
    if isinstance(deltas, str) or not isinstance(deltas, Iterable):
        raise TypeError(f"delta_timestamps[{name!r}] must be a list of seconds such as [-0.1, 0.0], not {deltas!r}")
    if not len(deltas):
        raise ValueError(f"delta_timestamps[{name!r}] is empty; leave {name!r} out, or give [0.0]")
    wrong = [d for d in deltas if not (math.isfinite(d) and abs(d * fps - round(d * fps)) / fps <= tolerance_s)]
    if wrong:
        raise ValueError(
            f"delta_timestamps[{name!r}] holds {wrong[:5]}, which are no multiples of 1/{fps:g} s within tolerance_s="
            f"{tolerance_s:g}; give whole frames divided by the frame rate"
        )
    return tuple(round(d * fps) for d in deltas)


def window_positions(
    positions: NDArray[np.int64], lengths: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where in its episode each step of each sample lies, clamped to the episode.

    Args:
        positions: int64, (L,), the sample's own frame in its episode.
        lengths: int64, (L,), frames of that episode.
        offsets: int64, (T,).

    Returns:
        int64, (L, T).
    """
    moved = positions[:, None] + offsets
    np.maximum(moved, 0, out=moved)
    np.minimum(moved, lengths[:, None] - 1, out=moved)
    return moved


def padded_steps(
    positions: NDArray[np.int64], lengths: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which steps lie outside of the episode and show its first or last frame instead, bool (L, T)."""
    moved = positions[:, None] + offsets
    return np.asarray((moved < 0) | (moved >= lengths[:, None]))
