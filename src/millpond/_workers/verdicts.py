"""What is said of workers that ended, and the limits by which one is judged hung. Pure."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from millpond._workers.lifecycle import Attempt, Cause
from millpond.errors import DeadlineExceeded, DecodeTimeout, WorkerDied

NEVER = float("inf")

_LATE_SHARE = 0.1
"""Of a limit. An idle driver wakes up within a millisecond of what it waits for, one on a crowded core within 20."""


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """How long a task may take, in seconds.

    Attributes:
        timeout_seconds: From the moment a worker has the task at its head; inf: for ever.
        stall_timeout_seconds: Without a call of progress(); None for handlers that do not call it.
        begin_timeout_seconds: For handlers that call progress() once, when they have unpacked a task: its time counts
            from there, since unpacking may import half of what is installed, once per worker; and this is the limit of
            that. None: its time counts from the moment that a worker has it at its head.
    """

    timeout_seconds: float = 300.0
    stall_timeout_seconds: float | None = None
    begin_timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be positive, not {self.timeout_seconds}")
        if self.stall_timeout_seconds is not None and not self.stall_timeout_seconds > 0:
            raise ValueError(f"stall_timeout_seconds must be positive or None, not {self.stall_timeout_seconds}")

    def due_at(
        self, since_seconds: float, progress_at_seconds: float, now_seconds: float, *, has_begun: bool = True
    ) -> float:
        """When a task that is at its worker's head since then, and made progress then, may pass a limit."""
        if self.begin_timeout_seconds is not None:
            if not has_begun:  # it may begin at any moment
                return min(since_seconds + self.begin_timeout_seconds, now_seconds + self.timeout_seconds)
            since_seconds = progress_at_seconds
        stall = NEVER if self.stall_timeout_seconds is None else self.stall_timeout_seconds
        return min(since_seconds + self.timeout_seconds, max(since_seconds, progress_at_seconds) + stall)

    def judge(
        self, since_seconds: float, progress_at_seconds: float, now_seconds: float, *, has_begun: bool = True
    ) -> Hang | None:
        """The limit that a task has passed, if it has."""
        elapsed = now_seconds - since_seconds
        if self.begin_timeout_seconds is not None:
            if not has_begun:
                is_over = elapsed >= self.begin_timeout_seconds
                return Hang(Cause.TIMED_OUT, self.begin_timeout_seconds, elapsed) if is_over else None
            elapsed = now_seconds - progress_at_seconds
        if elapsed >= self.timeout_seconds:
            return Hang(Cause.TIMED_OUT, self.timeout_seconds, elapsed)
        still = now_seconds - max(since_seconds, progress_at_seconds)
        if self.stall_timeout_seconds is not None and still >= self.stall_timeout_seconds:
            return Hang(Cause.STALLED, self.stall_timeout_seconds, still)
        return None


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """How long a process may take to come and to go, in seconds.

    Attributes:
        start_seconds: From the request for a worker until its handler is attached.
        dump_seconds: For writing the stack, before SIGKILL (it takes 1 to 3 ms).
        reap_seconds: From SIGKILL until the process must be gone; only state D outlives it.
        grace_seconds: For ending in good order, when it has no task left.
    """

    start_seconds: float = 30.0
    dump_seconds: float = 0.25
    reap_seconds: float = 10.0
    grace_seconds: float = 0.5

    def __post_init__(self) -> None:
        if not self.start_seconds > 0:
            raise ValueError(f"start_seconds must be positive, not {self.start_seconds}")


@dataclass(frozen=True, slots=True)
class Hang:
    """The limit that a worker passed, and by how much."""

    cause: Cause
    limit_seconds: float
    elapsed_seconds: float

    def is_doubtful(self, late_seconds: float) -> bool:
        """Whether the one who judges was itself so late that what held it up may have held up the worker, too.

        A machine that stands still for two seconds (virtual ones do) stands still for both. Then the worker gets as
        much time again, or its whole limit where that is less, to show progress.
        """
        return self.cause is Cause.STALLED and late_seconds > _LATE_SHARE * self.limit_seconds


