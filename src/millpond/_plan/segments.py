"""Segments: the runs of consecutive samples that tasks decode, cut where the GOPs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Segments:
    """Half-open runs [starts[k], stops[k]) of sample indices; together they hold every sample once."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples of each segment, int64 (K,)."""
        return self.stops - self.starts


def join_segments(several: Sequence[Segments]) -> Segments:
    """All of them, one after the other."""
    if len(several) == 1:
        return several[0]
    return Segments(np.concatenate([one.starts for one in several]), np.concatenate([one.stops for one in several]))


def cut_segments(cuts: NDArray[np.int64], *, target_samples: int, split: bool) -> Segments:
    """Join the intervals between free cuts into segments of about `target_samples`.

    An interval longer than the target stays whole, so that its GOP is decoded once, unless `split` is True: then
    it is halved until it fits, and every part but the first decodes its GOP from the keyframe again.

    Args:
        cuts: int64 (S + 1,), ascending sample indices at which a segment may start for free; 0 and N included.
        target_samples: At least 1.
        split: Whether intervals may be cut where it is not free.
    """
    if target_samples < 1:
        raise ValueError(f"target_samples must be at least 1, not {target_samples}")
    if split:
        cuts = _split_intervals(cuts, target_samples)
    # Greedy joining, one jump a segment: the last cut within the target, or the next one where none is.
    reach = np.searchsorted(cuts, cuts + target_samples, side="right") - 1
    jumps = np.maximum(reach, np.arange(1, len(cuts) + 1)).data
    kept, here, end = [0], 0, len(cuts) - 1
    while here < end:
        here = jumps[here]
        kept.append(here)
    bounds = cuts[np.asarray(kept, dtype=np.int64)]
    return Segments(bounds[:-1].copy(), bounds[1:].copy())


def _split_intervals(cuts: NDArray[np.int64], target_samples: int) -> NDArray[np.int64]:
    lengths = np.diff(cuts)
    pieces = np.maximum(1, -(-lengths // target_samples))
    first = np.repeat(cuts[:-1], pieces)
    position = np.arange(len(first)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    inner = first + position * np.repeat(lengths, pieces) // np.repeat(pieces, pieces)
    return np.append(inner, cuts[-1]).astype(np.int64)
