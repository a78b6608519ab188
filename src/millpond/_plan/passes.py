"""Passes: what an epoch takes of a dataset that gives more, or fewer, samples to it than it has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millpond._plan.segments import Segments


def take_passes(segments: Segments, *, quota: int, epoch: int, shuffle: bool, seed: tuple[int, ...]) -> Segments:
    """The samples that an epoch takes of an endless sequence of passes over a dataset.

    Each pass has every sample once, in an order of its own. Epoch e has the places [e * quota, (e + 1) * quota) of the
    sequence, so over the epochs no sample comes again before all have come, whatever the quota.

    Args:
        segments: Of the dataset; every sample in one of them.
        quota: Samples that each epoch takes.
        epoch: The epoch's number.
        shuffle: Whether the segments of a pass come in an order of their own; False: as they are.
        seed: With the number of a pass, the only source of its order.

    Returns:
        Segments of `quota` samples in all, those at the ends of the window cut. One may be there more than once.

    Raises:
        ValueError: There are no samples to take.
    """
    total = int(segments.lengths.sum())
    if quota and not total:
        raise ValueError(f"{quota} samples of an epoch are to be taken of a dataset that has none")
    start, stop = epoch * quota, (epoch + 1) * quota
    taken = [
        _window(_ordered(segments, number, shuffle, seed), start - number * total, stop - number * total)
        for number in (range(start // total, -(-stop // total)) if quota else ())
    ]
    none = np.empty(0, np.int64)
    return Segments(
        np.concatenate([none, *(one.starts for one in taken)]), np.concatenate([none, *(one.stops for one in taken)])
    )


def _ordered(segments: Segments, number: int, shuffle: bool, seed: tuple[int, ...]) -> Segments:
    """One pass."""
    if not shuffle:
        return segments
    of_this_pass = np.random.SeedSequence(seed, spawn_key=(number,))  # none that an epoch's order is made of
    rng = np.random.Generator(np.random.PCG64(of_this_pass))
    order = rng.permutation(len(segments))
    return Segments(segments.starts[order], segments.stops[order])


def _window(segments: Segments, start: int, stop: int) -> Segments:
    """The samples at places `start` to `stop` of the segments one after the other, as far as there are such."""
    bounds = np.concatenate(([0], np.cumsum(segments.lengths))).astype(np.int64)
    inside: NDArray[np.int64] = np.clip(bounds, start, stop)
    first, last = inside[:-1], inside[1:]
    kept = first < last
    offset = segments.starts - bounds[:-1]
    return Segments((offset + first)[kept], (offset + last)[kept])
