"""The memory plan: what a budget buys, and what an order costs. Pure arithmetic, done before anything is allocated.

A candidate is a segment length and a layout. For each the horizon (open batches, or blocks) that the budget holds is
found, an epoch is planned with it, and three figures are read off that plan: mixing, frames decoded per frame
delivered, and samples to decode before the first batch. `choose` takes the cheapest that mixes well enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from millpond._plan.canonical import open_batches_for
from millpond._plan.demand import Cutting, Demand, all_segments
from millpond._plan.epoch import EpochPlan, blocks_needed, open_batches_needed, slots_always_enough
from millpond._plan.mixing import mixing_of
from millpond._plan.pond import Layout
from millpond._plan.segments import Segments

MIB = 1 << 20
GOOD_MIXING = 0.95
"""Mixing that the default asks for before it looks at cost."""

ARENA_SHARE = 0.8
RESERVE_BYTES = 128 * MIB
"""The arena takes at most `ARENA_SHARE` of what the budget has above `RESERVE_BYTES`. Both are fixed, so that the
order of an epoch does not depend on `num_workers`: processes that do not fit beside that arena are refused instead."""

ZYGOTE_BYTES = 32 * MIB
WORKER_BYTES = 32 * MIB
TRAINER_BYTES = 16 * MIB
"""Allowances. Measured PSS: zygote 20 MiB; worker 8 MiB when started, up to 24 MiB with its decoder, its compressed
bytes and its reformatter at 640x480; training process 8 MiB of tables, threads and messages (see bench/epoch.py)."""

FETCHER_BYTES = 24 * MIB
"""Of the training process, where bytes are fetched: its client, answers under way, sample tables."""

LEAST_PREFETCH_BYTES, MOST_PREFETCH_BYTES = 8 * MIB, 256 * MIB

PLAN_BYTES_PER_SAMPLE = 80
"""Measured with a million samples: 43 for the order of an epoch and its pond at their peak, 8 for the episode of each
sample, and where every frame is a keyframe 24 for cuts and segments."""

TASK_COST_FRAMES = 1.0
"""A task's own cost: 0.5 ms of a worker and 0.3 ms of the training process; a frame of 640x480 is 0.6 to 1.2 ms."""

COPY_COST_FRAMES = 0.05
"""One more copy of a frame, in frames decoded."""

TASK_FRAMES = 64
"""Parts of a short segment share a task up to so many frames: a task costs the training process about 0.2 ms whatever
is in it, and 64 frames are some 50 ms of a worker."""

PLANNED_SAMPLES = 200_000
"""Candidates of larger datasets are judged on a prefix of so many samples."""

SEGMENT_LADDER = (4, 8, 16, 32, 64, 128, 256, 512)
FINISHING_SLOTS = 2
"""Outlet slots beyond those held by the user: one being finished, one waiting."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One way to run an epoch, with its arithmetic. `str()` prints it.

    Attributes:
        memory_bytes: The budget.
        layout: "direct" (frames go straight into open batches) or "gathered" (segments are kept, batches copied out).
        segment_samples: The segment length aimed at.
        splits_gops: Whether GOPs longer than that are cut, and decoded more than once.
        num_samples: Samples of an epoch.
        num_segments: Segments of an epoch.
        parts_per_task: Parts (cameras) of a segment that one task decodes.
        horizon_batches: A segment's samples leave within so many batches.
        pond_slots: Open batches, or blocks.
        pond_slot_bytes: Size of each.
        outlet_slots: Slots for finished batches; 0 where open batches are handed over as they are.
        outlet_slot_bytes: Size of each.
        prefetch_bytes: For bytes that are fetched ahead; 0 where they are at hand.
        held_batches: Batches that the user may hold without a copy; in `pond_slots` or `outlet_slots`.
        overhead_bytes: Allowance for zygote, workers and the training process.
        mixing: Predicted distinct episodes per batch over a full shuffle's.
        decodes_per_frame: Frames decoded per frame of the dataset.
        first_batch_samples: Samples decoded before the first batch can leave.
        cost: What `choose` compares, in decoded frames per frame of the dataset.
    """

    memory_bytes: int
    layout: Layout
    segment_samples: int
    splits_gops: bool
    num_samples: int
    num_segments: int
    parts_per_task: int
    horizon_batches: int
    pond_slots: int
    pond_slot_bytes: int
    outlet_slots: int
    outlet_slot_bytes: int
    prefetch_bytes: int
    held_batches: int
    overhead_bytes: int
    mixing: float
    decodes_per_frame: float
    first_batch_samples: int
    cost: float

    @property
    def samples_per_segment(self) -> float:
        """Mean length of a segment."""
        return self.num_samples / self.num_segments

    @property
    def arena_bytes(self) -> int:
        """Size of the arena."""
        slots = self.pond_slots * self.pond_slot_bytes + self.outlet_slots * self.outlet_slot_bytes
        return slots + self.prefetch_bytes

    @property
    def heap_bytes(self) -> int:
        """What is left for copies of batches held beyond `held_batches`."""
        return self.memory_bytes - self.arena_bytes - self.overhead_bytes

    def __str__(self) -> str:
        def mib(size: int) -> str:
            return f"{size / MIB:9.1f} MiB"

        kind = "open batches" if self.layout == "direct" else "decoded segments"
        held = "the user's included" if not self.outlet_slots else "finished ones are in the outlet"
        lines = [
            f"memory                {mib(self.memory_bytes)}",
            f"  pond                {mib(self.pond_slots * self.pond_slot_bytes)}   "
            f"{self.pond_slots} {kind} x {self.pond_slot_bytes / MIB:.1f} MiB ({held})",
        ]
        if self.outlet_slots:
            lines.append(
                f"  outlet              {mib(self.outlet_slots * self.outlet_slot_bytes)}   "
                f"{self.outlet_slots} finished batches x {self.outlet_slot_bytes / MIB:.1f} MiB"
            )
        if self.prefetch_bytes:
            lines.append(f"  prefetch            {mib(self.prefetch_bytes)}   compressed bytes, fetched ahead")
        lines += [
            f"  processes           {mib(self.overhead_bytes)}   zygote, workers, tables (allowance)",
            f"  left for copies     {mib(self.heap_bytes)}   of batches held beyond {self.held_batches}",
            f"segments              {self.num_segments}, of {self.samples_per_segment:.0f} samples each"
            + (", GOPs are split" if self.splits_gops else ""),
            f"horizon               {self.horizon_batches} batches",
            f"decodes per frame     {self.decodes_per_frame:.2f}",
            f"mixing                {self.mixing:.2f} (distinct episodes per batch, predicted; a full shuffle is 1)",
            f"before first batch    {self.first_batch_samples} samples are decoded",
        ]
        return "\n".join(lines)


def candidates(demand: Demand, memory_bytes: int, *, splits: bool) -> Iterator[MemoryPlan]:
    """Every plan that the budget can run; with `splits`, also those that decode GOPs more than once."""
    seen: set[tuple[int, ...]] = set()
    judged = demand.prefix(PLANNED_SAMPLES)
    is_fixed = demand.horizon_batches is not None
    for split in (False, True) if splits and not is_fixed else (False,):
        for target in (demand.horizon_batches,) if demand.horizon_batches is not None else SEGMENT_LADDER:
            whole = demand.cut(target_samples=target, split=split)
            segments, lengths = all_segments(whole), demand.lengths_of_any_epoch(whole)
            key = (len(segments), int(segments.lengths.max()))
            if key in seen:
                continue
            seen.add(key)
            for layout in _layouts(demand):
                plan = _fit(demand, judged, memory_bytes, _Shape(layout, target, split, segments, lengths))
                if plan is not None:
                    yield plan


def choose(plans: list[MemoryPlan], *, mixing: float | None) -> MemoryPlan | None:
    """The cheapest plan that mixes well enough; None where there is none.

    Among plans within 1 % of the cheapest the one with the shortest segments wins: it mixes neighbours better.

    Args:
        plans: From `candidates`.
        mixing: The least mixing wanted; None: `GOOD_MIXING` if it is to be had, else the best there is.
    """
    if not plans:
        return None
    best = max(plan.mixing for plan in plans)
    wanted = min(GOOD_MIXING, best - 0.01) if mixing is None else mixing
    good = [plan for plan in plans if plan.mixing >= wanted]
    if not good:
        return None
    limit = 1.01 * min(plan.cost for plan in good)
    return min((plan for plan in good if plan.cost <= limit), key=lambda plan: (plan.segment_samples, plan.cost))


