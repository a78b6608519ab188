"""Which frames are chosen: what is shown at a time, at any frame rate, and never a frame that is not there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from millpond._plan.frame_choice import MAX_CHOSEN_FRAMES, choose_frames, last_frame_seconds
from millpond.errors import FrameTimestampError

# milliseconds between frames: constant, variable, and frames of one time, which broken clips have
STEPS = st.one_of(
    st.builds(lambda step, count: [step] * count, st.integers(1, 200), st.integers(0, 300)),
    st.lists(st.integers(0, 2000), max_size=80),
)


@st.composite
def clips(draw: st.DrawFn) -> NDArray[np.float64]:
    """Frame times of a clip, in seconds; it may begin at any time."""
    start, steps = draw(st.integers(-5000, 5_000_000)), draw(STEPS)
    return np.cumsum([start, *steps]).astype(np.float64) / 1000


def constant(num_frames: int, fps: float, ticks: int | None = None) -> NDArray[np.float64]:
    """A clip of constant frame rate, whose times are rounded to 1 / ticks."""
    seconds = np.arange(num_frames) / fps
    return seconds if ticks is None else np.round(seconds * ticks) / ticks


@given(clips(), st.integers(1, 64))
def test_evenly_spread_frames_are_so_many_ascend_and_exist(seconds: NDArray[np.float64], num_frames: int) -> None:
    chosen = choose_frames(seconds, num_frames=num_frames)
    assert chosen.shape == (num_frames,)
    assert chosen.dtype == np.int64
    assert np.all(np.diff(chosen) >= 0)
    assert 0 <= chosen[0] <= chosen[-1] < len(seconds)


@given(clips(), st.floats(0.01, 240), st.none() | st.integers(1, 40))
def test_frames_by_rate_begin_with_the_first_ascend_and_exist(
    seconds: NDArray[np.float64], fps: float, max_frames: int | None
) -> None:
    chosen = choose_frames(seconds, fps=fps, max_frames=max_frames)
    assert chosen[0] == np.flatnonzero(seconds == seconds[0])[-1] or seconds[chosen[0]] - seconds[0] <= 0.001
    assert np.all(np.diff(chosen) >= 0)
    assert chosen[-1] < len(seconds)
    duration = seconds[-1] - seconds[0] + last_frame_seconds(seconds)
    expected = max(math.ceil(duration * fps), 1) if max_frames is None else min(max_frames, len(chosen))
    assert abs(len(chosen) - expected) <= max(1, 0.001 * fps)


@given(clips(), st.data())
def test_the_frame_at_a_time_has_begun_and_the_next_has_not(seconds: NDArray[np.float64], data: st.DataObject) -> None:
    times = np.sort(data.draw(st.lists(st.floats(0, float(seconds[-1] - seconds[0])), min_size=1, max_size=20)))
    chosen = choose_frames(seconds, times=times)
    wanted = seconds[0] + times
    assert np.all(seconds[chosen] <= wanted + 0.001)
    later = np.append(seconds, np.inf)[chosen + 1]
    assert np.all(later > wanted - 1e-9)


@pytest.mark.parametrize("ticks", [None, 1000, 90_000, 600])
@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0, 30000 / 1001, 50.0, 59.94, 120.0])
def test_the_clip_s_own_rate_takes_every_frame_once_also_of_rounded_times(fps: float, ticks: int | None) -> None:
    seconds = constant(200, fps, ticks)
    assert choose_frames(seconds, fps=fps).tolist() == list(range(200))


@pytest.mark.parametrize("ticks", [None, 1000])
@pytest.mark.parametrize(("frames", "wanted"), [(10, 10), (300, 16), (300, 150), (7, 3), (4, 16), (1, 5), (250, 8)])
def test_evenly_spread_frames_are_those_of_the_formula(frames: int, wanted: int, ticks: int | None) -> None:
    formula = [math.floor((k + 0.5) * frames / wanted + 1e-6) for k in range(wanted)]
    assert choose_frames(constant(frames, 30.0, ticks), num_frames=wanted).tolist() == formula


def test_of_a_clip_of_variable_rate_the_frame_that_lasts_is_chosen_more_often() -> None:
    seconds = np.array([0.0, 0.1, 0.2, 5.0, 5.1])  # the third is shown for 4.8 of 5.2 seconds
    assert choose_frames(seconds, num_frames=4).tolist() == [2, 2, 2, 2]
    assert choose_frames(seconds, fps=1).tolist() == [0, 2, 2, 2, 2, 3]


def test_a_rate_above_the_clip_s_own_repeats_frames() -> None:
    assert choose_frames(constant(3, 10), fps=20).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_clip_of_one_frame_gives_it_as_often_as_asked() -> None:
    assert choose_frames(np.array([3.7]), num_frames=3).tolist() == [0, 0, 0]
    assert choose_frames(np.array([3.7]), fps=30).tolist() == [0]
    assert choose_frames(np.array([3.7]), times=[0.0]).tolist() == [0]


def test_times_count_from_the_first_frame() -> None:
    assert choose_frames(constant(10, 10) + 1.4, times=[0.0, 0.35, 0.9]).tolist() == [0, 3, 9]


@pytest.mark.parametrize("time", [-0.01, 1.11, float("nan"), float("inf")])
def test_a_time_outside_of_the_clip_is_an_error(time: float) -> None:
    with pytest.raises(FrameTimestampError, match=r"1 of 2 times") as caught:
        choose_frames(constant(10, 10), times=[0.5, time])
    assert caught.value.positions == [1]


def test_a_time_less_than_a_frame_behind_the_end_shows_the_last() -> None:
    assert choose_frames(constant(10, 10), times=[0.99, 1.09]).tolist() == [9, 9]


def test_times_that_descend_are_an_error() -> None:
    with pytest.raises(FrameTimestampError, match="do not ascend"):
        choose_frames(constant(10, 10), times=[0.5, 0.2])


def test_max_frames_keeps_the_first() -> None:
    assert choose_frames(constant(100, 10), fps=5, max_frames=3).tolist() == [0, 2, 4]
    assert choose_frames(constant(100, 10), times=[0.0, 0.5, 1.0], max_frames=2).tolist() == [0, 5]


def test_a_clip_that_claims_to_last_for_days_is_an_error_unless_it_is_bounded() -> None:
    seconds = np.array([0.0, 1e9])
    with pytest.raises(FrameTimestampError, match=f"limit {MAX_CHOSEN_FRAMES}"):
        choose_frames(seconds, fps=30)
    assert choose_frames(seconds, fps=30, max_frames=4).tolist() == [0, 0, 0, 0]


def test_a_clip_that_shows_nothing_is_an_error() -> None:
    with pytest.raises(FrameTimestampError, match="no frame at all"):
        choose_frames(np.zeros(0), num_frames=1)


def test_exactly_one_way_is_given() -> None:
    for ways in ({}, {"num_frames": 1, "fps": 1.0}):
        with pytest.raises(ValueError, match="exactly one"):
            choose_frames(constant(3, 10), **ways)  # type: ignore[arg-type]
