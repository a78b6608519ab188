"""Orders of shards that depend on nothing but the shard, and how many slots any number of them need together. Pure.

Theory of operation. A shard's order must be the same whatever ranks there are, so its horizon must not be fitted to one
rank's memory. Instead every order keeps to an *envelope*, which is known before any order is: where `n` samples of the
shard were decoded before a segment,

- no batch is open beyond ``max(H, n + H / 2) + slack`` (in samples), and
- all of batch t is in segments with ``n <= (t + 1) b + H / 2``; at the end, in all that there are,

with H the horizon in samples and b the rows of a batch. An order of this horizon does so but for rare chances, where a
horizon of a batch less is tried; one of 0 always does. Since shards are decoded in step, what holds for each of them
holds for the rank that has several, so the slots that are enough follow from the envelope.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millpond._plan.epoch import DecodeOrder, EpochPlan, last_segment_of_batches, order_epoch
from millpond._plan.segments import Segments


def order_shard(order: DecodeOrder, *, batch_size: int, horizon_batches: int) -> EpochPlan:
    """Order one epoch of one shard, within the envelope; `batch_size` is of the shard, see `order_epoch`."""
    horizon = horizon_batches
    while True:
        plan = order_epoch(order, batch_size=batch_size, horizon_batches=horizon)
        if horizon == 0 or _keeps_to_envelope(plan, batch_size, horizon_batches):
            return plan
        horizon -= 1


def open_batches_for(segments: Segments, rows: int, horizon_batches: int) -> int:
    """Open batches that are enough in every epoch, for any number of shards that are cut into these segments.

    Args:
        segments: Of all of them.
        rows: Of a batch that one shard fills.
        horizon_batches: Of their orders.
    """
    return horizon_batches + 2 + -(-_slack(segments.lengths, rows, horizon_batches) // rows)


def _slack(lengths: NDArray[np.int64], rows: int, horizon_batches: int) -> int:
    """Samples: half a segment, or all of it beyond half the horizon, and a batch. Orders were seen to take 4 of it."""
    longest = int(lengths.max())
    return max(longest // 2, longest - horizon_batches * rows // 2) + rows


def _keeps_to_envelope(plan: EpochPlan, rows: int, horizon_batches: int) -> bool:
    if plan.num_segments == 0:
        return True
    total, horizon = int(plan.segment_bounds[-1]), horizon_batches * rows
    before = plan.segment_bounds[:-1]
    opened = np.maximum.accumulate(np.maximum.reduceat(plan.batches, before)) * rows
    due = (np.arange(plan.num_batches) + 1) * rows
    latest = np.where(due < total - horizon, due + horizon // 2, total)
    is_late = before[last_segment_of_batches(plan)] > latest
    is_far = opened > np.maximum(horizon, before + horizon // 2) + _slack(
        np.diff(plan.segment_bounds), rows, horizon_batches
    )
    return not (is_late.any() or is_far.any())
