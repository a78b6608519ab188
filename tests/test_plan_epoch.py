"""The order of an epoch: complete, reproducible, bounded, and well mixed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._plan.epoch import EpochPlan, blocks_needed, open_batches_needed, stable_order
from millpond._plan.mixing import expected_distinct, mixing_of
from millpond._plan.segments import cut_segments
from planned import plan_epoch


def make_plan(total: int = 2994, gop: int = 2, target: int = 16, **changes: Any) -> EpochPlan:
    cuts = np.append(np.arange(0, total, gop), total)
    options: dict[str, Any] = {"batch_size": 32, "horizon_batches": 24, "shuffle": True, "seed": 0, "epoch": 0}
    options |= changes
    return plan_epoch(cut_segments(cuts, target_samples=target, split=False), np.arange(total) // 100, **options)


@given(st.integers(1, 400), st.integers(1, 50), st.integers(1, 40), st.integers(1, 20), st.booleans(), st.booleans())
def test_every_sample_stands_in_one_row_of_one_batch(
    total: int, gop: int, batch_size: int, horizon: int, shuffle: bool, drops: bool
) -> None:
    plan = make_plan(total, gop, batch_size=batch_size, horizon_batches=horizon, shuffle=shuffle)
    plan = plan.with_batches(total // batch_size) if drops else plan
    assert len(set(plan.samples.tolist())) == len(plan.samples) == total - plan.num_dropped
    assert plan.num_dropped == (total % batch_size if drops else 0)
    sizes = plan.batch_sizes
    assert (sizes[:-1] == batch_size).all()
    for batch in range(plan.num_batches):
        assert sorted(plan.rows[plan.batches == batch].tolist()) == list(range(sizes[batch]))


def test_seed_and_epoch_decide_the_order() -> None:
    first = make_plan(seed=3, epoch=5).delivery_order()
    assert (first == make_plan(seed=3, epoch=5).delivery_order()).all()
    assert (first != make_plan(seed=3, epoch=6).delivery_order()).any()
    assert (first != make_plan(seed=4, epoch=5).delivery_order()).any()


@pytest.mark.parametrize(
    ("gop", "target", "horizon", "digest"),
    [(2, 16, 24, "598f232ca2da62d5"), (30, 30, 8, "d5ce1fdd9befd162"), (250, 16, 94, "ddae1b7ab298958a")],
)
def test_checkpoints_count_on_orders_that_stay_as_they_were(gop: int, target: int, horizon: int, digest: str) -> None:
    plan = make_plan(gop=gop, target=target, horizon_batches=horizon, seed=3, epoch=1)
    assert hashlib.sha256(plan.delivery_order().astype("<i8").tobytes()).hexdigest().startswith(digest)


def test_equal_keys_stay_in_their_order_on_every_processor() -> None:
    keys = np.random.default_rng(0).integers(0, 50, 100_000).astype(np.float64)
    assert (stable_order(keys) == np.argsort(keys, kind="stable")).all()


def test_without_shuffle_the_order_is_the_datasets() -> None:
    assert (make_plan(shuffle=False).delivery_order() == np.arange(2994)).all()


@pytest.mark.parametrize(("gop", "horizon"), [(2, 24), (30, 24), (250, 94)])
def test_episodes_mix_as_in_a_full_shuffle(gop: int, horizon: int) -> None:
    groups = np.arange(2994) // 100
    for epoch in range(3):
        plan = make_plan(gop=gop, target=max(16, gop), horizon_batches=horizon, epoch=epoch)
        assert mixing_of(plan, groups, 32) >= 0.95


@pytest.mark.parametrize("horizon", [1, 4, 24])
def test_the_horizon_bounds_the_open_batches(horizon: int) -> None:
    needed = [open_batches_needed(make_plan(horizon_batches=horizon, epoch=epoch)) for epoch in range(5)]
    assert max(needed) <= horizon + 2


def test_the_first_batch_does_not_wait_for_more_than_the_horizon() -> None:
    plan = make_plan(horizon_batches=8)
    assert np.flatnonzero(plan.batches == 0).max() < 8 * 32


def test_a_segment_gives_no_batch_more_than_its_share() -> None:
    plan = make_plan(gop=16, target=16, horizon_batches=16, epoch=1)
    middle = (plan.batches > 20) & (plan.batches < 70)
    segment = np.repeat(np.arange(plan.num_segments), np.diff(plan.segment_bounds))
    _, counts = np.unique(plan.batches[middle] * 10_000 + segment[middle], return_counts=True)
    assert counts.max() <= 3


@given(st.integers(0, 20))
def test_a_resumed_epoch_is_the_rest_of_the_same(batch: int) -> None:
    whole = make_plan(total=600)
    batch = min(batch, whole.num_batches)
    rest = whole.resumed_at(batch)
    assert (rest.delivery_order() == whole.delivery_order()[batch * 32 :]).all()
    assert rest.batch_sizes[batch:].tolist() == whole.batch_sizes[batch:].tolist()
    again = rest.resumed_at(batch)
    assert (again.segment_bounds == rest.segment_bounds).all()


def test_needs_of_an_epoch_with_nothing_left_are_small() -> None:
    nothing = make_plan(total=64).resumed_at(2)
    assert (nothing.num_segments, open_batches_needed(nothing), blocks_needed(nothing)) == (0, 1, 1)


def test_expected_distinct_agrees_with_drawing() -> None:
    groups = np.repeat(np.arange(30), np.linspace(20, 200, 30).astype(int))
    rng = np.random.default_rng(0)
    drawn = np.mean([len(set(rng.permutation(groups)[:32].tolist())) for _ in range(3000)])
    assert expected_distinct(groups, 32) == pytest.approx(drawn, rel=0.01)
