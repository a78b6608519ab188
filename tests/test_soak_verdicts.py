"""Verdicts of a soak: what was put in is found, and what is flat is called flat."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millpond._soak.kinds import KIND_OF, MIB
from millpond._soak.results import Ending, SoakResult
from millpond._soak.series import Series
from millpond._soak.trend import steady_trend_of, trend_of
from millpond._soak.verdict import Judgement, Verdict, judge
from millpond._soak.words import duration_in_words, said_of

Values = npt.NDArray[np.floating[Any]]
Make = Callable[[Values, np.random.Generator], Values]

TIMES = np.arange(0.0, 600.0)
MEMORY, PIPES = KIND_OF["pss_bytes"], KIND_OF["pipes"]

LEAKS: dict[str, Make] = {
    "a cache without a bound": lambda t, r: np.floor(t / 3) * 3.5 * MIB + r.normal(0, 5 * MIB, len(t)),
    "72 MB per cycle of 40 s": lambda t, r: np.floor(t / 40) * 72e6 + (t % 40) * 5 * MIB,
    "3 MB per batch": lambda t, r: np.floor(t * 2) * 3e6 + r.normal(0, 50 * MIB, len(t)),
}
FLAT: dict[str, Make] = {
    "nothing": lambda t, r: 0 * t,
    "noise": lambda t, r: r.normal(0, 20 * MIB, len(t)),
    "a sawtooth of garbage collection": lambda t, r: (t % 13) * 20 * MIB + r.normal(0, MIB, len(t)),
    "epochs that fill and empty a pond": lambda t, r: 300 * MIB * np.minimum(1.0, (t % 30) / 5),
    "workers that are recycled": lambda t, r: sum((((t + 5 * k) % (20 + k)) * 3 * MIB for k in range(4)), 0 * t),
    "steps that level off": lambda t, r: 80 * MIB * np.minimum(3, np.floor(t / 70)) + r.normal(0, MIB, len(t)),
    "a heap that finds its size": lambda t, r: (
        400.0 * MIB * (1.0 - np.exp(-t / 40.0).astype(np.float64)) + r.normal(0, 2 * MIB, len(t))
    ),
    "rare bursts": lambda t, r: 500.0 * MIB * (r.random(len(t)) < 0.02),
    "less and less": lambda t, r: -t * MIB / 2,
}


def judged(make: Make, *, seed: int = 0, limit: float = 24 * 2.0**30) -> Judgement:
    values = 2**30 + make(TIMES, np.random.default_rng(seed))
    return judge(MEMORY, TIMES, values.astype(np.float64), limit)


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found(name: str) -> None:
    assert judged(LEAKS[name]).verdict is Verdict.GROWING


@pytest.mark.parametrize("name", FLAT)
def test_what_is_flat_is_called_flat(name: str) -> None:
    assert judged(FLAT[name]).verdict is Verdict.FLAT


def test_growth_tells_when_the_limit_is_reached() -> None:
    found = judge(PIPES, TIMES, 20 + np.floor(TIMES * 2.4 / 60), 20_000)
    assert found.verdict is Verdict.GROWING
    assert found.trend is not None
    assert found.trend.slope == pytest.approx(0.04, rel=0.02)
    assert 0.03 < found.trend.low <= found.trend.slope <= found.trend.high < 0.05
    assert re.fullmatch(r"growing by 2\.4 a minute: EMFILE in 5 d \d+ h at this rate", said_of(PIPES, found))


def test_few_looks_are_too_short_and_say_how_long_suffices() -> None:
    found = judge(PIPES, TIMES[:8], TIMES[:8] * 0, 1024)
    assert found.verdict is Verdict.TOO_SHORT
    assert found.enough_seconds == 12.5


def test_no_leak_in_half_a_minute_says_little_where_the_limit_is_low_and_enough_where_it_is_high() -> None:
    few = TIMES[:30]
    assert judge(PIPES, few, few * 0, 1024).verdict is Verdict.TOO_SHORT
    assert judge(PIPES, few, few * 0, 500_000).verdict is Verdict.FLAT


def test_two_teeth_of_a_sawtooth_are_too_short() -> None:
    found = judge(MEMORY, TIMES, (TIMES % 299) * 30 * MIB, 24 * 2.0**30)
    assert found.verdict is Verdict.TOO_SHORT
    assert found.enough_seconds is not None
    assert found.enough_seconds > 600


def test_a_certain_rise_that_is_small_is_not_called_flat_where_it_fills_the_limit_in_a_month() -> None:
    slow = TIMES * MIB / 200
    assert judge(MEMORY, TIMES, 2**30 + slow, 4 * 2.0**30).verdict is Verdict.TOO_SHORT
    assert judge(MEMORY, TIMES, 2**30 + slow, 400 * 2.0**30).verdict is Verdict.FLAT


def test_a_series_stays_small_and_keeps_its_slope() -> None:
    series = Series(most_points=64)
    for second in range(10_000):
        series.add(second, 3.0 * second)
    times, values = series.points()
    assert 32 <= len(times) < 64
    assert np.diff(values) / np.diff(times) == pytest.approx(3.0)
    assert (series.num_looks, series.last, series.peak) == (10_000, 29_997.0, 29_997.0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (61, "1 min 1 s"), (3600, "1 h"), (504_000, "5 d 20 h"), (86_400 * 2, "2 d")]
)
def test_durations_have_their_two_largest_units(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_a_trend_is_found_in_noise_and_none_is_found_in_noise_alone() -> None:
    noise = [(number * 7919) % 101 for number in range(200)]
    flat, rising = trend_of(noise), trend_of([value + 3 * number for number, value in enumerate(noise)])
    assert flat.is_flat
    assert not rising.is_flat
    assert rising.low <= rising.slope <= rising.high
    assert rising.slope == pytest.approx(3.0, abs=0.1)


def test_a_single_step_in_a_series_is_no_trend() -> None:
    assert trend_of([0.0] * 100 + [4096.0] * 10).is_flat
    assert not trend_of([float(number // 10) for number in range(200)]).is_flat


def test_looks_that_hang_together_are_not_taken_for_independent_draws() -> None:
    four_teeth = TIMES % 150
    alone, together = trend_of(four_teeth.tolist(), TIMES.tolist()), steady_trend_of(TIMES, four_teeth, confidence=0.95)
    assert alone.low > 0.0
    assert together.low <= 0.0
    assert together.num_values < 48


def test_a_dataset_that_is_read_by_mapping_it_is_no_growth() -> None:
    pss = judge(MEMORY, TIMES, 2**30 + TIMES * MIB, 24 * 2.0**30)
    held = judge(KIND_OF["held_bytes"], TIMES, 2.0**30 + TIMES * 0, 24 * 2.0**30)
    assert pss.verdict is Verdict.GROWING
    assert SoakResult({"pss_bytes": pss, "held_bytes": held}, {}, Ending("duration")).verdict is Verdict.FLAT
