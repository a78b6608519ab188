"""Numbers for what is under way at once: what overlaps in time has different ones, as small as can be."""

from __future__ import annotations

from heapq import heappop, heappush


class Lanes:
    """Not locked: for one thread at a time."""

    def __init__(self) -> None:
        self._free: list[int] = []  # a heap
        self._num_lanes = 0

    def take(self) -> int:
        """The smallest number that is free."""
        if self._free:
            return heappop(self._free)
        self._num_lanes += 1
        return self._num_lanes - 1

    def give_back(self, lane: int) -> None:
        """What had it has ended."""
        heappush(self._free, lane)
