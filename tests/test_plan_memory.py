"""The memory plan: what a budget buys, what is refused, and what the order costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from millpond._amounts import parse_bytes
from millpond._plan.demand import Demand
from millpond._plan.epoch import blocks_needed, open_batches_needed, slots_always_enough
from millpond._plan.memory import (
    MIB,
    MemoryPlan,
    candidates,
    choose,
    plan_within,
    smallest_memory,
)
from millpond._plan.shards import Quotas, Shard

Array = NDArray[np.int64]
FRAME = 640 * 480 * 3


def demand(gop: int = 2, *, frame_bytes: int = FRAME, steps: int = 1, total: int = 3000) -> Demand:
    """Two cameras, 30 episodes of 100 frames, windows of `steps` frames up to the present one."""

    def decoded(starts: Array, stops: Array) -> Array:
        decoded: Array = 2 * (stops - np.maximum(0, starts - steps + 1) // gop * gop)
        return decoded

    return Demand(
        cuts=np.append(np.arange(0, total, gop), total),
        groups=np.arange(total) // 100,
        decoded_frames=decoded,
        block_bytes=lambda starts, stops: int((stops - starts + steps).max()) * 2 * frame_bytes,
        batch_size=32,
        sample_bytes=2 * steps * frame_bytes,
        outlet_sample_bytes=None,
        num_cameras=2,
        num_parts=2,
        window_copies=steps,
        shuffle=True,
        seed=0,
        held_batches=2,
        num_workers=2,
        shards=(Shard(0, ((0, total),)),),
    )


def chosen(wishes: Demand, memory: int | str, mixing: float | None = None) -> MemoryPlan:
    plan = choose(list(candidates(wishes, parse_bytes(memory), splits=mixing is not None)), mixing=mixing)
    assert plan is not None
    return plan


@pytest.mark.parametrize("gop", [2, 30])
def test_two_gigabytes_mix_full_size_frames_and_decode_each_once(gop: int) -> None:
    plan = chosen(demand(gop), "2GiB")
    assert plan.mixing >= 0.95
    assert plan.decodes_per_frame == 1.0
    assert plan.arena_bytes + plan.overhead_bytes <= 2048 * MIB


def test_long_gops_mix_when_frames_are_small() -> None:
    plan = chosen(demand(250, frame_bytes=224 * 224 * 3), "2GiB")
    assert plan.mixing >= 0.95
    assert plan.decodes_per_frame == 1.0


def test_long_gops_of_large_frames_mix_worse_unless_decoded_more_than_once() -> None:
    calm = chosen(demand(250), "2GiB")
    assert calm.mixing < 0.95
    assert calm.decodes_per_frame == 1.0
    mixed = chosen(demand(250), "2GiB", mixing=0.95)
    assert mixed.mixing >= 0.95
    assert mixed.splits_gops
    assert mixed.decodes_per_frame > 1.5


def test_long_windows_are_gathered_and_short_ones_are_not() -> None:
    small = 224 * 224 * 3
    assert chosen(demand(30, frame_bytes=small), "2GiB").layout == "direct"
    windows = chosen(demand(30, frame_bytes=small, steps=8), "1GiB")
    assert windows.layout == "gathered"
    assert windows.mixing >= 0.95


@pytest.mark.parametrize("workers", [0, 1, 8])
def test_the_order_does_not_depend_on_the_number_of_workers(workers: int) -> None:
    plan = chosen(replace(demand(), num_workers=workers), "2GiB")
    expected = chosen(demand(), "2GiB")
    assert (plan.horizon_batches, plan.segment_samples, plan.pond_slots) == (
        expected.horizon_batches,
        expected.segment_samples,
        expected.pond_slots,
    )


@pytest.mark.parametrize(("gop", "steps"), [(2, 1), (250, 1), (30, 8)])
def test_the_smallest_memory_works_and_a_mebibyte_less_does_not(gop: int, steps: int) -> None:
    wishes = demand(gop, steps=steps, frame_bytes=96 * 96 * 3)
    smallest = smallest_memory(wishes)
    assert next(candidates(wishes, smallest, splits=True), None) is not None
    assert next(candidates(wishes, smallest - MIB, splits=True), None) is None


@pytest.mark.parametrize("gop", [2, 30, 250])
def test_every_epoch_finds_its_way_within_the_slots(gop: int) -> None:
    wishes = demand(gop, frame_bytes=224 * 224 * 3, steps=3)
    for plan in candidates(wishes, 600 * MIB, splits=True):
        segments = wishes.cut(target_samples=plan.segment_samples, split=plan.splits_gops)
        for epoch in range(3):
            order = plan_within(wishes, plan, segments, epoch)
            needed = open_batches_needed(order) if plan.layout == "direct" else blocks_needed(order)
            assert needed <= plan.pond_slots - (0 if plan.outlet_slots else plan.held_batches)


@given(
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 64),
    st.sampled_from([1, 6]),
    st.integers(0, 60),
    st.booleans(),
)
def test_no_plan_that_is_accepted_can_stand_still(
    gop: int, frame_kib: int, episodes: int, batch_size: int, steps: int, spare_mib: int, shuffle: bool
) -> None:
    wishes = replace(
        demand(gop, frame_bytes=frame_kib << 10, steps=steps, total=300),
        groups=np.arange(300) // (300 // episodes),
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=0,
    )
    for plan in candidates(wishes, (128 + spare_mib) * MIB, splits=True):
        segments = wishes.cut(target_samples=plan.segment_samples, split=plan.splits_gops)
        for epoch in range(6):
            order = plan_within(wishes, plan, segments, epoch)
            needed = open_batches_needed(order) if plan.layout == "direct" else blocks_needed(order)
            assert needed <= plan.pond_slots - (0 if plan.outlet_slots else plan.held_batches)


def test_a_budget_that_is_named_works_also_where_a_smaller_one_would() -> None:
    wishes = replace(demand(30, frame_bytes=480 * 640 * 3), num_workers=8, batch_size=8)
    for size in range(400 * MIB, 1100 * MIB, 62 * MIB):
        if next(candidates(wishes, size, splits=True), None) is None:
            named = smallest_memory(wishes, above_bytes=size)
            assert named > size
            assert next(candidates(wishes, named, splits=True), None) is not None


def test_the_plan_prints_its_arithmetic() -> None:
    text = str(chosen(demand(), "2GiB"))
    assert "2048.0 MiB" in text
    assert "open batches x 56.2 MiB" in text
    assert "decodes per frame     1.00" in text


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("500 MB", 500_000_000), ("1e3", 1000), (7, 7), ("1.5kib", 1536)]
)
def test_sizes_are_read(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "2 XB", "-1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_bytes(text)


@given(st.integers(2, 200), st.integers(1, 900), st.integers(1, 900), st.integers(1, 64), st.integers(0, 9))
def test_blocks_are_enough_where_an_epoch_takes_parts_of_segments_or_several_passes(
    gop: int, first_quota: int, second_quota: int, batch_size: int, epoch: int
) -> None:
    shard = Shard(0, ((0, 203), (203, 240)), Quotas((first_quota, second_quota), 1, 0))
    wishes = replace(demand(gop, total=240), shards=(shard,), batch_size=batch_size)
    cutting = wishes.cut(target_samples=8, split=False)
    order = wishes.order(wishes.decode_orders(cutting, epoch), 0)
    assert len(order.samples) == first_quota + second_quota
    enough = slots_always_enough(wishes.lengths_of_any_epoch(cutting), batch_size, gathered=True)
    assert blocks_needed(order) <= enough
