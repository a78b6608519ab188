"""How often a look may be taken that costs so much: as often as wanted, and no more than its share of a core."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_WEIGHT = 0.3
"""Of the last look in what one is taken to cost: one that was interrupted often does not stand for all."""


class Pace:
    """When the next look is due.

    Args:
        interval_seconds: The least time from one look to the next.
        core_share: Of a core, that looks may cost over time.
    """

    def __init__(self, interval_seconds: float, core_share: float) -> None:
        self.interval_seconds = interval_seconds
        self._least_seconds = interval_seconds
        self._core_share = core_share
        self._cost_seconds = 0.0
        self._due_at = float("-inf")
        self.num_looks = 0

    @property
    def cost_seconds(self) -> float:
        """CPU time of a look, as of late."""
        return self._cost_seconds

    def is_due(self, now: float) -> bool:
        """Whether it is time; half of a least interval early is in time, so that looks stay together."""
        return now >= self._due_at - self._least_seconds / 2

    @contextmanager
    def looking(self, now: float) -> Iterator[None]:
        """Around a look of this thread."""
        began = time.thread_time()
        try:
            yield
        finally:
            self._count(now, time.thread_time() - began)

    def _count(self, now: float, cost_seconds: float) -> None:
        is_first = self.num_looks == 0
        self.num_looks += 1
        weight = 1.0 if is_first or cost_seconds > 2 * self._cost_seconds else _WEIGHT
        self._cost_seconds += weight * (cost_seconds - self._cost_seconds)
        self.interval_seconds = max(self._least_seconds, self._cost_seconds / self._core_share)
        self._due_at = now + self.interval_seconds
