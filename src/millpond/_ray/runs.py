"""Which samples a read task has: pure arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_SAMPLES = 32_768
"""Of a task: what a node that dies takes with it, and has to be read again, is a minute or two of decoding."""
LEAST_SAMPLES = 512
"""Of a task, where there is a choice: a second or two of decoding, beside some tenths to begin it."""
TASKS_PER_CPU = 4
"""So that a CPU which is done early finds something left to do."""
_SLACK = 1 / 8
"""Of a task's samples: how far a bound may be moved to a cut, and so how much larger than another a task may be."""


class Run(NamedTuple):
    """Samples of a dataset.

    Attributes:
        start: The first.
        stop: One past the last.
    """

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def tasks_for(num_samples: int, num_cpus: float) -> int:
    """How many tasks read a dataset on so many CPUs, where nobody says how many."""
    least = math.ceil(num_samples / MOST_SAMPLES)
    most = num_samples // LEAST_SAMPLES
    return max(1, least, min(math.ceil(TASKS_PER_CPU * num_cpus), most))


def cut_runs(num_samples: int, num_tasks: int, cuts: NDArray[np.int64]) -> list[Run]:
    """Runs of about equal length, together everything; no more than there are samples.

    Args:
        num_samples: Of the dataset.
        num_tasks: Runs that are wanted.
        cuts: int64, ascending, from 0 to `num_samples`: where a run may begin at no cost. One that begins elsewhere
            has the GOP before it decoded once more.
    """
    num_tasks = min(num_tasks, num_samples)
    ideal = np.arange(1, num_tasks, dtype=np.int64) * num_samples // num_tasks
    after = np.searchsorted(cuts, ideal)
    below, above = cuts[after - 1], cuts[after]
    near = np.where(ideal - below < above - ideal, below, above)
    is_near = np.abs(near - ideal) <= num_samples / num_tasks * _SLACK
    bounds = [0, *np.where(is_near, near, ideal).tolist(), num_samples]
    return [Run(start, stop) for start, stop in pairwise(bounds)]
