"""What a supervisor hands out: answers, and what it knows of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from millpond._workers.lifecycle import Attempt


@dataclass(frozen=True, slots=True)
class Completed:
    """A task's result, and the attempts at it that ended their workers before."""

    task_id: int
    result: Any
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A task's exception: the handler's own, or WorkerDied or DecodeTimeout when it was given up; and such attempts."""

    task_id: int
    error: Exception
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """One worker at one moment; `pid` is None until the zygote told it."""

    index: int
    pid: int | None
    state: str
    tasks_in_flight: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """A supervisor at one moment. tasks_submitted = completed + failed + waiting + in flight.

    `zygote_pid` is None where a start method of multiprocessing is used.
    `restarts` counts workers that were replaced because they ended, `recycles` those that a successor took over from.
    """

    tasks_submitted: int
    tasks_completed: int
    tasks_failed: int
    tasks_waiting: int
    tasks_in_flight: int
    restarts: int
    recycles: int
    zygote_pid: int | None
    workers: tuple[WorkerStatistics, ...]
