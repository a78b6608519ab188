"""Passes: what an epoch takes of a dataset that gives more, or fewer, samples to it than it has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millpond._plan.segments import Segments

DRAWN_TOGETHER = 4096
"""Segments, of so many passes as they come to; a pass of more is drawn by itself."""


def take_passes(segments: Segments, *, start: int, stop: int, shuffle: bool, seed: tuple[int, ...]) -> Segments:
    """The samples at some places of an endless sequence of passes over a dataset.

    Each pass has every sample once, in an order of its own. Where each epoch takes the places behind those of the one
    before, no sample comes again before all have come, whatever it takes.

    Args:
        segments: Of the dataset; every sample in one of them.
        start: The first place.
        stop: One past the last.
        shuffle: Whether the segments of a pass come in an order of their own; False: as they are.
        seed: With the number of a pass, the only source of its order.

    Returns:
        Segments of `stop - start` samples in all, those at the ends cut. One may be there more than once.

    Raises:
        ValueError: There are no samples to take.
    """
    total = int(segments.lengths.sum())
    if start >= stop:
        return Segments(np.empty(0, np.int64), np.empty(0, np.int64))
    if not total:
        raise ValueError(f"{stop - start} samples of an epoch are to be taken of a dataset that has none")
    first, last = start // total, -(-stop // total)
    if shuffle:
        order = _orders(len(segments), first, last, seed)
    else:
        order = np.tile(np.arange(len(segments)), last - first)
    several = Segments(segments.starts[order], segments.stops[order])
    return _window(several, start - first * total, stop - first * total)


def _orders(length: int, first: int, last: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """The orders of passes `first` to `last`, one after the other.

    Short ones are drawn many at a time, the same ones together whoever asks: an epoch may have thousands.
    """
    together = max(1, DRAWN_TOGETHER // length)
    drawn = []
    for number in range(first // together, -(-last // together)):
        of_these = np.random.SeedSequence(seed, spawn_key=(number,))  # none that an epoch's order is made of
        rng = np.random.Generator(np.random.PCG64(of_these))
        drawn.append(np.argsort(rng.random((together, length)), axis=1, kind="stable"))
    skipped = first // together * together
    return np.concatenate(drawn)[first - skipped : last - skipped].reshape(-1)


def _window(segments: Segments, start: int, stop: int) -> Segments:
    """The samples at places `start` to `stop` of the segments one after the other."""
    bounds = np.concatenate(([0], np.cumsum(segments.lengths))).astype(np.int64)
    inside: NDArray[np.int64] = np.clip(bounds, start, stop)
    first, last = inside[:-1], inside[1:]
    kept = first < last
    offset = segments.starts - bounds[:-1]
    return Segments((offset + first)[kept], (offset + last)[kept])
