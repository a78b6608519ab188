"""How many jobs a chunk gets: a fixed number, or as many as the memory budget bears. Pure arithmetic.

A process that leaks needs `base + growth * jobs` bytes at its peak. Both are learned from chunks that ended well: the
growth by least squares over the greatest peak seen for each number of jobs, the base so that no peak lies above the
line. A chunk that passed the budget halves what later ones may get. That may have been a single hungry job: after some
chunks that ended well at this limit it is doubled, as far as the line allows.
"""

from __future__ import annotations

import math

BUDGET_SHARE = 0.9
"""Of the budget, that a chunk is meant to reach at most: peaks are sampled, and jobs differ."""

MOST_GROWTH = 4
"""A chunk gets at most so many times the jobs of the largest that ended well: a leak may begin late."""


_OFFERED = 1000
"""Jobs that a process which gives some back is offered; more only once some process has done that many."""

_CHUNKS_AT_LIMIT = 4
"""End well before the limit is doubled; four times as many each time that this was too early."""


class ChunkSizes:
    """Decides on sizes, and learns from how chunks ended.

    Args:
        chunk_size: Jobs of a chunk; None: learned.
        budget_bytes: Of a chunk's process tree.
    """

    def __init__(self, chunk_size: int | None, budget_bytes: int | None) -> None:
        self._fixed = chunk_size
        self._budget_bytes = budget_bytes or 0
        self._limit: int | None = None
        self._is_raised = False
        self._num_left_at_limit = self._patience = _CHUNKS_AT_LIMIT
        self._peaks: dict[int, int] = {}
        self._learned = 1
        self._cooperates = False
        self._most_done = 0
        self._reports_as_it_goes = False

    def within_limit(self, num_jobs: int) -> int:
        """As many of them as a chunk may get after what passed the budget lately."""
        return num_jobs if self._limit is None else min(num_jobs, self._limit)

    def next_size(self, num_jobs: int, num_free: int) -> int:
        """Of the next chunk.

        Args:
            num_jobs: That wait.
            num_free: Chunks that may be started now; where sizes are learned, no chunk takes more than its share.
        """
        if self._fixed is not None:
            return self.within_limit(min(self._fixed, num_jobs))
        share = -(-num_jobs // num_free)
        most = max(_OFFERED, MOST_GROWTH * self._most_done) if self._cooperates else self._learned
        return self.within_limit(min(share, most))

    def child_cooperates(self) -> None:
        """It ends by itself at the budget, and gives back what it has not begun: sizes need not be learned."""
        self._cooperates = True

    def ended_well(self, num_reported: int, peak_bytes: int) -> None:
        """A chunk's process ended by itself; `peak_bytes` is 0 where nobody looked, and then nothing is learned."""
        self._most_done = max(self._most_done, num_reported)
        if num_reported and peak_bytes:
            self._peaks[num_reported] = max(peak_bytes, self._peaks.get(num_reported, 0))
            self._learned = learned_size(self._peaks, self._budget_bytes)
            if self._limit is not None and num_reported >= self._limit:
                self._ended_well_at(self._limit)

    def _ended_well_at(self, limit: int) -> None:
        self._num_left_at_limit -= 1
        if self._num_left_at_limit == 0:
            self._limit = max(limit, min(2 * limit, self._learned))
            self._num_left_at_limit = self._patience
            self._is_raised = self._limit > limit

    def ended_early(self, num_jobs: int, num_reported: int) -> None:
        """A process died, or was ended: where some of its jobs have reported, each does when it is over."""
        self._reports_as_it_goes |= 0 < num_reported < num_jobs

    def went_over(self, num_jobs: int, num_reported: int) -> bool:
        """A process was ended because it passed the budget.

        The next chunks get at most half of what it got through; half of all its jobs where that is not known. A chunk
        of one job says nothing about others.

        Returns:
            Whether its first job did that by itself. It is to be run alone then, and says nothing about the others.
        """
        self.ended_early(num_jobs, num_reported)
        if num_jobs == 1:
            return False
        if num_reported == 0 and self._reports_as_it_goes:
            return True
        got_through = min(num_reported + 1, num_jobs) if num_reported else num_jobs
        self._limit = self.within_limit(max(1, got_through // 2))
        self._patience *= 4 if self._is_raised else 1
        self._num_left_at_limit, self._is_raised = self._patience, False
        return False


def learned_size(peaks: dict[int, int], budget_bytes: int) -> int:
    """Jobs whose peak stays within `BUDGET_SHARE` of the budget, at least 1.

    Args:
        peaks: Number of jobs -> greatest bytes at the peak of a process that did so many; not empty. While it has a
            single number the growth is not known, and the size at most doubles.
        budget_bytes: Of a process.
    """
    growth = _growth_bytes(peaks)
    base = max(peak - growth * num_jobs for num_jobs, peak in peaks.items())
    room = BUDGET_SHARE * budget_bytes - base
    most = (2 if len(peaks) == 1 else MOST_GROWTH) * max(peaks)
    if room <= 0:
        return 1
    return max(1, math.floor(min(most, room / growth if growth else math.inf)))


def _growth_bytes(peaks: dict[int, int]) -> float:
    """Per job, by least squares; 0 where it falls, or is not known yet."""
    mean_jobs, mean_peak = sum(peaks) / len(peaks), sum(peaks.values()) / len(peaks)
    spread = sum((num_jobs - mean_jobs) ** 2 for num_jobs in peaks)
    slope = sum((num_jobs - mean_jobs) * (peak - mean_peak) for num_jobs, peak in peaks.items())
    return max(0.0, slope / spread) if spread else 0.0
