"""When a second request is begun beside a slow first one: "The Tail at Scale" (Dean and Barroso, 2013), with a bound.

A request is slow when it takes longer than a floor, and longer than four times the median of recent requests of like
size. On a link that is slow as a whole that median is slow, too; and where it became slow at once, the bound holds:
hedges stay under 2 % of the requests, so they never double the load of a link that is too small.
"""

from __future__ import annotations

from collections import deque

_RECENT = 32
_ENOUGH = 8
"""Of fewer than so many requests of like size nothing is known but the floor."""
_TIMES_MEDIAN = 4.0
_SHARE = 0.02
_FREE = 4
"""Hedges before the share counts: 2 % of the first 50 requests would be none."""


class Pace:
    """How long recent requests took, by size. One thread."""

    def __init__(self, floor_seconds: float) -> None:
        self._floor_seconds = floor_seconds
        self._recent: dict[int, deque[float]] = {}
        self._after: dict[int, float] = {}
        self._num_requests = 0
        self._num_hedges = 0

    def hedge_after(self, num_bytes: int) -> float:
        """Seconds after which a request for so many bytes is slow."""
        return self._after.get(num_bytes.bit_length(), self._floor_seconds)

    def try_hedge(self) -> bool:
        """Count a hedge in, where one more is allowed."""
        allowed = self._num_hedges < max(_FREE, _SHARE * self._num_requests)
        self._num_hedges += allowed
        return allowed

    def took(self, num_bytes: int, seconds: float) -> None:
        """A request for so many bytes took so long."""
        self._num_requests += 1
        size = num_bytes.bit_length()  # like size: the same power of two
        recent = self._recent.setdefault(size, deque(maxlen=_RECENT))
        recent.append(seconds)
        if len(recent) >= _ENOUGH:
            self._after[size] = max(self._floor_seconds, _TIMES_MEDIAN * sorted(recent)[len(recent) // 2])
