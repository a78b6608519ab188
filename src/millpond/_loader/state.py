"""A loader's state as plain JSON: where it stands, and in which order. No rank is in it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from millpond._datasets.base import Dataset
from millpond._plan.demand import Demand
from millpond._plan.memory import MemoryPlan, candidates
from millpond._plan.shards import Sharding

STATE_VERSION = 2


def identity_of(
    dataset: Dataset,
    sharding: Sharding,
    demand: Demand,
    *,
    memory_bytes: int,
    mixing: float | None,
    shuffle: bool,
    knows_cuts: bool,
) -> dict[str, Any]:
    """What must be the same for a state to mean the same samples in the same order.

    Args:
        knows_cuts: Whether every rank knows where segments may start in all files; else states are not compared by it.
    """
    return {
        "dataset": dataset.fingerprint,
        "cuts": _cuts_digest(dataset) if knows_cuts else None,
        "global_batch_size": sharding.num_shards * sharding.shard_rows,
        "seed": demand.seed,
        "shuffle": shuffle,
        "drop_last": sharding.drops,
        "canonical_shards": sharding.num_shards if sharding.is_canonical else None,
        "horizon_batches": sharding.horizon_batches,
        "world_size": None if sharding.is_canonical else sharding.world_size,
        "fitted_to": _fitted_to(demand, memory_bytes, mixing) if sharding.is_sharded else None,
    }


def _fitted_to(demand: Demand, memory_bytes: int, mixing: float | None) -> dict[str, Any] | None:
    """What each of several ranks chose its order by, for itself; the order of a single rank is in its state."""
    if demand.horizon_batches is not None:
        return None
    return {
        "memory": memory_bytes,
        "mixing": mixing,
        "held_batches": demand.held_batches,
        "num_workers": demand.num_workers,
        "transformed_bytes": demand.outlet_sample_bytes,
        "fetches_ahead": demand.fetched_bytes is not None,
    }


def _cuts_digest(dataset: Dataset) -> str:
    return hashlib.sha256(np.ascontiguousarray(dataset.cuts()).tobytes()).hexdigest()


def require_same(state: dict[str, Any], identity: dict[str, Any], num_batches: int) -> None:
    """ValueError where a state is of another version, another loader, or no place in its epochs."""
    if state.get("version") != STATE_VERSION:
        raise ValueError(f"this state has version {state.get('version')}; this millpond reads {STATE_VERSION}")
    if not all(type(state.get(name)) is int for name in ("epoch", "batch")) or not {"books", "order"} <= state.keys():
        raise ValueError("this state is damaged: it lacks epoch, batch, books or order, or they are no whole numbers")
    if not (state["epoch"] >= 0 and 0 <= state["batch"] <= num_batches):
        raise ValueError(f"this state stands at batch {state['batch']} of epoch {state['epoch']}: there is none")
    pairs = {name: (state.get(name), mine) for name, mine in identity.items()}
    if None in pairs["cuts"]:
        del pairs["cuts"]
    differing = [f"{name} was {was!r} and is {now!r}" for name, (was, now) in pairs.items() if was != now]
    if differing:
        remedy = "" if state.get("fitted_to") == identity["fitted_to"] else "; with canonical_shards= that may change"
        raise ValueError(f"this state was saved by another loader: {'; '.join(differing)}{remedy}")


def order_parameters(plan: MemoryPlan) -> dict[str, Any]:
    """What of a plan the order depends on."""
    return {
        "segment_samples": plan.segment_samples,
        "splits_gops": plan.splits_gops,
        "layout": plan.layout,
        "horizon_batches": plan.horizon_batches,
        "pond_slots": plan.pond_slots,
        "held_batches": plan.held_batches,
    }


def plan_of_order(demand: Demand, order: dict[str, Any], memory_bytes: int) -> MemoryPlan:
    """The plan of a saved state.

    Raises:
        ValueError: This budget does not cover it.
    """
    same = ("segment_samples", "splits_gops", "layout", "held_batches")
    for plan in candidates(demand, memory_bytes, splits=True):
        if all(getattr(plan, name) == order[name] for name in same) and plan.pond_slots >= order["pond_slots"]:
            return replace(plan, horizon_batches=order["horizon_batches"], pond_slots=order["pond_slots"])
    raise ValueError(
        f"this state's order wants {order['pond_slots']} slots ({order}), which memory={memory_bytes >> 20} MiB does "
        "not hold; give at least the memory= that it was saved with, and the same held_batches="
    )
