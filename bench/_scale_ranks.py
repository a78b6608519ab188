"""What all ranks of a modelled dataset give together, and what one of them would ask of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from _scale_model import ModelledDataset, Shape
from _scale_rank import plan_of
from millpond._loader.loader import Loader
from millpond._loader.prefetch import MAX_REQUEST_BYTES
from millpond._loader.ranks import ration_of
from millpond._plan.requests import plan_requests
from millpond._plan.shards import Sharding
from millpond._values import ByteRange


def balance_of(shape: Shape, ranks: int, batch_size: int) -> dict[str, Any]:
    """Of each rank: samples, batches, and files that it looks at; and whether they give the whole together, once."""
    whole = ModelledDataset(shape)
    found: dict[str, list[float]] = {"samples": [], "batches": [], "files": []}
    lost_or_twice, here = 0, 0
    for rank in range(ranks):
        ration = ration_of(whole, Sharding(rank, ranks, ranks, batch_size, drops=False))
        start, stop = _span(ration)
        opened, _ = whole.opened_for(start, stop)
        lost_or_twice += abs(start - here)
        here = stop
        found["samples"].append(stop - start)
        found["batches"].append(ration.num_batches)
        found["files"].append(opened.num_files)
    lost_or_twice += abs(len(whole) - here)
    rows = batch_size * sum(found["batches"])
    return {**found, "lost_or_twice": lost_or_twice, "padding_share": 1 - len(whole) / rows}


def _span(ration: Any) -> tuple[int, int]:
    """A rank's samples, by their numbers in the whole."""
    share = ration.dataset
    first, last = (share.describe(sample)["sample"] for sample in (0, len(share) - 1))
    return first, last + 1


def requests_of(shape: Shape, options: dict[str, Any], num_tasks: int) -> dict[str, float]:
    """Requests and bytes of a rank's first tasks, planned as they are when they are fetched ahead."""
    loader = Loader(ModelledDataset(shape), **options)
    order, dataset, size = plan_of(loader), loader._ration.dataset, loader.memory_plan().parts_per_task
    source = dataset.byte_source
    bundles = [dataset.parts[at : at + size] for at in range(0, len(dataset.parts), size)]
    segments = min(order.num_segments, max(1, num_tasks // len(bundles)))
    requests: list[ByteRange] = []
    for segment in range(segments):
        samples = order.samples[order.segment_bounds[segment] : order.segment_bounds[segment + 1]]
        for bundle in bundles:
            for wanted in source.wanted(bundle, samples):
                requests += plan_requests([ByteRange(wanted.start, wanted.stop)], 0, MAX_REQUEST_BYTES).requests
    samples, fetched = int(order.segment_bounds[segments]), sum(map(len, requests))
    loader.close()
    return {
        "requests_per_sample": len(requests) / samples,
        "bytes_per_sample": fetched / samples,
        "mean_request_kib": fetched / len(requests) / 1024,
        "fetched_over_needed": fetched / (samples * shape.cameras * shape.frame_bytes),
    }


def steps_differ(shape: Shape, worlds: Sequence[int], global_batch: int) -> dict[str, Any]:
    """How many global steps have other rows, or another order of them, than on the first number of ranks."""
    whole = ModelledDataset(shape)
    first = global_steps(whole, worlds[0], global_batch, shards=max(worlds))
    differ = 0
    for world_size in worlds[1:]:
        other = global_steps(whole, world_size, global_batch, shards=max(worlds))
        same = [np.array_equal(mine, theirs) for mine, theirs in zip(first, other, strict=False)]
        differ += len(same) - sum(same) + abs(len(first) - len(other))
    given = np.sort(np.concatenate(first))
    differ += not np.array_equal(given, np.arange(len(whole)))
    return {"steps": len(first), "samples": len(given), "differ": differ, "worlds": list(worlds)}


def global_steps(whole: ModelledDataset, world_size: int, global_batch: int, *, shards: int) -> list[NDArray[np.int64]]:
    """The samples of each global batch, in the order of ranks and rows."""
    of_ranks = [_batches(whole, rank, world_size, global_batch // world_size, shards) for rank in range(world_size)]
    return [np.concatenate(batches) for batches in zip(*of_ranks, strict=True)]


def _batches(
    whole: ModelledDataset, rank: int, world_size: int, batch_size: int, shards: int
) -> list[NDArray[np.int64]]:
    options: dict[str, Any] = {"rank": rank, "world_size": world_size, "canonical_shards": shards}
    loader = Loader(
        whole, batch_size=batch_size, shuffle=True, num_workers=0, memory="64GiB", output="numpy", **options
    )
    order, first = plan_of(loader), _span(loader._ration)[0]
    loader.close()
    edges = np.cumsum(order.batch_sizes)[:-1]
    return np.split(order.delivery_order() + first, edges)
