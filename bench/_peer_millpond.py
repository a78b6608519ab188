"""The contender millpond: constructs a loader, runs whole epochs. Started by `_process.Contender`."""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import time
from typing import Any

import numpy as np

import millpond

if importlib.util.find_spec("torch"):
    import torch  # noqa: F401  a training process has it before it makes a loader: it is no cost of the loader's


def make_loader(*, root: str, delta_timestamps: Any, image_size: Any, loader: dict[str, Any]) -> millpond.Loader:
    size = tuple(image_size) if image_size else None
    dataset = millpond.LeRobotDataset(root, delta_timestamps=delta_timestamps, image_size=size)
    return millpond.Loader(dataset, **loader)


def describe(loader: millpond.Loader) -> dict[str, Any]:
    return {"memory_plan": str(loader.memory_plan()), "num_samples": len(loader.dataset)}


def run_epoch(loader: millpond.Loader) -> dict[str, Any]:
    """Time from asking for an epoch to its last batch; the CPU is that of all threads of this process, no workers."""
    before = loader.statistics()
    samples, first_batch_seconds = 0, 0.0
    cpu_began, began = time.process_time(), time.monotonic()
    for batch in loader:
        samples += len(batch["episode_index"])
        first_batch_seconds = first_batch_seconds or time.monotonic() - began
    wall, cpu = time.monotonic() - began, time.process_time() - cpu_began
    after = loader.statistics()
    counters = {name: value - before.counters.get(name, 0) for name, value in after.counters.items()}
    return {
        "samples": samples,
        "wall_seconds": wall,
        "training_cpu_seconds": cpu,
        "first_batch_seconds": first_batch_seconds,
        "counters": counters,
        "books": str(after.books),
    }


def run_mixing_epoch(loader: millpond.Loader) -> dict[str, Any]:
    """Mean distinct episodes of full batches, over that of 50 full shuffles of the same samples."""
    batches = [np.asarray(batch["episode_index"]).ravel().copy() for batch in loader]
    episodes = np.concatenate(batches)
    shuffled = [mean_distinct(np.random.default_rng(seed).permutation(episodes), loader) for seed in range(50)]
    distinct = mean_distinct(episodes, loader)
    return {"distinct": distinct, "full_shuffle": statistics.mean(shuffled)} | {
        "mixing": distinct / statistics.mean(shuffled)
    }


def mean_distinct(episodes: np.ndarray[Any, Any], loader: millpond.Loader) -> float:
    size = loader.batch_size
    full = [episodes[at : at + size] for at in range(0, len(episodes) - size + 1, size)]
    return statistics.mean(len(np.unique(batch)) for batch in full)


def main() -> None:
    print(json.dumps({"millpond": millpond.__file__}), flush=True)
    loader: millpond.Loader | None = None
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        if do == "construct":
            loader = make_loader(**request)
            answer = describe(loader)
        else:
            assert loader is not None
            answer = run_epoch(loader) if do == "epoch" else run_mixing_epoch(loader)
        print(json.dumps(answer), flush=True)
    if loader is not None:
        loader.close()


if __name__ == "__main__":
    main()
