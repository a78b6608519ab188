"""What came out of a loader over time: batches are noted as they are taken, and read back in even bins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FEWEST_BINS = 6
"""Where there are as many batches: fewer are no curve."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Samples per second in even bins of time.

    Attributes:
        elapsed_seconds: float64, (n,): the middle of each bin.
        samples_per_second: float64, (n,).
    """

    elapsed_seconds: NDArray[np.float64]
    samples_per_second: NDArray[np.float64]


class BatchMeter:
    """Notes when batches were taken, how large they were, and how high the pond stood. Used by one thread.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._seconds: list[float] = []
        self._samples: list[int] = []
        self._levels: list[int] = []

    def note(self, samples: int, pond_level: int = 0) -> None:
        """Note a batch that was just taken; `pond_level` is the number of open slots."""
        self._seconds.append(self._clock() - self._began)
        self._samples.append(samples)
        self._levels.append(pond_level)

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return sum(self._samples)

    @property
    def elapsed_seconds(self) -> float:
        """From the making of the meter to the last batch."""
        return self._seconds[-1] if self._seconds else 0.0

    @property
    def samples_per_second(self) -> float:
        """Over all of `elapsed_seconds`: the time to the first batch counts."""
        return self.samples / self.elapsed_seconds if self._seconds else 0.0

    @property
    def seconds_to_first_batch(self) -> float:
        """How long the first batch took; 0 if there was none."""
        return self._seconds[0] if self._seconds else 0.0

    def throughput(self, max_bins: int = 60) -> Throughput:
        """Samples per second in even bins: at most `max_bins`, about four batches to a bin, and of few batches less."""
        if not self._seconds:
            return Throughput(np.zeros(0), np.zeros(0))
        batches = len(self._seconds)
        bins = min(max_bins, max(batches // 4, min(batches, _FEWEST_BINS)))
        edges = np.linspace(0.0, self.elapsed_seconds, bins + 1)
        samples, _ = np.histogram(self._seconds, bins=edges, weights=np.asarray(self._samples, np.float64))
        return Throughput((edges[:-1] + edges[1:]) / 2, samples / np.diff(edges))

    def pond_levels(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Seconds, (n,), and open slots, (n,), at each batch."""
        return np.asarray(self._seconds), np.asarray(self._levels, np.int64)
