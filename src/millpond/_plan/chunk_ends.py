"""A chunk of a sweep, how its process ended, and which of its jobs that counts against. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from millpond.errors import InternalError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """Jobs for one process.

    Attributes:
        number: No other chunk of the sweep has it.
        names: Of the jobs, in order.
        attempt: 1 for jobs that have not been charged yet; else that of the job which was charged most.
    """

    number: int
    names: tuple[str, ...]
    attempt: int


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """How a chunk's process ended.

    Attributes:
        done: Jobs that have reported; kept whatever else happened. None of them is in `errors`.
        errors: Jobs with a fault of their own, and what it is.
        is_clean: Whether the process ended by itself, and well.
        reason: How it ended, in words, where it is not clean.
        is_over_budget: It was ended because its process tree passed the budget.
        is_drained: It gave jobs that it had not begun back because of the budget.
        cooperates: Whether it tells of its jobs.
        current: The job it was at when it died; "" where it does not tell. Ignored where that job has reported.
        peak_bytes: Of its process tree; 0 where nobody looked.
    """

    done: frozenset[str]
    errors: Mapping[str, str]
    is_clean: bool
    reason: str = ""
    is_over_budget: bool = False
    is_drained: bool = False
    cooperates: bool = False
    current: str = ""
    peak_bytes: int = 0

    @property
    def num_reported(self) -> int:
        """Jobs whose outcome is known."""
        return len(self.done) + len(self.errors)

    @property
    def has_failed(self) -> bool:
        """Whether the process ended in a way that somebody should know of."""
        return not self.is_clean and not self.is_over_budget

    def require_of(self, chunk: Chunk) -> None:
        """InternalError where it tells of jobs that the chunk has not, or of one twice."""
        strangers = sorted((self.done | self.errors.keys()) - set(chunk.names))
        if strangers:
            message = f"chunk {chunk.number} ended with jobs that it does not have: {strangers}"
            raise InternalError(message, chunk=chunk.number, jobs=strangers)
        twice = sorted(self.done & self.errors.keys())
        if twice:
            message = f"chunk {chunk.number} ended with jobs that are both done and at fault: {twice}"
            raise InternalError(message, chunk=chunk.number, jobs=twice)


@dataclass(frozen=True, slots=True)
class Blame:
    """Whom an end counts against, and why.

    Attributes:
        faults: Jobs with a fault of their own.
        deaths: Jobs that the process may have died of.
        is_final: Whether it would die of them again.
    """

    faults: Mapping[str, str] = field(default_factory=dict)
    deaths: Mapping[str, str] = field(default_factory=dict)
    is_final: bool = False

    def reason(self, name: str) -> str | None:
        """Why the end counts against a job; None where it does not."""
        return self.faults.get(name, self.deaths.get(name))


def blame(chunk: Chunk, end: ChunkEnd, budget_bytes: int | None) -> Blame:
    """Whom `end` counts against.

    - A job with a fault of its own: it raised, reported twice, or reported nothing though its process ended well.
    - Where the process passed the budget: its job, if it had a single one.
    - Where the process died: the job it was at, or, where nobody knows, every job that has not reported. Not those
      that it had given back.
    """
    unreported = [name for name in chunk.names if name not in end.done and name not in end.errors]
    if end.is_over_budget:
        alone = unreported if len(chunk.names) == 1 else []
        return Blame(end.errors, dict.fromkeys(alone, _too_large(end, budget_bytes)), is_final=True)
    if end.has_failed and end.current in unreported:
        return Blame(end.errors, {end.current: _how_it_died(end)})
    if end.is_drained and end.num_reported:
        return Blame(end.errors)
    if end.has_failed:
        return Blame(end.errors, dict.fromkeys(unreported, _how_it_died(end)))
    return Blame({**dict.fromkeys(unreported, _why_unreported(end)), **end.errors})


def _too_large(end: ChunkEnd, budget_bytes: int | None) -> str:
    budget = f"budget of {budget_bytes / MIB:.0f} MiB" if budget_bytes else "budget"
    peak = f": it reached {end.peak_bytes / MIB:.0f} MiB" if end.peak_bytes else ""
    return f"needs more than the {budget} in a process of its own{peak}; raise the budget to run it"


def _how_it_died(end: ChunkEnd) -> str:
    return end.reason or "its process died"


def _why_unreported(end: ChunkEnd) -> str:
    if end.is_drained:
        return "its process was at the memory budget before any job of its chunk was over; raise the budget to run it"
    return "reported nothing, though its process ended well"