@dataclass(frozen=True, slots=True)
class End:
    """A worker that is gone, or never was.

    `wait_status` is None where its zygote died before it could tell, or could not fork it (`start_errno` says why).
    `oom_kills` is how often the kernel has killed in this cgroup since the worker was started; None if it is unknown.
    One that `is_lost` was killed, and the kernel does not let it go.
    """

    worker_index: int
    pid: int | None
    wait_status: int | None
    hang: Hang | None
    stack: str
    start_errno: int | None = None
    oom_kills: int | None = None
    is_lost: bool = False

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: negative for a signal; None if unknown."""
        return None if self.wait_status is None else os.waitstatus_to_exitcode(self.wait_status)

    @property
    def signal_name(self) -> str | None:
        """Of the signal that killed it, if one did."""
        code = self.exit_code
        if code is None or code >= 0:
            return None
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    @property
    def is_its_own_doing(self) -> bool:
        """Whether it is likely to end so again: not if somebody else (the kernel for want of memory, too) killed it."""
        return self.exit_code is not None and self.exit_code != -signal.SIGKILL

    def in_words(self) -> str:
        """What became of it: "was killed by SIGSEGV (Segmentation fault)"."""
        return f"{self._how()}, but the kernel does not let it go (state D)" if self.is_lost else self._how()

    def _how(self) -> str:
        if self.hang is not None:
            what = "made no progress for" if self.hang.cause is Cause.STALLED else "did not end a task in"
            return f"{what} {self.hang.elapsed_seconds:.1f} s (limit {self.hang.limit_seconds:.1f} s) and was killed"
        code = self.exit_code
        if self.start_errno is not None:
            return f"could not be forked ({os.strerror(self.start_errno)})"
        if self.is_lost:
            return "was killed"
        if code is None:
            return "ended with the zygote that would have said how"
        if code >= 0:
            return f"exited with code {code}"
        hint = self._memory_hint() if -code == signal.SIGKILL else ""
        return f"was killed by {self.signal_name} ({signal.strsignal(-code)}){hint}"

    def _memory_hint(self) -> str:
        if self.oom_kills is None:
            return ", possibly out of memory"
        if self.oom_kills == 0:
            return ", not for want of memory: the cgroup counts no new oom_kill"
        return f", possibly out of memory: the cgroup counts {self.oom_kills} new oom_kill"


def task_failed(task_id: int, attempts: Sequence[Attempt], end: End) -> WorkerDied | DecodeTimeout:
    """Why a task is given up, told by its last attempt; `end` is of the worker that ran it."""
    tries = f"attempt {len(attempts)}"
    stacks = [attempt.stack for attempt in attempts if attempt.stack]
    facts = {
        "pid": end.pid,
        "worker_index": end.worker_index,
        "exit_code": end.exit_code,
        "signal_name": end.signal_name,
        "task": task_id,
        "attempts": tuple(attempts),
        "progress_count": attempts[-1].progress_count,
        "stack": end.stack or (stacks[-1] if stacks else ""),
    }
    who = f"worker {end.worker_index} (pid {end.pid}{', which the kernel does not let go' if end.is_lost else ''})"
    error: WorkerDied | DecodeTimeout
    if end.hang is None:
        error = WorkerDied(f"{who} {end.in_words()} while it ran task {task_id} ({tries}); it was replaced", **facts)
    else:
        hang = end.hang
        what = "made no progress" if hang.cause is Cause.STALLED else "did not end"
        error = DecodeTimeout(
            f"task {task_id} {what} for {hang.elapsed_seconds:.1f} s (limit {hang.limit_seconds:.1f} s; {tries}); "
            f"killed and replaced {who}",
            limit_seconds=hang.limit_seconds,
            elapsed_seconds=hang.elapsed_seconds,
            **facts,
        )
    if stacks and not end.stack:
        error.add_note(f"stack of an earlier attempt:\n{stacks[-1].rstrip()}")
    _note_stack(error, end)
    return error


def too_many_restarts(restarts: int, max_restarts: int, end: End) -> WorkerDied:
    """The budget is used up."""
    who = f"worker {end.worker_index} (pid {end.pid})"
    message = f"{who} {end.in_words()}, and max_restarts=0 allows for no other"
    if max_restarts:
        message = (
            f"workers had to be replaced {restarts} times more than tasks were completed (limit {max_restarts}); the "
            f"last, {who}, {end.in_words()}"
        )
    error = WorkerDied(message, pid=end.pid, exit_code=end.exit_code, signal_name=end.signal_name, task=None)
    _note_stack(error, end)
    return error


def dies_at_start(times: int, end: End) -> WorkerDied:
    """No worker gets as far as its first task."""
    message = f"{times} workers in a row died before their first task; the last (pid {end.pid}) {end.in_words()}"
    error = WorkerDied(message, pid=end.pid, exit_code=end.exit_code, signal_name=end.signal_name, task=None)
    _note_stack(error, end)
    return error


def start_took_too_long(
    worker_index: int, limits: ProcessLimits, elapsed_seconds: float, doing: str
) -> DeadlineExceeded:
    """A worker is not ready; `doing` is what its starter says of that."""
    return DeadlineExceeded(
        f"worker {worker_index} was not ready {elapsed_seconds:.1f} s after it was asked for "
        f"(limit {limits.start_seconds:.1f} s); {doing}",
        limit_seconds=limits.start_seconds,
        elapsed_seconds=elapsed_seconds,
        doing=doing,
    )


def too_many_lost(num_lost: int, pid: int | None, limits: ProcessLimits) -> WorkerDied:
    """SIGKILL did not end one worker after the other."""
    message = (
        f"{num_lost} workers, the last with pid {pid}, still run {limits.reap_seconds:.0f} s after SIGKILL: the kernel "
        "waits on their behalf, most likely for storage that does not answer"
    )
    return WorkerDied(message, pid=pid, exit_code=None, signal_name=None, task=None)


def _note_stack(error: Exception, end: End) -> None:
    if end.stack:
        error.add_note(f"stack of worker {end.worker_index} (pid {end.pid}):\n{end.stack.rstrip()}")
