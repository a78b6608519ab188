"""Does a series of looks go up? Sen's slope with its confidence interval, which a few odd looks do not bend.

The interval takes looks to be independent draws. `trend_of` is for looks that nearly are, such as one after each job
of a bench; `steady_trend_of` is for looks at a clock's pace, which are not: memory that is a sawtooth has long runs
above and below its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

MOST_BLOCKS, FEWEST_BLOCKS = 48, 8
"""Of a series, in time. With 48 the slopes of all pairs take a millisecond, and more would not narrow the interval of a
series whose looks hang together. With 8 that all rise, chance has 1 in 40,000."""
_MOST_CORRELATION = 0.9
"""A few blocks cannot tell more from a line; and the interval would be without bounds at 1."""
_STEADY_DEVIATIONS = 1.0
"""Blocks hang together if their correlation is by so much above what chance gives: chance says so of one series in six,
which then has wider blocks than it needs."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The slope of a series.

    Attributes:
        slope: Median of the slopes of all pairs (Theil-Sen), per unit of place.
        low, high: Where it lies with the confidence asked for.
        noise: How far a single value is off the line: median, scaled to be a standard deviation.
        rise: Of the line, from the first place to the last.
        num_values: That the line went through.
    """

    slope: float
    low: float
    high: float
    noise: float
    rise: float
    num_values: int

    @property
    def is_flat(self) -> bool:
        """No trend above noise: it may be none at all, or all of it is less than a look is off by chance.

        The second because looks at a heap are no independent draws, as the interval takes them to be.
        """
        return self.low <= 0.0 or self.rise <= 3.0 * self.noise


def trend_of(values: Sequence[float], places: Sequence[float] | None = None, *, confidence: float = 0.95) -> Trend:
    """The trend of at least three looks.

    Args:
        values: One or more at each place.
        places: In order; None: 0, 1, 2, ...
        confidence: Of the interval.
    """
    places = range(len(values)) if places is None else places
    return _fit(np.asarray(places, np.float64), np.asarray(values, np.float64), confidence)[0]


def steady_trend_of(times: Values, values: Values, *, confidence: float) -> Trend:
    """The trend of looks that hang together, as those at a heap do.

    They are cut into blocks, each of which is stood for by its median: into as many as there can be whose distances
    from the line are not correlated from one block to the next. So blocks are at least about as long as a cycle of the
    series. Where even the widest are correlated the interval is widened by what that takes from their number.

    Args:
        times: In order, at least three of them; unevenly spaced ones are fine.
        values: As many.
        confidence: Of the interval.
    """
    count = min(MOST_BLOCKS, len(times))
    while True:
        trend, off = _fit(*_blocks(times, values, count), confidence)
        correlation = _correlation(off)
        if correlation <= _STEADY_DEVIATIONS / len(off) ** 0.5:
            return trend
        if count <= FEWEST_BLOCKS:
            return _widened(trend, min(_MOST_CORRELATION, correlation))
        count = max(FEWEST_BLOCKS, count * 3 // 4)


def _fit(places: Values, values: Values, confidence: float) -> tuple[Trend, Values]:
    """The trend, and how far each value is off its line."""
    from scipy.stats import theilslopes  # takes a second to import: only when somebody wants to know

    found: Any = theilslopes(values, places, alpha=confidence)
    slope, low, high = float(found.slope), float(found.low_slope), float(found.high_slope)
    off = values - slope * places
    off -= np.median(off)
    noise = 1.4826 * float(np.median(np.abs(off)))
    return Trend(slope, low, high, noise, slope * float(places[-1] - places[0]), len(values)), off


def _blocks(times: Values, values: Values, count: int) -> tuple[Values, Values]:
    """Mean time and median value of blocks of as many looks each: a machine that stood still leaves none empty."""
    middles = [np.mean(some) for some in np.array_split(times, count)]
    return np.asarray(middles), np.asarray([np.median(some) for some in np.array_split(values, count)])


def _correlation(off: Values) -> float:
    """From one block to the next, less what fitting a line to few of them takes from it; 0.0 where all are on it."""
    spread = float(off @ off)
    if spread <= 0.0:
        return 0.0
    found = float(off[:-1] @ off[1:]) / spread
    return found + (1.0 + 4.0 * max(0.0, found)) / len(off)


def _widened(trend: Trend, correlation: float) -> Trend:
    """With the interval that as many values would have that are independent: of n there are n (1 - r) / (1 + r)."""
    by = ((1.0 + correlation) / (1.0 - correlation)) ** 0.5
    return replace(
        trend, low=trend.slope - by * (trend.slope - trend.low), high=trend.slope + by * (trend.high - trend.slope)
    )
