"""Ends jobs of submitit's: those of Slurm by its commands, those of this machine by signals to their processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Protocol

import psutil

_QUESTION_SECONDS, _QUESTION_SECONDS_AT_THE_END = 60.0, 5.0
"""Between questions to Slurm's accounting, which are load on it; by itself submitit waits up to 600 s."""
_GONE_SECONDS = 120.0
"""For jobs that were cancelled: Slurm sends SIGKILL 30 s after SIGTERM if its `KillWait` is as it comes."""


class Jobs(Protocol):
    """How jobs of one kind are looked at and ended, by one thread.

    Attributes:
        look_seconds: Between looks.
        patience_seconds: Until the result of a job that is over counts as not written: file systems of networks show
            files of other machines later.
    """

    look_seconds: float
    patience_seconds: float

    def handle(self, job: Any) -> str:
        """What ends it from another process."""

    def is_over(self, job: Any) -> bool:
        """Whether it has ended, or its end is not waited for."""

    def end(self, jobs: Sequence[Any]) -> None:
        """Ask jobs to end; is called at each look until they have."""

    def kill(self, jobs: Sequence[Any]) -> None:
        """End jobs at once; is called at each look until they have."""

    def abandon(self, handles: Sequence[str]) -> None:
        """Kill jobs of a process that is gone, and wait until they are.

        Raises:
            TimeoutError: They are still there.
        """


class SlurmJobs:
    """Jobs of Slurm."""

    look_seconds = 1.0
    patience_seconds = 15.0

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._killed: set[str] = set()
        self._looked_at = time.monotonic()

    def handle(self, job: Any) -> str:
        """Its id: of an array's task, `123_4`."""
        return str(job.job_id)

    def is_over(self, job: Any) -> bool:
        """By its result's file, or as Slurm's accounting knows it: of all jobs at once, and seldom."""
        seconds = _QUESTION_SECONDS if not self._asked else _QUESTION_SECONDS_AT_THE_END
        is_due = time.monotonic() - self._looked_at > seconds
        if is_due:
            self._looked_at = time.monotonic()
        # submitit waits for a preempted job to be requeued, which these are not
        return job.job_id in self._killed or job.done(force_check=is_due) or job.state.startswith("PREEMPTED")

    def end(self, jobs: Sequence[Any]) -> None:
        """SIGTERM, and SIGKILL after Slurm's `KillWait`."""
        self._cancel([job.job_id for job in jobs if job.job_id not in self._asked])

    def kill(self, jobs: Sequence[Any]) -> None:
        """SIGKILL to what runs; how long Slurm takes over it is not waited for."""
        ids = [job.job_id for job in jobs if job.job_id not in self._killed]
        if ids:
            _run("scancel", "--signal=KILL", *ids)
            self._cancel(ids)
            self._killed.update(ids)

    def _cancel(self, ids: Sequence[str]) -> None:
        if ids:
            _run("scancel", *ids)
            self._asked.update(ids)

    def abandon(self, handles: Sequence[str]) -> None:
        """By `scancel`, until `squeue` does not know them."""
        ids = handles
        _run("scancel", *ids)
        deadline = time.monotonic() + _GONE_SECONDS
        while ids and _run("squeue", "--noheader", f"--jobs={','.join(ids)}").strip():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"Slurm still has jobs of an earlier run of this sweep {_GONE_SECONDS:.0f} s after they were "
                    f"cancelled: {', '.join(ids)}; look at them with squeue, and resume when they are gone"
                )
            time.sleep(self.look_seconds)


class LocalJobs:
    """Processes of submitit's local executor: a controller, and below it the one that runs the chunk."""

    look_seconds = 0.05
    patience_seconds = 0.0

    def handle(self, job: Any) -> str:
        """Its controller, and when that began: another process may get the number later."""
        return f"{job.job_id} {psutil.Process(int(job.job_id)).create_time()}"

    def is_over(self, job: Any) -> bool:
        """Whether its controller has ended; it is our child, and reaped here."""
        return bool(job.done())

    def end(self, jobs: Sequence[Any]) -> None:
        """SIGTERM, which controllers pass on; `Job.cancel` of submitit would leave a chunk one second.

        A process of submitit's that has only just begun ignores it, so it is sent until the job is over.
        """
        for job in jobs:
            if not job.done():  # not reaped: its number is its own
                os.kill(int(job.job_id), signal.SIGTERM)

    def kill(self, jobs: Sequence[Any]) -> None:
        """Kill controllers and what they run; keepers then kill what is below them."""
        for job in jobs:
            if not job.done():
                _kill(psutil.Process(int(job.job_id)))

    def abandon(self, handles: Sequence[str]) -> None:
        """Where the process is still the same."""
        for handle in handles:
            number, began_at = handle.split()
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(number))
                if process.create_time() == float(began_at):
                    _wait(_kill(process))


def _kill(controller: psutil.Process) -> list[psutil.Process]:
    """Kill a controller and its children; returns whatever was below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        controller.suspend()  # it starts no other meanwhile
        below = controller.children(recursive=True)
        for process in (*controller.children(), controller):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return [*below, controller]
    return []


def _wait(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=_GONE_SECONDS)
    if alive:
        raise TimeoutError(
            f"processes of an earlier run of this sweep are there {_GONE_SECONDS:.0f} s after they were killed: "
            f"{', '.join(str(process.pid) for process in alive)}; resume when they are gone"
        )


def _run(*command: str) -> str:
    """Its output; Slurm's complaints about jobs that are over are none of ours."""
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout
