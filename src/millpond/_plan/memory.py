"""The memory plan: what a budget buys, and what an order costs. Pure arithmetic, done before anything is allocated.

A candidate is a segment length and a layout. For each the horizon (open batches, or blocks) that the budget holds is
found, an epoch is planned with it, and three figures are read off that plan: mixing, frames decoded per frame
delivered, and samples to decode before the first batch. `choose` takes the cheapest that mixes well enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from millpond._plan.epoch import EpochPlan, blocks_needed, open_batches_needed, plan_epoch, slots_always_enough
from millpond._plan.mixing import mixing_of
from millpond._plan.pond import Layout
from millpond._plan.segments import Segments, cut_segments

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

PLAN_BYTES_PER_SAMPLE = 128
"""Of the order of an epoch and its pond: 115 at their peak, measured with a million samples."""

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
class Demand:
    """What the plan must know of a dataset and of the user's wishes.

    Attributes:
        cuts: int64 (S + 1,), where segments may start for free.
        groups: int64 (N,), the episode of each sample.
        decoded_frames: (starts, stops) -> int64 (K,), frames decoded over all cameras to serve each run of samples.
        block_bytes: (starts, stops) -> bytes of the largest decoded segment, kept as a block.
        batch_size: Rows of a batch.
        sample_bytes: Bytes of one row of an open batch.
        outlet_sample_bytes: Bytes of one row as the transform leaves it; None: no transform.
        num_cameras: Frames of one sample and step.
        num_parts: Tasks per segment.
        window_copies: How often a frame is written: the mean number of (sample, step) pairs that show it.
        shuffle: Whether the order is shuffled.
        drop_last: Whether a short last batch is left out.
        seed: Of the order.
        held_batches: Batches that the user may hold.
        num_workers: Worker processes.
        num_samples: Samples of the whole dataset, also where only a prefix is judged.
        fetched_bytes: (starts, stops) -> int64 (K,), about how many bytes must be fetched for each run of samples; None
            where they are at hand.
        fetch_workers: Requests under way at once.
    """

    cuts: NDArray[np.int64]
    groups: NDArray[np.int64]
    decoded_frames: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
    block_bytes: Callable[[NDArray[np.int64], NDArray[np.int64]], int]
    batch_size: int
    sample_bytes: int
    outlet_sample_bytes: int | None
    num_cameras: int
    num_parts: int
    window_copies: float
    shuffle: bool
    drop_last: bool
    seed: int
    held_batches: int
    num_workers: int
    num_samples: int
    fetched_bytes: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]] | None = None
    fetch_workers: int = 0

    @property
    def frames_per_sample(self) -> float:
        """Frames of one sample and camera: 1, or a clip's where every sample is one of its own. Never 0."""
        starts, stops = self.cuts[:-1], self.cuts[1:]
        if len(starts) != len(self.groups):
            return 1.0
        alone = int(self.decoded_frames(starts, stops).sum())
        together = int(self.decoded_frames(self.cuts[:1], self.cuts[-1:]).sum())
        return alone / (len(starts) * max(self.num_cameras, 1)) if alone == together > 0 else 1.0

    @property
    def overhead_bytes(self) -> int:
        """What the processes need beside the arena."""
        trainer = TRAINER_BYTES + PLAN_BYTES_PER_SAMPLE * self.num_samples
        if self.fetched_bytes is not None:
            trainer += FETCHER_BYTES
        if self.num_workers == 0:
            return trainer
        return trainer + ZYGOTE_BYTES + self.num_workers * WORKER_BYTES


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
    judged = _prefix(demand)
    for split in (False, True) if splits else (False,):
        for target in SEGMENT_LADDER:
            segments = cut_segments(demand.cuts, target_samples=target, split=split)
            key = (len(segments), int(segments.lengths.max()))
            if key in seen:
                continue
            seen.add(key)
            for layout in _layouts(demand):
                plan = _fit(judged, memory_bytes, layout, target, split, segments)
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

    low, high = above_bytes, max(2 * above_bytes, 2 * demand.overhead_bytes)
    while not works(high):
        low, high = high, 2 * high
    while high - low > MIB:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    size = -(-high // MIB) * MIB
    while not works(size):
        size += MIB
    return size


def plan_within(demand: Demand, plan: MemoryPlan, segments: Segments, epoch: int) -> EpochPlan:
    """The order of one epoch, with the largest horizon up to the plan's that its slots are enough for."""
    horizon = plan.horizon_batches
    while True:
        order = _order(demand, segments, horizon, epoch)
        if horizon == 0 or _slots_needed(order, plan.layout) <= _usable_slots(plan):
            return order
        horizon -= 1


def _order(demand: Demand, segments: Segments, horizon_batches: int, epoch: int) -> EpochPlan:
    return plan_epoch(
        segments,
        demand.groups,
        batch_size=demand.batch_size,
        horizon_batches=horizon_batches,
        shuffle=demand.shuffle,
        seed=demand.seed,
        epoch=epoch,
        drop_last=demand.drop_last,
    )


def _usable_slots(plan: MemoryPlan) -> int:
    return plan.pond_slots if plan.outlet_slots else plan.pond_slots - plan.held_batches


def _slots_needed(order: EpochPlan, layout: Layout) -> int:
    return open_batches_needed(order) if layout == "direct" else blocks_needed(order)


def _layouts(demand: Demand) -> tuple[Layout, ...]:
    # Without windows a gathered batch is one more copy of every frame and holds no more samples.
    return ("direct", "gathered") if demand.window_copies > 1 else ("direct",)


def _prefix(demand: Demand) -> Demand:
    if len(demand.groups) <= PLANNED_SAMPLES:
        return demand
    cuts = demand.cuts[: max(2, int(np.searchsorted(demand.cuts, PLANNED_SAMPLES)))]
    return replace(demand, cuts=cuts, groups=demand.groups[: cuts[-1]])


def _fit(
    demand: Demand, memory_bytes: int, layout: Layout, target: int, split: bool, whole: Segments
) -> MemoryPlan | None:
    """The plan with the largest horizon that fits, or None."""
    batch_bytes = demand.batch_size * demand.sample_bytes
    finishes = layout == "gathered" or demand.outlet_sample_bytes is not None
    outlet_slots = demand.held_batches + FINISHING_SLOTS if finishes else 0
    outlet_bytes = demand.batch_size * (demand.outlet_sample_bytes or demand.sample_bytes)
    held = 0 if finishes else demand.held_batches
    slot_bytes = batch_bytes if layout == "direct" else demand.block_bytes(whole.starts, whole.stops)
    arena = int(ARENA_SHARE * max(0, memory_bytes - RESERVE_BYTES))
    slots = (arena - outlet_slots * outlet_bytes) // slot_bytes - held
    enough = slots_always_enough(whole, demand.batch_size, gathered=layout == "gathered")
    if slots < enough:
        return None
    segments = cut_segments(demand.cuts, target_samples=target, split=split)
    found = _largest_horizon(demand, layout, segments, slots)
    if found is None:
        return None
    horizon, order, needed = found
    whole_batches = math.ceil(int(whole.lengths.sum()) / demand.batch_size)
    # More slots than the plan needs let workers run ahead while the user trains; more than the epoch has are no use.
    most = whole_batches if layout == "direct" else len(whole)
    ahead = needed + 8
    frames = int(segments.lengths.sum()) * max(demand.num_cameras, 1) * demand.frames_per_sample
    decoded = int(demand.decoded_frames(segments.starts, segments.stops).sum())
    frames_per_part = decoded / (len(segments) * max(demand.num_cameras, 1))
    parts_per_task = min(demand.num_parts, max(1, int(TASK_FRAMES / max(frames_per_part, 1))))
    prefetch = _prefetch_bytes(demand, segments, parts_per_task)
    rest = memory_bytes - demand.overhead_bytes - outlet_slots * outlet_bytes - prefetch
    affordable = rest // slot_bytes - held
    used = min(slots, affordable, most if demand.shuffle else min(most, ahead))
    copies = demand.window_copies if layout == "gathered" else 0.0
    tasks = len(segments) * -(-demand.num_parts // parts_per_task)
    cost = (decoded + TASK_COST_FRAMES * tasks) / frames + COPY_COST_FRAMES * copies
    plan = MemoryPlan(
        memory_bytes=memory_bytes,
        layout=layout,
        segment_samples=target,
        splits_gops=split,
        num_samples=int(whole.lengths.sum()),
        num_segments=len(whole),
        parts_per_task=parts_per_task,
        horizon_batches=horizon,
        pond_slots=max(used, needed, enough) + held,
        pond_slot_bytes=slot_bytes,
        outlet_slots=outlet_slots,
        outlet_slot_bytes=outlet_bytes if finishes else 0,
        prefetch_bytes=prefetch,
        held_batches=demand.held_batches,
        overhead_bytes=demand.overhead_bytes,
        mixing=mixing_of(order, demand.groups, demand.batch_size),
        decodes_per_frame=decoded / frames,
        first_batch_samples=_samples_before_first_batch(order),
        cost=cost,
    )
    return plan if plan.heap_bytes >= 0 else None


def _prefetch_bytes(demand: Demand, segments: Segments, parts_per_task: int) -> int:
    """Room for the tasks whose requests are under way, as many that wait, and a few of the largest."""
    if demand.fetched_bytes is None:
        return 0
    share = parts_per_task / max(demand.num_parts, 1)
    tasks = share * demand.fetched_bytes(segments.starts, segments.stops)
    wanted = max(2 * demand.fetch_workers * float(tasks.mean()), 4 * float(tasks.max()), LEAST_PREFETCH_BYTES)
    return -(-int(min(wanted, MOST_PREFETCH_BYTES)) // MIB) * MIB


def _largest_horizon(
    demand: Demand, layout: Layout, segments: Segments, slots: int
) -> tuple[int, EpochPlan, int] | None:
    """The largest horizon whose plan needs no more than `slots`, its plan, and what it needs."""

    def attempt(horizon: int) -> tuple[EpochPlan, int]:
        order = _order(demand, segments, horizon, epoch=0)
        return order, _slots_needed(order, layout)

    most = math.ceil(int(segments.lengths.sum()) / demand.batch_size)
    samples = slots * demand.batch_size if layout == "direct" else slots * int(segments.lengths.max())
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
