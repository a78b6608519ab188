"""Does a series of looks go up? Sen's slope with its confidence interval, which a few odd looks do not bend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Trend:
    """The slope of a series over its numbers 0, 1, 2, ...

    Attributes:
        slope: Median of the slopes of all pairs (Theil-Sen), a step.
        low, high: Where it lies with a confidence of 95 per cent.
        noise: How far a single look is off the line: median, scaled to be a standard deviation.
        rise: Of the line, from the first look to the last.
    """

    slope: float
    low: float
    high: float
    noise: float
    rise: float

    @property
    def is_flat(self) -> bool:
        """No trend above noise: it may be none at all, or all of it is less than a look is off by chance.

        The second because looks at a heap are no independent draws, as the interval takes them to be.
        """
        return self.low <= 0.0 or self.rise <= 3.0 * self.noise


def trend_of(series: Sequence[float], confidence: float = 0.95) -> Trend:
    """At least three looks."""
    values = np.asarray(series, np.float64)
    count = len(values)
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((values[second] - values[first]) / (second - first))
    slope = float(np.median(slopes))
    # Sen 1968: the standard deviation of Kendall's S, with a correction for ties, in ranks of the sorted slopes.
    ties = np.unique(values, return_counts=True)[1]
    variance = (count * (count - 1) * (2 * count + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18.0
    reach = NormalDist().inv_cdf(0.5 + confidence / 2.0) * max(0.0, variance) ** 0.5
    low = int(max(0, np.floor((len(slopes) - reach) / 2.0)))
    high = int(min(len(slopes) - 1, np.ceil((len(slopes) + reach) / 2.0)))
    off = values - slope * np.arange(count)
    noise = 1.4826 * float(np.median(np.abs(off - np.median(off))))
    return Trend(slope, float(slopes[low]), float(slopes[high]), noise, slope * (count - 1))
