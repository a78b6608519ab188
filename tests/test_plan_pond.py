"""The pond delivers everything, in order, whatever order tasks come back in, within the slots the plan asks for."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._plan.epoch import EpochPlan, blocks_needed, open_batches_needed
from millpond._plan.pond import FinishTask, Layout, Pond, ReadyBatch, SegmentTask
from millpond._plan.segments import cut_segments
from planned import plan_epoch


def make_plan(total: int, gop: int, horizon: int, *, shuffle: bool = True, batch_size: int = 8) -> EpochPlan:
    segments = cut_segments(np.append(np.arange(0, total, gop), total), target_samples=gop, split=False)
    return plan_epoch(
        segments,
        np.arange(total) // 30,
        batch_size=batch_size,
        horizon_batches=horizon,
        shuffle=shuffle,
        seed=1,
        epoch=0,
    )


def make_pond(plan: EpochPlan, layout: Layout, *, outlet: bool, parts: int = 2) -> Pond:
    slots = open_batches_needed(plan) if layout == "direct" else blocks_needed(plan)
    return Pond(
        plan,
        num_parts=parts,
        layout=layout,
        pond_slots=list(range(slots)),
        outlet_slots=[0, 1] if outlet else None,
    )


Failing = Callable[[SegmentTask | FinishTask], dict[int, Exception]]


def run(pond: Pond, rng: random.Random, failing: Failing = lambda task: {}) -> list[ReadyBatch]:
    """Tasks come back in any order; every ready batch is taken and released at once. Ends when nothing can go on."""
    out: list[SegmentTask | FinishTask] = []
    delivered: list[ReadyBatch] = []
    while True:
        while (task := pond.next_task()) is not None and (len(out) < 6 or rng.random() < 0.5):
            out.append(task)
        if task is not None:
            out.append(task)
        if not out:
            return delivered
        done = out.pop(rng.randrange(len(out)))
        pond.complete(done.task_id, failing(done))
        while (ready := pond.take_ready()) is not None:
            delivered.append(ready)
            pond.release(ready.slot)


@given(
    st.integers(1, 200),
    st.integers(1, 40),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from(["direct", "gathered"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_all_is_delivered_in_order_with_the_slots_that_the_plan_needs(
    total: int, gop: int, horizon: int, shuffle: bool, layout: Layout, outlet: bool, rng: random.Random
) -> None:
    plan = make_plan(total, gop, horizon, shuffle=shuffle)
    delivered = run(make_pond(plan, layout, outlet=outlet or layout == "gathered"), rng)
    assert [ready.batch for ready in delivered] == list(range(plan.num_batches))
    assert np.concatenate([ready.samples for ready in delivered]).tolist() == plan.delivery_order().tolist()


@given(st.integers(0, 12), st.randoms(use_true_random=False))
def test_a_resumed_pond_delivers_the_rest(batch: int, rng: random.Random) -> None:
    plan = make_plan(96, 12, 4).resumed_at(batch)
    delivered = run(make_pond(plan, "direct", outlet=False), rng)
    assert [ready.batch for ready in delivered] == list(range(batch, 12))


@pytest.mark.parametrize("layout", ["direct", "gathered"])
def test_tables_made_in_small_blocks_change_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(300, 7, 5)
    monkeypatch.setattr("millpond._plan.pond._BLOCK_SAMPLES", 10)
    delivered = run(make_pond(plan, layout, outlet=True), random.Random(0))
    assert np.concatenate([ready.samples for ready in delivered]).tolist() == plan.delivery_order().tolist()


@pytest.mark.parametrize("outlet", [False, True])
@pytest.mark.parametrize("layout", ["direct", "gathered"])
def test_a_batch_without_rows_comes_in_its_turn(layout: Layout, outlet: bool) -> None:
    plan = replace(make_plan(64, 8, 4), num_batches=10)
    delivered = run(make_pond(plan, layout, outlet=outlet or layout == "gathered"), random.Random(0))
    assert [(ready.batch, len(ready.samples)) for ready in delivered] == [*((k, 8) for k in range(8)), (8, 0), (9, 0)]


def test_failures_stay_with_their_row() -> None:
    plan = make_plan(64, 8, 4)
    error = ValueError("bad")

    def failing(task: SegmentTask | FinishTask) -> dict[int, Exception]:
        return {at: error for at, sample in enumerate(task.samples) if sample == 17 and isinstance(task, SegmentTask)}

    delivered = run(make_pond(plan, "direct", outlet=False), random.Random(0), failing)
    failed = [(ready.samples[row], why) for ready in delivered for row, why in ready.failures.items()]
    assert failed == [(17, error)]


@pytest.mark.parametrize("layout", ["direct", "gathered"])
def test_a_finish_task_leaves_failed_rows_out(layout: Layout) -> None:
    plan = make_plan(64, 8, 4)
    seen: list[int] = []

    def failing(task: SegmentTask | FinishTask) -> dict[int, Exception]:
        if isinstance(task, FinishTask):
            seen.extend(task.samples.tolist())
            return {}
        return {at: ValueError() for at, sample in enumerate(task.samples) if sample % 10 == 0}

    run(make_pond(plan, layout, outlet=True), random.Random(0), failing)
    assert sorted(seen) == [sample for sample in range(64) if sample % 10]


def test_two_batches_never_share_an_open_slot() -> None:
    plan = make_plan(200, 10, 5)
    pond = make_pond(plan, "direct", outlet=False, parts=1)
    owner: dict[tuple[int, int], int] = {}
    for _ in range(plan.num_batches):
        while (task := pond.next_task()) is not None:
            assert isinstance(task, SegmentTask)
            for slot, row, sample in zip(task.slots, task.rows, task.samples, strict=True):
                assert owner.setdefault((int(slot), int(row)), int(sample)) == sample
            pond.complete(task.task_id, {})
        ready = pond.take_ready()
        assert ready is not None
        for row in range(len(ready.samples)):
            assert owner.pop((ready.slot, row)) == ready.samples[row]
        pond.release(ready.slot)


def test_a_failed_task_fails_all_of_its_samples() -> None:
    plan = make_plan(8, 8, 1)
    pond = make_pond(plan, "direct", outlet=False, parts=1)
    task = pond.next_task()
    assert task is not None
    pond.fail(task.task_id, OSError("gone"))
    ready = pond.take_ready()
    assert ready is not None
    assert len(ready.failures) == 8


def test_the_gathered_layout_needs_an_outlet() -> None:
    with pytest.raises(ValueError, match="outlet"):
        Pond(make_plan(8, 8, 1), num_parts=1, layout="gathered", pond_slots=[0], outlet_slots=None)
