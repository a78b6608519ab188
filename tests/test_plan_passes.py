"""Passes: over the epochs each sample of a dataset comes once before any comes again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._plan.passes import take_passes
from millpond._plan.segments import Segments

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=8)


def segments_of(lengths: list[int]) -> Segments:
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Segments(bounds[:-1], bounds[1:])


def samples_of(segments: Segments) -> list[int]:
    pairs = zip(segments.starts.tolist(), segments.stops.tolist(), strict=True)
    return [sample for start, stop in pairs for sample in range(start, stop)]


def taken(
    lengths: list[int], quota: int, epoch: int, *, shuffle: bool = True, seed: tuple[int, ...] = (3,)
) -> Segments:
    start, stop = epoch * quota, (epoch + 1) * quota
    return take_passes(segments_of(lengths), start=start, stop=stop, shuffle=shuffle, seed=seed)


@given(lengths=LENGTHS, quota=st.integers(1, 40), epochs=st.integers(1, 6), shuffle=st.booleans())
def test_windows_of_consecutive_epochs_are_whole_passes(
    lengths: list[int], quota: int, epochs: int, shuffle: bool
) -> None:
    windows = [taken(lengths, quota, epoch, shuffle=shuffle) for epoch in range(epochs)]
    assert all(int(window.lengths.sum()) == quota and (window.lengths > 0).all() for window in windows)
    order = [sample for window in windows for sample in samples_of(window)]
    total = sum(lengths)
    for first in range(0, len(order), total):
        one = order[first : first + total]
        assert len(set(one)) == len(one)
        if len(one) == total:
            assert sorted(one) == list(range(total))


@given(lengths=LENGTHS, quota=st.integers(1, 40), epoch=st.integers(0, 9))
def test_without_shuffling_passes_come_in_the_order_of_the_dataset(lengths: list[int], quota: int, epoch: int) -> None:
    places = np.arange(epoch * quota, (epoch + 1) * quota)
    assert samples_of(taken(lengths, quota, epoch, shuffle=False)) == (places % sum(lengths)).tolist()


@given(lengths=LENGTHS, quota=st.integers(1, 40))
def test_segments_are_cut_at_the_ends_of_a_window_alone(lengths: list[int], quota: int) -> None:
    window = taken(lengths, quota, 1)
    whole = set(
        zip(*(side.tolist() for side in (segments_of(lengths).starts, segments_of(lengths).stops)), strict=True)
    )
    inner = list(zip(window.starts.tolist(), window.stops.tolist(), strict=True))[1:-1]
    assert set(inner) <= whole


def test_each_pass_and_each_seed_has_an_order_of_its_own() -> None:
    lengths = [1] * 50
    orders = [samples_of(taken(lengths, 50, epoch, seed=seed)) for seed in ((3,), (3, 1)) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == samples_of(taken(lengths, 50, 0))


def test_the_order_of_a_pass_is_the_same_whatever_the_quota() -> None:
    lengths = [3, 4, 5, 6]
    by_fives = [sample for epoch in range(18) for sample in samples_of(taken(lengths, 5, epoch))]
    assert by_fives == samples_of(taken(lengths, 90, 0))


def test_nothing_can_be_taken_of_nothing() -> None:
    none = Segments(np.empty(0, np.int64), np.empty(0, np.int64))
    assert len(take_passes(none, start=3, stop=3, shuffle=True, seed=(0,))) == 0
    with pytest.raises(ValueError, match="of a dataset that has none"):
        take_passes(none, start=0, stop=1, shuffle=True, seed=(0,))
