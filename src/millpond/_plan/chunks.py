"""The sweep plan: which jobs run next, what a chunk's end makes of each of them, what runs again. Pure.

Theory of operation. Jobs wait in one of two places. *New* ones wait in the order of the sweep, and a chunk takes as
many from the front as its size allows. *Pieces* are jobs of a chunk that failed: they stay together, come before new
jobs, and run also when the sweep is stopping. A job goes

::

    pending -> running -> done | failed
               running -> pending               (it runs again)

A chunk's end charges an attempt to every job that it counts against (`chunk_ends.blame` says which); all others that
have not reported wait as if they had never begun. A job that is charged runs again while it has tries left. Where it
has none it has failed; with `bisect` one that its process may have died of is first split off, by halves, until that
process has no other job. So each end settles a job, charges one, splits a chunk, or lowers the size of chunks: a plan
comes to its end whatever processes do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from millpond._plan.chunk_ends import Blame, Chunk, ChunkEnd, blame
from millpond._plan.chunk_queue import JobQueue
from millpond._plan.chunk_sizes import ChunkSizes
from millpond.errors import InternalError

__all__ = ["Chunk", "ChunkEnd", "JobState", "JobVerdict", "SweepPlan"]


class JobState(StrEnum):
    """What a job is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


TRANSITIONS = frozenset(
    {
        (JobState.PENDING, JobState.RUNNING),
        (JobState.RUNNING, JobState.PENDING),
        (JobState.RUNNING, JobState.DONE),
        (JobState.RUNNING, JobState.FAILED),
    }
)


class _Fate(Enum):
    """What an end makes of a job."""

    DONE = auto()
    FAILED = auto()
    REPEATED = auto()  # charged, and has tries left
    SPLIT_OFF = auto()  # charged, has none left, and may be innocent
    SPARED = auto()  # waits as if it had never begun


_STATES = {
    _Fate.DONE: JobState.DONE,
    _Fate.FAILED: JobState.FAILED,
    _Fate.REPEATED: JobState.PENDING,
    _Fate.SPLIT_OFF: JobState.PENDING,
    _Fate.SPARED: JobState.PENDING,
}


@dataclass(frozen=True, slots=True)
class JobVerdict:
    """What a chunk's end made of a job.

    Attributes:
        name: Of the job.
        state: Pending: it runs again.
        attempt: Attempts so far, this one included where it counts.
        reason: Why it failed, or why it runs again where that was an attempt; "" otherwise.
    """

    name: str
    state: JobState
    attempt: int
    reason: str = ""


