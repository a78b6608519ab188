"""The memory plan that a loader runs, or why there is none."""

from __future__ import annotations

from millpond._plan.demand import Demand
from millpond._plan.memory import MemoryPlan, candidates, choose, smallest_memory


def choose_plan(demand: Demand, memory_bytes: int, mixing: float | None) -> MemoryPlan:
    """The cheapest plan of a budget that mixes well enough.

    Raises:
        ValueError: The budget holds none (with the smallest that does), or none mixes so well.
    """
    plans = list(candidates(demand, memory_bytes, splits=mixing is not None))
    if not plans and mixing is None:
        plans = list(candidates(demand, memory_bytes, splits=True))
    if not plans:
        raise ValueError(_too_small(demand, memory_bytes))
    chosen = choose(plans, mixing=mixing)
    if chosen is None:
        best = max(plans, key=lambda plan: plan.mixing)
        raise ValueError(
            f"mixing={mixing} cannot be reached within memory={memory_bytes >> 20} MiB: the best is {best.mixing:.2f}, "
            f"with {best.decodes_per_frame:.1f} decodes per frame; raise memory= or lower mixing="
        )
    return chosen


def _too_small(demand: Demand, memory_bytes: int) -> str:
    fixed, remedy = "", "num_workers="
    if demand.horizon_batches is not None:
        fixed = f" and horizon_batches={demand.horizon_batches}, which canonical_shards= fixes"
        remedy = "horizon_batches= (another order)"
    smallest = smallest_memory(demand, above_bytes=memory_bytes)
    return (
        f"memory={memory_bytes} bytes ({memory_bytes >> 20} MiB) cannot hold batches of {demand.batch_size} samples of "
        f"{demand.sample_bytes} bytes with {demand.num_workers} workers{fixed}; the smallest that can is "
        f'"{smallest >> 20}MiB". A smaller image_size=, batch_size= or {remedy} needs less'
    )
