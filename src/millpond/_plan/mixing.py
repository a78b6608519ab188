"""How well an order mixes: distinct groups (episodes) per batch over what a full shuffle would give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millpond._plan.epoch import EpochPlan


def expected_distinct(groups: NDArray[np.int64], batch_size: int) -> float:
    """Mean number of distinct groups among `batch_size` samples drawn without replacement.

    A group of n among N is missed with the hypergeometric probability C(N - n, B) / C(N, B).
    """
    total = len(groups)
    size = min(batch_size, total)
    counts, how_many = np.unique(np.unique(groups, return_counts=True)[1], return_counts=True)
    missed = np.ones(len(counts))
    for drawn in range(size):
        missed *= np.maximum(total - counts - drawn, 0) / (total - drawn)
    return float((how_many * (1.0 - missed)).sum())


def mean_distinct(groups: NDArray[np.int64], batch_size: int) -> float:
    """Mean number of distinct groups over the full batches of an order; `groups` in order of delivery."""
    full = len(groups) // batch_size * batch_size
    if full == 0:
        return float(len(np.unique(groups)))
    batches = np.sort(groups[:full].reshape(-1, batch_size), axis=1)
    return float((1 + (batches[:, 1:] != batches[:, :-1]).sum(axis=1)).mean())


def mixing_of(plan: EpochPlan, groups: NDArray[np.int64], batch_size: int) -> float:
    """Distinct groups per batch of `plan`, over a full shuffle's; `groups` int64, that of each sample there is."""
    delivered = groups[plan.delivery_order()]
    return mean_distinct(delivered, batch_size) / expected_distinct(delivered, batch_size)
