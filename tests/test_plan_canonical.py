"""Orders of shards: the same whatever rank merges them, and within slots that are known before any order is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from millpond._plan.canonical import open_batches_for, order_shard
from millpond._plan.epoch import EpochPlan, decode_order, merge_plans, open_batches_needed
from millpond._plan.segments import Segments, cut_segments, join_segments
from millpond._plan.shards import run_starts
from planned import plan_epoch


def shards_of(total: int, num_shards: int, gop: int, target: int) -> list[Segments]:
    bounds = [run_starts([total], num_shards, shard)[0] for shard in range(num_shards + 1)]
    found = []
    for start, stop in pairwise(bounds):
        inner = np.arange(-(-(start + 1) // gop) * gop, stop, gop)
        cuts: NDArray[np.int64] = np.concatenate(([start], inner, [stop])).astype(np.int64)
        found.append(cut_segments(cuts, target_samples=target, split=False))
    return found


def orders_of(shards: list[Segments], rows: int, horizon: int, epoch: int, total: int) -> list[EpochPlan]:
    return [
        order_shard(
            decode_order(segments, np.arange(total) // 40, shuffle=True, seed=7, epoch=epoch, shard=number),
            batch_size=rows,
            horizon_batches=horizon,
        )
        for number, segments in enumerate(shards)
    ]


@given(
    st.integers(16, 1500), st.integers(1, 300), st.integers(1, 16), st.integers(1, 24), st.integers(1, 8), st.integers()
)
def test_slots_are_enough_for_any_number_of_shards_together(
    total: int, gop: int, rows: int, horizon: int, num_shards: int, epoch: int
) -> None:
    shards = shards_of(total, num_shards, gop, horizon)
    merged = merge_plans(orders_of(shards, rows, horizon, abs(epoch), total))
    assert open_batches_needed(merged) <= open_batches_for(join_segments(shards), rows, horizon)


@pytest.mark.parametrize(("gop", "rows", "horizon"), [(2, 16, 16), (30, 8, 16), (250, 4, 16), (2, 1, 32), (30, 32, 8)])
def test_the_envelope_leaves_the_horizon_as_it_was_asked_for(gop: int, rows: int, horizon: int) -> None:
    shards, groups = shards_of(6000, 2, gop, horizon), np.arange(6000) // 40
    for epoch in range(10):
        for number, plan in enumerate(orders_of(shards, rows, horizon, epoch, 6000)):
            options = {"batch_size": rows, "horizon_batches": horizon, "seed": 7, "epoch": epoch, "shard": number}
            assert (plan.batches == plan_epoch(shards[number], groups, shuffle=True, **options).batches).all()


def test_a_merged_batch_has_the_rows_of_each_shard_one_after_the_other() -> None:
    shards = shards_of(400, 4, 10, 8)
    orders = orders_of(shards, 4, 6, 0, 400)
    merged = merge_plans(orders)
    for batch in range(merged.num_batches):
        ours = merged.samples[merged.batches == batch][np.argsort(merged.rows[merged.batches == batch])]
        theirs = [plan.delivery_order()[batch * 4 : batch * 4 + 4] for plan in orders]
        assert ours.tolist() == np.concatenate(theirs).tolist()


def test_shards_are_decoded_in_step() -> None:
    orders = orders_of(shards_of(4000, 4, 10, 16), 4, 6, 0, 4000)
    merged = merge_plans(orders)
    shard = merged.samples[merged.segment_bounds[:-1]] // 1000
    lengths = np.diff(merged.segment_bounds)
    done = np.stack([np.cumsum(np.where(shard == number, lengths, 0)) for number in range(4)])
    assert np.ptp(done, axis=0).max() <= 2 * lengths.max()
