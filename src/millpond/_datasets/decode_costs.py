"""What it costs to decode a run of samples of one camera. Pure, and vectorized: there may be millions of samples.

Theory of operation. Samples are numbered through all episodes, so the window of a sample is a set of sample numbers
clamped to its episode, and a run of samples needs, for each offset, that run shifted and clamped. Walking through the
offsets in ascending order gives the union as stretches [a, b]. A stretch that goes on where the last one ended costs
the frames in between; any other starts at the keyframe of its GOP. Both are differences of one running sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._once import computed_once

Ints = NDArray[np.int64]

_NOTHING = -1


@dataclass(frozen=True)
class DecodeCosts:
    """The frames of one camera, by sample number; N samples.

    Attributes:
        bounds: int64, (E + 1,), first sample of each episode; the last entry is N.
        offsets: int64, (T,), the window.
        gop: int, (N,), a number for the GOP of each sample's frame, unique over all files.
        preroll: int, (N,), frames to decode from the keyframe to the sample's frame, both included.
    """

    bounds: Ints
    offsets: Ints
    gop: NDArray[np.signedinteger[Any]]
    preroll: NDArray[np.signedinteger[Any]]

    def starts_gop(self) -> NDArray[np.bool_]:
        """bool, (N,): no GOP shows frames on both sides of the cut before this sample."""
        changes = np.ones(len(self.gop), np.bool_)
        changes[1:] = self.gop[1:] != self.gop[:-1]
        return changes

    def decoded(self, starts: Ints, stops: Ints) -> Ints:
        """int64, (n,): frames to decode to serve the samples start to stop of each (non-empty) pair."""
        if self._is_plain:
            return self.preroll[starts] + self._sums[stops] - self._sums[starts + 1]
        return self._walk(starts, stops, count_only=False)

    def unique(self, starts: Ints, stops: Ints) -> Ints:
        """int64, (n,): different frames that the samples of each pair show."""
        return stops - starts if self._is_plain else self._walk(starts, stops, count_only=True)

    @property
    def _is_plain(self) -> bool:
        return len(self.offsets) == 1 and int(self.offsets[0]) == 0

    @computed_once
    def _sorted_offsets(self) -> list[int]:
        return sorted({int(offset) for offset in self.offsets})

    @computed_once
    def _sums(self) -> Ints:
        """Running sum of what each sample costs after the one before it, int64 (N + 1,)."""
        steps = self.preroll.astype(np.int64)
        forward = steps[1:] - steps[:-1]
        goes_on = (self.gop[1:] == self.gop[:-1]) & (forward > 0)
        steps[1:][goes_on] = forward[goes_on]
        return np.concatenate(([0], np.cumsum(steps)))

    def _walk(self, starts: Ints, stops: Ints, *, count_only: bool) -> Ints:
        """Sum over the first episode of each pair, the whole ones between, and the last."""
        first = np.searchsorted(self.bounds, starts, side="right") - 1
        last = np.searchsorted(self.bounds, stops - 1, side="right") - 1
        whole = self._whole_unique if count_only else self._whole_decoded
        cost, reached = self._piece(
            starts, np.minimum(stops, self.bounds[first + 1]), first, np.full(len(starts), _NOTHING), count_only
        )
        ends_later = last > first
        before_last = np.where(last > first + 1, self._last_needed[np.maximum(last - 1, 0)], reached)
        tail, _ = self._piece(np.maximum(starts, self.bounds[last]), stops, last, before_last, count_only)
        between = whole[np.maximum(last, first + 1)] - whole[first + 1]
        return cost + np.where(ends_later, tail + between, 0)

    def _piece(self, starts: Ints, stops: Ints, episodes: Ints, reached: Ints, count_only: bool) -> tuple[Ints, Ints]:
        """The cost of samples of one episode each, after `reached` was decoded; and what is reached then."""
        low, high = self.bounds[episodes], self.bounds[episodes + 1] - 1
        cost = np.zeros(len(starts), np.int64)
        for offset in self._sorted_offsets:
            a = np.maximum(np.clip(starts + offset, low, high), reached + 1)
            b = np.clip(stops - 1 + offset, low, high)
            is_new = b >= a
            a = np.where(is_new, a, b)
            cost += np.where(is_new, b - a + 1 if count_only else self._stretch(a, b, reached), 0)
            reached = np.where(is_new, b, reached)
        return cost, reached

    def _stretch(self, a: Ints, b: Ints, reached: Ints) -> Ints:
        goes_on = (reached >= 0) & ((a == reached + 1) | (self.gop[a] == self.gop[np.maximum(reached, 0)]))
        fresh = self.preroll[a] + self._sums[b + 1] - self._sums[a + 1]
        return np.where(goes_on, self._sums[b + 1] - self._sums[reached + 1], fresh)

    @computed_once
    def _last_needed(self) -> Ints:
        """int64, (E,): the last sample that a whole episode shows."""
        low, high = self.bounds[:-1], self.bounds[1:] - 1
        return np.clip(high + self._sorted_offsets[-1], low, high)

    def _whole(self, *, count_only: bool) -> Ints:
        """Running sum of the costs of whole episodes, each after the one before it, int64 (E + 1,)."""
        episodes = np.arange(len(self.bounds) - 1)
        reached = np.concatenate(([_NOTHING], self._last_needed[:-1]))
        cost, _ = self._piece(self.bounds[:-1], self.bounds[1:], episodes, reached, count_only)
        return np.concatenate(([0], np.cumsum(cost)))

    @computed_once
    def _whole_decoded(self) -> Ints:
        return self._whole(count_only=False)

    @computed_once
    def _whole_unique(self) -> Ints:
        return self._whole(count_only=True)
