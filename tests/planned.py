"""An epoch's plan in one call, for tests that look at plans of one shard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millpond._plan.epoch import EpochPlan, decode_order, order_epoch
from millpond._plan.segments import Segments


def plan_epoch(
    segments: Segments,
    groups: NDArray[np.int64],
    *,
    batch_size: int,
    horizon_batches: int,
    shuffle: bool,
    seed: int,
    epoch: int,
    shard: int = 0,
) -> EpochPlan:
    """See `decode_order` and `order_epoch`."""
    order = decode_order(segments, groups, shuffle=shuffle, seed=seed, epoch=epoch, shard=shard)
    return order_epoch(order, batch_size=batch_size, horizon_batches=horizon_batches)
