"""In a worker: its random numbers, and what `get_worker_info()` says; as torch has them (_utils/worker.py)."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils import worker as torch_worker


def seed_worker(base_seed: int, worker_id: int, history: tuple[int, ...]) -> int:
    """Seed random, torch and numpy; the worker's seed.

    Args:
        base_seed: Of the epoch, or of persistent workers.
        worker_id: Its seat.
        history: What makes this worker another than the first in its seat: workers before it, batches before it. All
            zeros: torch's own seeds. Else new ones, or augmentations would repeat.
    """
    seed = base_seed + worker_id
    numpy_seed: Any = torch_worker._generate_state(base_seed, worker_id)
    if any(history):
        mixed = np.random.SeedSequence([base_seed, worker_id, *history]).generate_state(6)
        seed = int(mixed[:2].view(np.uint64)[0] >> np.uint64(1))
        numpy_seed = [int(word) for word in mixed[2:]]
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(numpy_seed)
    return seed


def tell_worker_info(worker_id: int, num_workers: int, seed: int, dataset: Any) -> None:
    """Have `torch.utils.data.get_worker_info()` know this worker."""
    torch_worker._worker_info = torch_worker.WorkerInfo(
        id=worker_id, num_workers=num_workers, seed=seed, dataset=dataset
    )
