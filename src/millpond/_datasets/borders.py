"""Where the members of a mix begin among its samples, and how what concerns several of them is taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Measure = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""A number for the samples start to stop of each pair; starts, stops and numbers are int64, (n,)."""


def scaled(measure: Measure, share: float) -> Measure:
    """A share of what a measure says, rounded up."""
    if share == 1:
        return measure
    return lambda starts, stops: np.ceil(measure(starts, stops) * share).astype(np.int64)


class Run(NamedTuple):
    """Samples of one member amid those of a call.

    Attributes:
        member: Its number.
        rows: Where they are among the samples of the call.
        samples: int64, by the member's own numbers.
    """

    member: int
    rows: slice
    samples: NDArray[np.int64]


class Borders:
    """The samples of several datasets, numbered one after the other.

    Args:
        lengths: Samples of each.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)

    @property
    def num_samples(self) -> int:
        """Of all."""
        return int(self.bounds[-1])

    def members_of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The member of each sample, in the samples' shape."""
        return np.searchsorted(self.bounds, samples, side="right").astype(np.int64) - 1

    def place_of(self, sample: int) -> tuple[int, int]:
        """The member of a sample, and its number there; IndexError if there is none."""
        if not 0 <= sample < self.num_samples:
            raise IndexError(f"sample {sample} of {self.num_samples}")
        member = int(self.members_of(np.asarray(sample)))
        return member, sample - int(self.bounds[member])

    def runs(self, samples: NDArray[np.int64]) -> Iterator[Run]:
        """Take ascending samples apart by member; nearly always there is one run, since few calls cross a border."""
        members = self.members_of(samples)
        ends = [0, *(np.flatnonzero(np.diff(members)) + 1).tolist(), len(samples)]
        for first, last in pairwise(ends):
            if first < last:
                member = int(members[first])
                yield Run(member, slice(first, last), samples[first:last] - self.bounds[member])

    def summed(
        self, starts: NDArray[np.int64], stops: NDArray[np.int64], measures: Sequence[Measure | None]
    ) -> NDArray[np.int64]:
        """Add up, for the samples start to stop of each pair, what the members say of theirs; None says 0."""
        total = np.zeros(len(starts), np.int64)
        for measure, (first, last) in zip(measures, pairwise(self.bounds), strict=True):
            low, high = np.clip(starts, first, last), np.clip(stops, first, last)
            own = np.flatnonzero(low < high)
            if measure is not None and len(own):
                total[own] += measure(low[own] - first, high[own] - first)
        return total
