"""A sweep's log: a line for each chunk that ends, a warning for each failure."""

from __future__ import annotations

import logging

from millpond._sweep.orders import ChunkOutcome
from millpond._sweep.watching import Counts, Failure, Watcher

_log = logging.getLogger("millpond.sweep")


class SweepLog(Watcher):
    """Writes to the logger "millpond.sweep"."""

    def sweep_began(self, counts: Counts, *, folder: str) -> None:
        """What is to be done, and where it goes."""
        _log.info("%d jobs (%d done before) into %r", counts.total, counts.done, folder)

    def chunk_ended(self, outcome: ChunkOutcome, reason: str, counts: Counts) -> None:
        """How it ended, and how far the sweep is."""
        how = f"{reason.strip()}; took" if reason.strip() else "done after"
        _log.info(
            "chunk %d: %s %.1f s; %d of %d jobs done",
            outcome.number,
            how,
            outcome.duration_seconds,
            counts.done,
            counts.total,
        )

    def job_failed(self, failure: Failure) -> None:
        """Which, and why."""
        what = f"job {failure.job!r} failed" if failure.job else "ended badly"
        _log.warning("chunk %d: %s: %s (logs/%s)", failure.chunk, what, failure.reason.strip(), failure.log)
