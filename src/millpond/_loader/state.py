"""A loader's state as plain JSON: where it stands, and in which order. No rank is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
        "bytes that transform= gives": demand.outlet_sample_bytes,
        "being behind a URL": demand.fetched_bytes is not None,
    }


def _cuts_digest(dataset: Dataset) -> str:
    return hashlib.sha256(np.ascontiguousarray(dataset.cuts()).tobytes()).hexdigest()


def require_same(state: dict[str, Any], identity: dict[str, Any], num_batches: int) -> None:
    """ValueError where a state is of another version, another loader, or no place in its epochs; TypeError if none."""
    if not isinstance(state, dict):
        raise TypeError(f"a state is a dict, as state_dict() gives it, not {state!r}")
    if state.get("version") != STATE_VERSION:
        raise ValueError(f"this state has version {state.get('version')}; this millpond reads {STATE_VERSION}")
    if not all(type(state.get(name)) is int for name in ("epoch", "batch")) or not {"books", "order"} <= state.keys():
        raise ValueError("this state is damaged: it lacks epoch, batch, books or order, or they are no whole numbers")
    differing = _differing(state, identity)
    if differing:
        raise ValueError(f"this state was saved by another loader: {'; '.join(differing)}")
    if not (state["epoch"] >= 0 and 0 <= state["batch"] <= num_batches):
        raise ValueError(f"this state stands at batch {state['batch']} of epoch {state['epoch']}: there is none")


def _differing(state: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """What keeps a state from going on, as it is told."""
    if state.get("canonical_shards") != identity["canonical_shards"]:
        return _pairs(state, identity, ("canonical_shards", "horizon_batches"))
    names = [name for name in identity if name not in ("dataset", "cuts", "fitted_to")]
    told = []
    if state.get("dataset") != identity["dataset"]:
        told.append("its dataset had other episodes, features, delta_timestamps or image_size")
    if None not in (state.get("cuts"), identity["cuts"]) and state["cuts"] != identity["cuts"]:
        told.append("its dataset was encoded with other keyframes")
    told += _pairs(state, identity, names)
    if not told and state.get("fitted_to") != identity["fitted_to"]:
        told = _pairs(state.get("fitted_to") or {}, identity["fitted_to"] or {}, tuple(identity["fitted_to"] or ()))
        told.append("ranks fit their orders to these, but with canonical_shards=")
    return told


def _pairs(state: dict[str, Any], identity: dict[str, Any], names: Sequence[str]) -> list[str]:
    pairs = [(name, state.get(name), identity[name]) for name in names]
    return [f"{name} was {was!r} and is {now!r}" for name, was, now in pairs if was != now]


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