def smallest_memory(demand: Demand, *, above_bytes: int = 0) -> int:
    """The smallest budget above a refused one that can run, in bytes, to the MiB.

    A little more than a budget that works may be refused: the arena's share then holds a slot more, and the processes
    no longer fit beside it. The order must not depend on their number, so the arena does not make room for them.
    """

    def works(size: int) -> bool:
        return next(candidates(demand, size, splits=True), None) is not None

    low, high = above_bytes, max(2 * above_bytes, 2 * overhead_bytes(demand))
    while not works(high):
        low, high = high, 2 * high
    while high - low > MIB:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    size = -(-high // MIB) * MIB
    while not works(size):
        size += MIB
    return size


def plan_within(demand: Demand, plan: MemoryPlan, cutting: Cutting, epoch: int) -> EpochPlan:
    """The order of one epoch, with the largest horizon up to the plan's that its slots are enough for."""
    horizon, of_shards = plan.horizon_batches, demand.decode_orders(cutting, epoch)
    while True:
        order = demand.order(of_shards, horizon)
        if demand.horizon_batches is not None or horizon == 0:
            return order
        if _slots_needed(order, plan.layout) <= _usable_slots(plan):
            return order
        del order  # before there is another one
        horizon -= 1


def _usable_slots(plan: MemoryPlan) -> int:
    return plan.pond_slots if plan.outlet_slots else plan.pond_slots - plan.held_batches


def _slots_needed(order: EpochPlan, layout: Layout) -> int:
    return open_batches_needed(order) if layout == "direct" else blocks_needed(order)


def _layouts(demand: Demand) -> tuple[Layout, ...]:
    # Without windows a gathered batch is one more copy of every frame and holds no more samples. How many blocks a
    # fixed horizon takes depends on the order in which segments of different lengths come.
    return ("direct", "gathered") if demand.window_copies > 1 and demand.horizon_batches is None else ("direct",)


class _Shape(NamedTuple):
    layout: Layout
    target: int
    split: bool
    segments: Segments
    lengths: NDArray[np.int64]  # of the segments that any epoch has at most


def _fit(demand: Demand, judged: Demand, memory_bytes: int, shape: _Shape) -> MemoryPlan | None:
    """The plan with the largest horizon that fits, or with the one that is fixed; None where it does not."""
    layout, whole = shape.layout, shape.segments
    batch_bytes = demand.batch_size * demand.sample_bytes
    finishes = layout == "gathered" or demand.outlet_sample_bytes is not None
    outlet_slots = demand.held_batches + FINISHING_SLOTS if finishes else 0
    outlet_bytes = demand.batch_size * (demand.outlet_sample_bytes or demand.sample_bytes)
    held = 0 if finishes else demand.held_batches
    slot_bytes = batch_bytes if layout == "direct" else demand.block_bytes(whole.starts, whole.stops)
    overhead = overhead_bytes(demand)
    arena = int(ARENA_SHARE * max(0, memory_bytes - RESERVE_BYTES))
    slots = (arena - outlet_slots * outlet_bytes) // slot_bytes - held
    enough = _always_enough(demand, shape)
    if slots < enough:
        return None
    cutting = judged.cut(target_samples=shape.target, split=shape.split)
    found = _largest_horizon(judged, layout, cutting, slots)
    if found is None:
        return None
    horizon, order, needed = found
    segments = all_segments(cutting)
    # More slots than the plan needs let workers run ahead while the user trains; more than the epoch has are no use.
    most = math.ceil(demand.num_samples / demand.batch_size) if layout == "direct" else len(shape.lengths)
    ahead = needed + 8
    frames = int(segments.lengths.sum()) * max(demand.num_cameras, 1) * demand.frames_per_sample
    decoded = int(demand.decoded_frames(segments.starts, segments.stops).sum())
    frames_per_part = decoded / (len(segments) * max(demand.num_cameras, 1))
    parts_per_task = min(demand.num_parts, max(1, int(TASK_FRAMES / max(frames_per_part, 1))))
    prefetch = _prefetch_bytes(demand, segments, parts_per_task)
    rest = memory_bytes - overhead - outlet_slots * outlet_bytes - prefetch
    affordable = rest // slot_bytes - held
    used = min(slots, affordable, most if demand.shuffle else min(most, ahead))
    copies = demand.window_copies if layout == "gathered" else 0.0
    tasks = len(segments) * -(-demand.num_parts // parts_per_task)
    cost = (decoded + TASK_COST_FRAMES * tasks) / frames + COPY_COST_FRAMES * copies
    plan = MemoryPlan(
        memory_bytes=memory_bytes,
        layout=layout,
        segment_samples=shape.target,
        splits_gops=shape.split,
        num_samples=demand.num_samples,
        num_segments=max(1, round(len(whole) * demand.num_samples / int(whole.lengths.sum()))),
        parts_per_task=parts_per_task,
        horizon_batches=horizon,
        pond_slots=max(used, needed, enough) + held,
        pond_slot_bytes=slot_bytes,
        outlet_slots=outlet_slots,
        outlet_slot_bytes=outlet_bytes if finishes else 0,
        prefetch_bytes=prefetch,
        held_batches=demand.held_batches,
        overhead_bytes=overhead,
        mixing=mixing_of(order, judged.groups, demand.batch_size),
        decodes_per_frame=decoded / frames,
        first_batch_samples=_samples_before_first_batch(order),
        cost=cost,
    )
    return plan if plan.heap_bytes >= 0 else None


def overhead_bytes(demand: Demand) -> int:
    """What the processes need beside the arena."""
    trainer = TRAINER_BYTES + PLAN_BYTES_PER_SAMPLE * demand.num_samples
    if demand.fetched_bytes is not None:
        trainer += FETCHER_BYTES
    if demand.num_workers == 0:
        return trainer
    return trainer + ZYGOTE_BYTES + demand.num_workers * WORKER_BYTES


def _always_enough(demand: Demand, shape: _Shape) -> int:
    """Slots with which every epoch runs, whatever its order."""
    if demand.horizon_batches is not None:
        enough = open_batches_for(shape.segments, demand.shard_rows, demand.horizon_batches)
        return enough if demand.num_batches is None else min(enough, demand.num_batches)
    return slots_always_enough(shape.lengths, demand.batch_size, gathered=shape.layout == "gathered")


def _prefetch_bytes(demand: Demand, segments: Segments, parts_per_task: int) -> int:
    """Room for the tasks whose requests are under way, as many that wait, and a few of the largest."""
    if demand.fetched_bytes is None:
        return 0
    share = parts_per_task / max(demand.num_parts, 1)
    tasks = share * demand.fetched_bytes(segments.starts, segments.stops)
    wanted = max(2 * demand.fetch_workers * float(tasks.mean()), 4 * float(tasks.max()), LEAST_PREFETCH_BYTES)
    return -(-int(min(wanted, MOST_PREFETCH_BYTES)) // MIB) * MIB


def _largest_horizon(demand: Demand, layout: Layout, cutting: Cutting, slots: int) -> tuple[int, EpochPlan, int] | None:
    """The largest horizon whose plan needs no more than `slots`, its plan, and what it needs."""
    of_shards = demand.decode_orders(cutting, epoch=0)

    def attempt(horizon: int) -> tuple[EpochPlan, int]:
        order = demand.order(of_shards, horizon)
        return order, _slots_needed(order, layout)

    if demand.horizon_batches is not None:
        return demand.horizon_batches, *attempt(demand.horizon_batches)
    most = math.ceil(demand.num_samples / demand.batch_size)
    longest = int(all_segments(cutting).lengths.max())
    samples = slots * demand.batch_size if layout == "direct" else slots * longest
    low, high, best = 0, min(most, samples // demand.batch_size), None
    order, needed = attempt(high)
    if needed <= slots:
        return high, order, needed
    while low <= high:  # the need grows with the horizon
        middle = (low + high) // 2
        order, needed = attempt(middle)
        if needed <= slots:
            best, low = (middle, order, needed), middle + 1
        else:
            high = middle - 1
    return best


def _samples_before_first_batch(order: EpochPlan) -> int:
    if order.num_segments == 0:
        return 0
    last = int(np.flatnonzero(order.batches == order.first_batch).max())
    segment = int(np.searchsorted(order.segment_bounds, last, side="right"))
    return int(order.segment_bounds[segment])