class SweepPlan:
    """The state of one sweep between its jobs and whoever runs chunks.

    Args:
        names: Of the jobs that are to run, in order.
        chunk_size: Jobs of a chunk; None: learned from peaks of memory, which needs `budget_bytes`.
        budget_bytes: Memory of a chunk's process tree; None: no limit.
        capacity: Chunks that run at a time.
        retries: How often a job that was charged an attempt runs again.
        bisect: Whether a chunk that died, and has used its tries, is split until the job that it dies of is found.
        stop_on_error: Whether new jobs are left pending once one has failed.
        first_number: Of the first chunk.

    Raises:
        ValueError: A number that makes no sense, a name twice, or neither `chunk_size` nor `budget_bytes`.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        chunk_size: int | None,
        budget_bytes: int | None,
        capacity: int,
        retries: int = 0,
        bisect: bool = False,
        stop_on_error: bool = True,
        first_number: int = 1,
    ) -> None:
        _check_numbers(chunk_size=chunk_size, budget_bytes=budget_bytes, capacity=capacity)
        if retries < 0:
            raise ValueError(f"retries must be 0 or more, not {retries}")
        if chunk_size is None and budget_bytes is None:
            raise ValueError("a size that is learned needs a memory budget: give budget_bytes, or a chunk_size")
        if len(set(names)) < len(names):
            raise ValueError(f"{len(names) - len(set(names))} of {len(names)} jobs have the name of another")
        self._budget_bytes = budget_bytes
        self._capacity = capacity
        self._retries = retries
        self._bisect = bisect
        self._stop_on_error = stop_on_error
        self._next_number = first_number
        self._attempts = dict.fromkeys(names, 0)
        self._states = dict.fromkeys(names, JobState.PENDING)
        self._queue = JobQueue(names)
        self._running: dict[int, Chunk] = {}
        self._pieces_running: set[int] = set()
        self._sizes = ChunkSizes(chunk_size, budget_bytes)
        self._is_stopping = False

    @property
    def is_stopping(self) -> bool:
        """Whether no new job is started any more; pieces are."""
        return self._is_stopping

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing may start; jobs that are pending now stay so."""
        return not self._running and not self._may_start

    @property
    def _may_start(self) -> bool:
        return bool(self._queue.piece_size or (self._queue.num_new and not self._is_stopping))

    @property
    def running(self) -> tuple[Chunk, ...]:
        """Chunks that have begun and not ended, by number."""
        return tuple(self._running.values())

    @property
    def num_pending(self) -> int:
        """Jobs that wait."""
        return self._queue.num_new + self._queue.num_in_pieces

    def next_chunk(self) -> Chunk | None:
        """The chunk to start now; None when none can be: as many as may run do, or nothing is left to start."""
        num_free = self._capacity - len(self._running)
        if num_free <= 0 or not self._may_start:
            return None
        is_piece = self._queue.piece_size > 0
        names = self._take_piece() if is_piece else self._take_new(num_free)
        for name in names:
            self._move(name, JobState.RUNNING)
        chunk = Chunk(self._next_number, names, 1 + max(self._attempts[name] for name in names))
        self._next_number += 1
        self._running[chunk.number] = chunk
        if is_piece:
            self._pieces_running.add(chunk.number)
        return chunk

    def _take_piece(self) -> tuple[str, ...]:
        return self._queue.take_piece(self._sizes.within_limit(self._queue.piece_size))

    def _take_new(self, num_free: int) -> tuple[str, ...]:
        return self._queue.take_new(self._sizes.next_size(self._queue.num_new, num_free))

    def ended(self, chunk: Chunk, end: ChunkEnd) -> tuple[JobVerdict, ...]:
        """A chunk has ended by itself, or was ended because it passed a limit.

        Returns:
            A verdict for each of its jobs, in order.

        Raises:
            InternalError: The chunk does not run, or `end` tells of jobs that it has not, or of one twice.
        """
        self._require_running(chunk)
        end.require_of(chunk)
        blamed = blame(chunk, end, self._budget_bytes)
        fates = {name: self._fate(chunk, end.done, blamed, name) for name in chunk.names}
        verdicts = tuple(self._verdict(name, fate, blamed) for name, fate in fates.items())
        is_first_alone = self._learn(chunk, end)
        self._run_again(chunk, fates, blamed, is_first_alone=is_first_alone)
        self._forget(chunk)
        if self._stop_on_error and (_Fate.FAILED in fates.values() or _has_failed_after_its_jobs(end, blamed)):
            self._is_stopping = True
        return verdicts

    def cancelled(self, chunk: Chunk, done: frozenset[str]) -> tuple[JobVerdict, ...]:
        """A chunk was interrupted from outside: jobs that are not done are pending, as if it had never begun.

        Raises:
            InternalError: The chunk does not run, or some that are done are not its own.
        """
        self._require_running(chunk)
        ChunkEnd(done, {}, is_clean=False).require_of(chunk)
        fates = {name: self._fate(chunk, done, Blame(), name) for name in chunk.names}
        verdicts = tuple(self._verdict(name, fate, Blame()) for name, fate in fates.items())
        self._run_again(chunk, fates, Blame(), is_first_alone=False)
        self._forget(chunk)
        return verdicts

    def _require_running(self, chunk: Chunk) -> None:
        if self._running.get(chunk.number) != chunk:
            message = f"chunk {chunk.number} does not run: it has ended already, or never began"
            raise InternalError(message, chunk=chunk.number)

    def _forget(self, chunk: Chunk) -> None:
        del self._running[chunk.number]
        self._pieces_running.discard(chunk.number)

    def _fate(self, chunk: Chunk, done: frozenset[str], blamed: Blame, name: str) -> _Fate:
        if name in done:
            return _Fate.DONE
        if blamed.reason(name) is None:
            return _Fate.SPARED
        is_death = name in blamed.deaths
        if is_death and blamed.is_final:
            return _Fate.FAILED
        if self._attempts[name] < self._retries:
            return _Fate.REPEATED
        return _Fate.SPLIT_OFF if self._bisect and is_death and len(chunk.names) > 1 else _Fate.FAILED

    def _verdict(self, name: str, fate: _Fate, blamed: Blame) -> JobVerdict:
        self._attempts[name] += fate is not _Fate.SPARED
        self._move(name, _STATES[fate])
        return JobVerdict(name, _STATES[fate], self._attempts[name], blamed.reason(name) or "")

    def _move(self, name: str, state: JobState) -> None:
        if (self._states[name], state) not in TRANSITIONS:
            message = f"job {name!r} is {self._states[name]} and cannot become {state}"
            raise InternalError(message, job=name, state=str(state))
        self._states[name] = state

    def _learn(self, chunk: Chunk, end: ChunkEnd) -> bool:
        """Whether its first job passed the budget by itself, and waits with others."""
        if end.cooperates:
            self._sizes.child_cooperates()
        if end.is_over_budget:
            return self._sizes.went_over(len(chunk.names), end.num_reported)
        if end.is_clean:
            self._sizes.ended_well(end.num_reported, end.peak_bytes)
        else:
            self._sizes.ended_early(len(chunk.names), end.num_reported)
        return False

    def _run_again(self, chunk: Chunk, fates: Mapping[str, _Fate], blamed: Blame, *, is_first_alone: bool) -> None:
        """Let those wait that are pending after an end."""
        repeated = [name for name, fate in fates.items() if fate is _Fate.REPEATED]
        self._queue.add_piece(name for name in repeated if name in blamed.faults)
        self._queue.add_piece(name for name in repeated if name in blamed.deaths)
        self._add_halves([name for name, fate in fates.items() if fate is _Fate.SPLIT_OFF])
        spared = [name for name, fate in fates.items() if fate is _Fate.SPARED]
        if self._bisect and blamed.deaths:
            self._queue.add_piece(spared)
        else:
            self._put_back(chunk, spared, is_first_alone=is_first_alone)

    def _put_back(self, chunk: Chunk, names: Sequence[str], *, is_first_alone: bool) -> None:
        """As if they had never begun."""
        if chunk.number not in self._pieces_running:
            self._queue.add_new(names, is_first_alone=is_first_alone)
            return
        num_alone = 1 if is_first_alone else 0
        self._queue.add_piece(names[:num_alone])
        self._queue.add_piece(names[num_alone:])

    def _add_halves(self, names: Sequence[str]) -> None:
        half = len(names) // 2
        self._queue.add_piece(names[:half])
        self._queue.add_piece(names[half:])


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be 1 or more, not {number}")


def _has_failed_after_its_jobs(end: ChunkEnd, blamed: Blame) -> bool:
    """Whether something is wrong with a process that no job can be blamed for: all of them were over, or given back."""
    return end.has_failed and not blamed.faults and not blamed.deaths
