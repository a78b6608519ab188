"""What happens in a sweep, as somebody who watches it is told: on one thread, one thing after the other."""

from __future__ import annotations

from dataclasses import dataclass

from millpond._sweep.orders import ChunkOutcome, Look


@dataclass(frozen=True, slots=True)
class Counts:
    """Jobs by state.

    Attributes:
        total: All of them.
        done: Ended well.
        failed: Given up.
    """

    total: int
    done: int
    failed: int

    @property
    def left(self) -> int:
        """Neither done nor failed: they run, or are to run."""
        return self.total - self.done - self.failed


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed, or a chunk that ended badly though its jobs were done.

    Attributes:
        job: Its name; "" of a chunk.
        reason: In words.
        chunk: The last chunk that it was in.
        attempt: How often it was tried.
        log: Name of that chunk's log in `logs/`.
    """

    job: str
    reason: str
    chunk: int
    attempt: int
    log: str


class Watcher:
    """Is told what happens, and does nothing; whoever wants to show it overrides what it needs."""

    wants_output = False
    """Whether `chunk_printed` is to be called."""

    def sweep_began(self, counts: Counts, *, folder: str) -> None:
        """Before the first chunk; jobs that are done were done by the sweep that is resumed."""

    def chunk_began(self, number: int, names: tuple[str, ...], attempt: int) -> None:
        """A chunk is on its way to its engine."""

    def chunk_looked(self, number: int, look: Look) -> None:
        """Somebody has looked at a running chunk."""

    def chunk_printed(self, number: int, output: bytes) -> None:
        """A running chunk has printed something: any bytes, not whole lines."""

    def chunk_ended(self, outcome: ChunkOutcome, reason: str, counts: Counts) -> None:
        """It is over, and in the ledger; `reason` in words if it did not end well."""

    def job_failed(self, failure: Failure) -> None:
        """A job is given up, or a chunk ended badly."""

    def interrupted(self, signal_name: str, *, is_last_warning: bool) -> None:
        """A signal ends the sweep: its chunks are asked to end, or, at the second one, killed."""

    def sweep_ended(self, counts: Counts) -> None:
        """After the last chunk, before the merged files are written."""
