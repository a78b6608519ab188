"""Segments hold every sample once, and are cut where it is free."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._plan.segments import cut_segments

CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(lambda gops: np.cumsum([0, *gops]).astype(np.int64))


@given(CUTS, st.integers(1, 64), st.booleans())
def test_segments_hold_every_sample_once_in_order(cuts: np.ndarray, target: int, split: bool) -> None:
    segments = cut_segments(cuts, target_samples=target, split=split)
    assert segments.starts[0] == 0
    assert segments.stops[-1] == cuts[-1]
    assert (segments.starts[1:] == segments.stops[:-1]).all()
    assert (segments.lengths > 0).all()


@given(CUTS, st.integers(1, 64))
def test_without_split_every_segment_starts_at_a_free_cut(cuts: np.ndarray, target: int) -> None:
    segments = cut_segments(cuts, target_samples=target, split=False)
    assert set(segments.starts) <= set(cuts)
    longest_gop = np.diff(cuts).max()
    assert segments.lengths.max() <= max(target, longest_gop)


@given(CUTS, st.integers(1, 64))
def test_with_split_no_segment_is_longer_than_the_target(cuts: np.ndarray, target: int) -> None:
    assert cut_segments(cuts, target_samples=target, split=True).lengths.max() <= target


def test_small_gops_are_joined_up_to_the_target() -> None:
    segments = cut_segments(np.arange(0, 101, 2), target_samples=16, split=False)
    assert segments.lengths.tolist() == [16] * 6 + [4]


def test_a_target_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cut_segments(np.asarray([0, 5]), target_samples=0, split=False)
