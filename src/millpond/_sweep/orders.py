"""What goes to an engine and what comes back: a chunk to run, looks at it while it runs, how it ended.

All of it pickles: an engine may run a chunk on another machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

METRICS_FILE, PROGRESS_FILE = "metrics.json", "progress.jsonl"
"""Names in a chunk's work folder."""


class EndedBy(StrEnum):
    """Who ended a chunk's process."""

    ITSELF = "itself"
    TIMEOUT = "timeout"
    BUDGET = "budget"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ChunkOrder:
    """A chunk to run: everything that whoever runs it must know.

    Attributes:
        number: Of the chunk; no other of the sweep has it, also over resumes.
        names: Of its jobs, in order.
        command: Argument vector with `{jobs}`, `{metrics}` and `{chunk}` not filled in yet.
        files: Contents by file name; written into the chunk's work folder before it starts.
        jobs_file: Which of them `{jobs}` and `$MILLPOND_JOBS` are; an absolute path is a file that is there already.
        environment: Variables on top of those that processes have where the chunk runs.
        directory: Working directory; where there is none of that name, that of who runs the chunk.
        work_folder: Made for the chunk. Whoever gave the order removes it, once what it holds is in the ledger: what a
            child has reported there outlives a sweep that is killed. None: a temporary one, removed at the chunk's end.
        log_path: Standard output and error are appended to it; None: they come back in the outcome.
        timeout_seconds: Of the chunk, or of each job where the child tells of its jobs. None: no limit.
        budget_bytes: Summed PSS of the child's process tree at which a chunk is ended; None: no limit.
        grace_seconds: From the signal that asks processes to end to SIGKILL.
        jobs_key: Top-level key of the list in the jobs file; "" where the file is a list, or lines.
        name_key: Key of a job's name.
    """

    number: int
    names: tuple[str, ...]
    command: tuple[str, ...]
    files: Mapping[str, bytes]
    jobs_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = "."
    work_folder: str | None = None
    log_path: str | None = None
    timeout_seconds: float | None = None
    budget_bytes: int | None = None
    grace_seconds: float = 10.0
    jobs_key: str = ""
    name_key: str = "name"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a running chunk.

    Attributes:
        elapsed_seconds: Since the chunk began.
        pss_bytes: Summed PSS of the child's process tree.
        num_reported: Jobs that the child told are over; 0 where it does not tell.
        current: The job it told it is at; "" where it does not tell.
    """

    elapsed_seconds: float
    pss_bytes: int
    num_reported: int = 0
    current: str = ""


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """How a chunk ended, and what it left.

    Attributes:
        number: Of the chunk.
        exit_code: As `subprocess` has it: negative for a signal. None: it did not start, or is lost.
        ended_by: Who ended it.
        problem: Why it did not start, or was lost; "" otherwise.
        metrics: Contents of its metrics file; empty where it wrote none.
        progress: Contents of its progress file (lines of JSON, see `progress.py`).
        log: Output, where the order named no `log_path`.
        began_at: Seconds since the epoch.
        duration_seconds: From start to end.
        peak_pss_bytes: Greatest summed PSS of the process tree at a look.
        peak_rss_bytes: Greatest RSS of any one process of it, as the kernel kept it.
        oom_kills: By how much the cgroup's count of OOM kills rose meanwhile.
        num_left_behind: Processes that the child left, and that were ended after it.
        looks: Every look, the first 0.05 s after its start; thinned out when there are more than a thousand.
    """

    number: int
    exit_code: int | None
    ended_by: EndedBy = EndedBy.ITSELF
    problem: str = ""
    metrics: bytes = b""
    progress: bytes = b""
    log: bytes = b""
    began_at: float = 0.0
    duration_seconds: float = 0.0
    peak_pss_bytes: int = 0
    peak_rss_bytes: int = 0
    oom_kills: int = 0
    num_left_behind: int = 0
    looks: tuple[Look, ...] = ()
