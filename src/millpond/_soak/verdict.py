"""Flat, growing, or too short to say: what a series of looks is called, and why.

Growing: it goes up by more than chance, by more than its own noise, by an amount that matters, and in the second half
still does. Flat: it does not, and if it goes up by less than can be seen, then by so little that its limit is not
reached within a day. Too short: neither is known yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from millpond._soak.kinds import MIB, Kind
from millpond._soak.trend import Trend, Values, steady_trend_of

CONFIDENCE = 0.99
"""Of the intervals: a soak judges some 15 series at a time, and each false alarm costs somebody an afternoon."""
_LATER_CONFIDENCE = 0.9
"""That the second half, which has half of the looks, goes up as well."""
_LATER_SHARE = 0.4
"""Of the whole slope that the second half must still have. What levels off (a heap that finds its size) has less."""
_NOISE_FACTOR = 3.0
"""A rise of less than three deviations of a single block from the line may be one odd block at each end."""
_LEVEL_SHARE = 0.01
"""A rise of less than a hundredth of the level is an allocator's creep, or a page cache's; over a day it is none."""
_FLOOR_BYTES = 4 * MIB
"""An idle Python process that imports, compiles and logs now and then creeps by 1 to 2 MiB."""
_FLOOR_COUNT = 4.0
"""Descriptors and threads come and go by ones and twos: a library's cache of connections, a lazy thread."""
_HARM_SECONDS = 86_400.0
"""What cannot reach its limit within a day is flat, as far as this soak can tell; a longer soak can tell more."""
_SLOW_HARM_SECONDS = 30 * 86_400.0
"""A rise that is certain, and too small to matter yet, is not called flat if it would fill its limit in a month."""
_UNSEEN_STEPS = 3.0
"""Steps that did not come once in a time come, with a confidence of 95 per cent, less often than thrice in it."""
_FEWEST_HALF = 5
"""Looks: if all five rise, chance has 1 in 120, and the whole, with twice as many, is held to more."""


class Verdict(StrEnum):
    """What a series is called."""

    FLAT = "flat"
    GROWING = "growing"
    TOO_SHORT = "too short to say"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and what it stands on.

    Attributes:
        verdict: Of the series.
        trend: Slope and interval per second; None where there were too few looks. Of the second half, where the series
            has levelled off.
        level: Median of the second half; 0.0 without looks.
        limit: What it may reach; None: nobody knows.
        seconds_to_limit: From the end of the soak, at the slope, where it grows and has a limit.
        enough_seconds: How long a soak after its warm-up would have told, where this one was too short; an estimate.
        has_levelled_off: It went up, and does no more.
        num_looks: After the warm-up.
        span_seconds: From the first look after the warm-up to the last.
    """

    verdict: Verdict
    trend: Trend | None
    level: float
    limit: float | None
    seconds_to_limit: float | None = None
    enough_seconds: float | None = None
    has_levelled_off: bool = False
    num_looks: int = 0
    span_seconds: float = 0.0


def judge(kind: Kind, times: Values, values: Values, limit: float | None) -> Judgement:
    """Judge the looks of a series after its warm-up.

    Args:
        kind: Of the series.
        times: Seconds, in order.
        values: As many.
        limit: What it may reach.
    """
    span = float(times[-1] - times[0]) if len(times) else 0.0
    middle = len(times) // 2
    level = float(np.median(values[middle:])) if len(times) else 0.0
    if min(middle, len(times) - middle) < _FEWEST_HALF:
        enough = 2.0 * _FEWEST_HALF * max(span / max(1, len(times) - 1), 1.0) * 1.25
        return Judgement(Verdict.TOO_SHORT, None, level, limit, None, enough, False, len(times), span)
    whole = steady_trend_of(times, values, confidence=CONFIDENCE)
    later = steady_trend_of(times[middle:], values[middle:], confidence=_LATER_CONFIDENCE)
    room = None if limit is None else max(0.0, limit - float(np.max(values[middle:])))
    return _Case(kind, whole, later, level, limit, room, len(times), span).judgement()


@dataclass(frozen=True, slots=True)
class _Case:
    kind: Kind
    whole: Trend
    later: Trend
    level: float
    limit: float | None
    room: float | None
    num_looks: int
    span: float

    def judgement(self) -> Judgement:
        goes_up = self.whole.low > 0.0 and self.later.low > 0.0
        goes_on = goes_up and self.later.slope >= _LATER_SHARE * self.whole.slope
        if goes_on and self._is_material(self.whole):
            to_limit = None if self.room is None else self.room / self.whole.slope
            return self._called(Verdict.GROWING, self.whole, seconds_to_limit=to_limit)
        if goes_on and self._is_slow_harm():
            share = self.whole.rise / self._least_rise()
            return self._called(Verdict.TOO_SHORT, self.whole, enough_seconds=self.span / share)
        for trend, seconds in ((self.whole, self.span), (self.later, self.span / 2)):
            if not (trend.low > 0.0 and self._is_material(trend)) and self._most(trend, seconds) <= self._harm():
                return self._called(Verdict.FLAT, trend, has_levelled_off=trend is self.later)
        return self._called(Verdict.TOO_SHORT, self.whole, enough_seconds=self._enough())

    def _is_material(self, trend: Trend) -> bool:
        return trend.rise >= max(self._least_rise(), _NOISE_FACTOR * trend.noise)

    def _least_rise(self) -> float:
        floor = _FLOOR_BYTES if self.kind.is_bytes else _FLOOR_COUNT
        return max(floor, _LEVEL_SHARE * self.level)

    def _is_slow_harm(self) -> bool:
        is_seen = self.whole.rise >= _NOISE_FACTOR * self.whole.noise and self.whole.rise < self._least_rise()
        return is_seen and self.room is not None and self.whole.slope * _SLOW_HARM_SECONDS > self.room

    def _most(self, trend: Trend, seconds: float) -> float:
        """How fast it may go up at most, unseen."""
        return trend.high if self.kind.is_bytes else max(trend.high, _UNSEEN_STEPS / seconds)

    def _harm(self) -> float:
        """The least slope that does harm; where there is no limit, one that doubles it in a day."""
        room = self.room if self.room is not None else max(self.level, 10 * self._least_rise())
        return max(room / _HARM_SECONDS, 1e-12)

    def _enough(self) -> float:
        """The interval narrows with the time to the power of 3/2: by its number of blocks, and by their distance."""
        narrower = max(0.0, self._most(self.whole, self.span) - max(0.0, self.whole.slope)) / self._harm()
        return self.span * max(1.25, float(narrower ** (2 / 3)))

    def _called(
        self,
        verdict: Verdict,
        trend: Trend,
        *,
        seconds_to_limit: float | None = None,
        enough_seconds: float | None = None,
        has_levelled_off: bool = False,
    ) -> Judgement:
        return Judgement(
            verdict,
            trend,
            self.level,
            self.limit,
            seconds_to_limit,
            enough_seconds,
            has_levelled_off,
            self.num_looks,
            self.span,
        )
