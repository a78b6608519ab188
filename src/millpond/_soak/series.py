"""A series of bounded size, however long it goes on."""

from __future__ import annotations

from array import array

import numpy as np

from millpond._soak.trend import Values

MOST_POINTS = 4096
"""Of a series: twice 32 KB. At one look a second the first merge comes after 68 minutes."""


class Series:
    """Values over time. When there are too many points every two become one, their mean; later looks likewise."""

    def __init__(self, most_points: int = MOST_POINTS) -> None:
        self._most_points = most_points
        self._times, self._values = array("d"), array("d")
        self._stride = 1
        self._open: list[tuple[float, float]] = []
        self.num_looks = 0
        self.last: float | None = None
        self.peak = float("-inf")

    def add(self, time_seconds: float, value: float) -> None:
        """One look; times go up."""
        self.num_looks += 1
        self.last = value
        self.peak = max(self.peak, value)
        self._open.append((time_seconds, value))
        if len(self._open) == self._stride:
            self._close_point()

    def points(self, since_seconds: float = float("-inf")) -> tuple[Values, Values]:
        """Times and values; as many looks stand behind each, except for the few latest ones, which are left out."""
        times, values = np.asarray(self._times), np.asarray(self._values)
        start = int(np.searchsorted(times, since_seconds))
        return times[start:].copy(), values[start:].copy()

    def _close_point(self) -> None:
        times, values = zip(*self._open, strict=True)
        self._times.append(sum(times) / self._stride)
        self._values.append(sum(values) / self._stride)
        self._open.clear()
        if len(self._times) >= self._most_points:
            self._times, self._values = _halved(self._times), _halved(self._values)
            self._stride *= 2


def _halved(points: array[float]) -> array[float]:
    """Means of pairs; there are an even number."""
    return array("d", np.asarray(points).reshape(-1, 2).mean(axis=1).tobytes())
