"""Where chunks run: on this machine, as tasks of Ray, as an array of Slurm. This is the seam between them and a sweep.

An engine carries out orders and knows nothing of jobs: what to run next, and what an end means, is the plan's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from millpond._sweep.orders import ChunkOrder, ChunkOutcome


class Engine(Protocol):
    """Runs chunks, each in a fresh process; used by one thread, whoever calls `cancel` and `kill` apart."""

    @property
    def capacity(self) -> int:
        """Chunks that run at a time; more that are submitted wait."""

    def submit(self, orders: Sequence[ChunkOrder]) -> list[Future[ChunkOutcome]]:
        """Have chunks run; one future each, in order.

        A future never raises for what a chunk does: that is in its outcome. What is submitted after `cancel` comes back
        cancelled, without having run.

        Raises:
            ClosedError: `close` has been called.
        """

    def cancel(self, number: int) -> None:
        """Send a signal to all processes of all chunks; who outlives the order's `grace_seconds` is killed.

        Returns at once, and may be called in any thread; futures come with `EndedBy.CANCELLED`, those that wait, too.
        """

    def kill(self) -> None:
        """As `cancel`, without grace. Returns at once."""

    def handles(self) -> Mapping[int, str]:
        """By chunk number: what a later sweep needs to end chunks that outlive this process; only those that may."""

    def abandon(self, handles: Sequence[str]) -> None:
        """End chunks of a sweep that was killed, as its `handles` named them, and wait until they are gone."""

    def close(self) -> None:
        """Kill what runs, and let go of everything; idempotent."""
