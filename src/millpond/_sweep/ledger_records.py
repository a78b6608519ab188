"""What a ledger says of a job and of a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from millpond._plan.chunks import JobState
from millpond._sweep.orders import Look


class ChunkState(StrEnum):
    """What became of a chunk."""

    RUNNING = "running"
    ENDED = "ended"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job, as the ledger has it.

    Attributes:
        name: Of the job.
        position: In the jobs file, from 0.
        state: What it is.
        attempt: How often it was tried, as far as that counts.
        chunk: It runs in, or in which it was done or failed; None while it is pending.
        exit_code: Of that chunk's process.
        peak_rss_bytes: Of that chunk's largest process.
        duration_seconds: Of the job where that is known, else of the chunk.
        checksum: Of its metrics; "" unless it is done.
        error: Why it has failed, or why it is to run again.
    """

    name: str
    position: int
    state: JobState
    attempt: int
    chunk: int | None
    exit_code: int | None
    peak_rss_bytes: int | None
    duration_seconds: float | None
    checksum: str
    error: str


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A chunk, as the ledger has it; what is known only of one that has ended is as `ChunkOutcome` says, or 0.

    Attributes:
        number: No other chunk of the sweep has it, also over resumes.
        names: Of its jobs.
        attempt: Of its jobs, the one before it counted.
        state: Running, ended, or interrupted: the sweep was killed while it ran.
        log: Name of its log.
        handle: What a later sweep needs to end it; "" where it cannot outlive its sweep.
        began_at: Seconds since the epoch.
        duration_seconds: None until it has ended.
        exit_code: None until it has ended, and where it did not start or was lost.
        ended_by: As `EndedBy`; "" until it has ended.
        reason: Why it is not clean; "" where it is.
        looks: At its memory.
    """

    number: int
    names: tuple[str, ...]
    attempt: int
    state: ChunkState
    log: str
    handle: str
    began_at: float
    duration_seconds: float | None
    exit_code: int | None
    ended_by: str
    reason: str
    peak_pss_bytes: int
    peak_rss_bytes: int
    oom_kills: int
    num_left_behind: int
    looks: tuple[Look, ...]
