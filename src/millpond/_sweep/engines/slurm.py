"""Chunks as jobs of Slurm, by submitit: those that are submitted together are an array.

The sweep's folder has to be on a file system that the nodes share: chunks write their logs there, and submitit's files
go beside them. Every node needs the Python, with millpond and submitit, that the sweep runs with.

Slurm ends a job with signals: SIGUSR2 some time before its time limit and, where a cluster is set up so, before it is
preempted; SIGTERM when it is preempted or `scancel` is called. submitit would put such a job back into the queue, to
begin again; here it asks its processes to end, as Ctrl-C does, and comes back as lost, with what its jobs reported.
What becomes of the others is up to the sweep (`--retries`, `--resume`): Slurm is told not to requeue (`--no-requeue`).
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from millpond._sweep.engines.far import cancelled, lost, run_until_signal
from millpond._sweep.engines.slurm_jobs import Jobs, LocalJobs, SlurmJobs
from millpond._sweep.engines.slurm_parameters import parameters_of_submitit
from millpond._sweep.orders import ChunkOrder, ChunkOutcome, EndedBy
from millpond.errors import ClosedError, UsageError

_KINDS: dict[str, type[Jobs]] = {"slurm": SlurmJobs, "local": LocalJobs}
_MOST_AT_A_TIME = 256  # submitit's own limit of an array's jobs that run at a time
_TOLD_LINES = 5
_RUNNING, _ENDING, _KILLED = range(3)


class SlurmEngine:
    """Runs chunks as Slurm's jobs.

    Args:
        folder: For submitit's files, shared by the nodes; made if need be. Its files are removed at the end, unless a
            chunk was lost.
        parallel: Chunks at a time; None: 256, or this machine's CPUs where it is the cluster.
        parameters: For submitit, by its names or those of `sbatch`: `timeout_min`, `mem_gb`, `cpus_per_task`,
            `gpus_per_node`, `partition`, `account`, ...; numbers may be texts.
        cluster: "slurm"; "local": processes of this machine, by submitit's local executor, which shows them no GPU
            unless `gpus_per_node` says how many.

    Raises:
        ImportError: submitit is not installed.
        UsageError: This machine is no part of a Slurm cluster.
        ValueError: Something about a parameter.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        parallel: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        cluster: str = "slurm",
    ) -> None:
        check_parameters(parameters or {}, cluster)
        self._jobs = _KINDS[cluster]()
        is_slurm = cluster == "slurm"
        self._capacity = parallel or (_MOST_AT_A_TIME if is_slurm else os.cpu_count() or 1)
        chosen = parameters_of_submitit(parameters or {}, parallel=self._capacity, needs_time=is_slurm)
        self._parent = Path(folder)
        self._folder, self._executor = _new_executor(self._parent, cluster, chosen)
        self._running: dict[int, _Running] = {}
        self._changed = threading.Condition()  # held to read or write what follows
        self._level = _RUNNING
        self._is_closed = False
        self._watcher: threading.Thread | None = None
        self._has_lost = False

    @property
    def capacity(self) -> int:
        """Chunks that run at a time; the cluster may have fewer run."""
        return self._capacity

    def submit(self, orders: Sequence[ChunkOrder]) -> list[Future[ChunkOutcome]]:
        """Submit chunks as one array; see `Engine`."""
        with self._changed:
            if self._is_closed:
                raise ClosedError("this sweep's engine has been closed")
            chunks = [_Running(order, time.time()) for order in orders]
            if self._level == _RUNNING:
                self._submit(chunks)
            else:
                for chunk in chunks:
                    chunk.future.set_result(cancelled(chunk.order))
            return [chunk.future for chunk in chunks]

    def cancel(self, number: int) -> None:
        """Have all jobs ended; see `Engine`. Their processes are sent SIGTERM, whatever `number` is."""
        self._raise_level(_ENDING)

    def kill(self) -> None:
        """Have all jobs killed; see `Engine`."""
        self._raise_level(_KILLED)

    def handles(self) -> Mapping[int, str]:
        """Job ids by chunk."""
        with self._changed:
            return {number: chunk.handle for number, chunk in self._running.items()}

    def abandon(self, handles: Sequence[str]) -> None:
        """Cancel jobs of a sweep that was killed, and wait until they are gone; see `Engine`.

        Raises:
            TimeoutError: They are there after two minutes.
        """
        if handles:
            self._jobs.abandon(handles)

    def close(self) -> None:
        """Kill what runs, and remove submitit's files; idempotent."""
        self._raise_level(_KILLED)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        if not self._has_lost:
            shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # where chunks were lost there are files in it
            self._parent.rmdir()

    def _submit(self, chunks: Sequence[_Running]) -> None:
        with _sigint_blocked():
            jobs = self._executor.map_array(run_in_job, [chunk.order for chunk in chunks])
        for chunk, job in zip(chunks, jobs, strict=True):
            chunk.job, chunk.handle = job, self._jobs.handle(job)
            self._running[chunk.order.number] = chunk
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="millpond-slurm", daemon=True)
            self._watcher.start()

    def _raise_level(self, level: int) -> None:
        with self._changed:
            self._level = max(level, self._level)
            self._changed.notify_all()

    def _watch(self) -> None:
        """On a thread of its own, until the engine is closed and nothing runs."""
        while True:
            with self._changed:
                if self._is_closed and not self._running:
                    return
                self._changed.wait(self._jobs.look_seconds)
                level, chunks = self._level, list(self._running.values())
            try:
                self._end(level, [chunk.job for chunk in chunks])
                for chunk in chunks:
                    self._look_at(chunk)
            except Exception as error:  # noqa: BLE001 - whoever waits for these chunks must learn of it
                for chunk in chunks:
                    if self._forget(chunk):
                        chunk.future.set_exception(error)

    def _end(self, level: int, jobs: Sequence[Any]) -> None:
        if level == _ENDING:
            self._jobs.end(jobs)
        elif level == _KILLED:
            self._jobs.kill(jobs)

    def _look_at(self, chunk: _Running) -> None:
        if not self._jobs.is_over(chunk.job):
            return
        now = time.monotonic()
        chunk.over_at = min(chunk.over_at, now)
        if chunk.job.paths.result_pickle.exists():
            self._came_back(chunk, self._with_result(chunk))
        elif self._level == _KILLED or now - chunk.over_at >= self._jobs.patience_seconds:
            self._came_back(chunk, self._without_result(chunk))

    def _with_result(self, chunk: _Running) -> ChunkOutcome:
        outcome: ChunkOutcome
        try:
            outcome, signal_name = chunk.job.result()
        except Exception as error:  # noqa: BLE001 - whatever a node put into the file
            return self._lost(chunk, f"raised in place of running it: {_last_line(str(error))}")
        if outcome.ended_by is EndedBy.CANCELLED and self._level == _RUNNING:
            problem = f"its Slurm job was told to end ({signal_name}): at its time limit, preempted, or by scancel"
            return replace(outcome, exit_code=None, ended_by=EndedBy.LOST, problem=problem)
        return outcome

    def _without_result(self, chunk: _Running) -> ChunkOutcome:
        if self._level != _RUNNING:
            return cancelled(chunk.order, began_at=chunk.at)
        return self._lost(chunk, f"ended without a result, its state is {chunk.job.state}")

    def _lost(self, chunk: _Running, what: str) -> ChunkOutcome:
        self._has_lost = True
        said = "; ".join((chunk.job.stderr() or "").strip().splitlines()[-_TOLD_LINES:])
        problem = f"job {chunk.job.job_id} {what} (its files are in {self._folder}; it said last: {said or 'nothing'})"
        return lost(chunk.order, problem, began_at=chunk.at)

    def _came_back(self, chunk: _Running, outcome: ChunkOutcome) -> None:
        if self._forget(chunk):
            chunk.future.set_result(outcome)

    def _forget(self, chunk: _Running) -> bool:
        with self._changed:
            return self._running.pop(chunk.order.number, None) is not None


@dataclass(slots=True)
class _Running:
    """A chunk that submitit has.

    Attributes:
        order: It.
        at: When it was submitted, seconds since the epoch.
        job: submitit's.
        handle: Ends it from another process.
        over_at: When its job was first seen over, monotonic seconds.
        future: For whoever submitted it.
    """

    order: ChunkOrder
    at: float
    job: Any = None
    handle: str = ""
    over_at: float = math.inf
    future: Future[ChunkOutcome] = field(default_factory=Future)


def run_in_job(order: ChunkOrder) -> tuple[ChunkOutcome, str]:
    """Run a chunk in a process of submitit's, in place of whose handlers of signals ours come.

    Returns:
        Its outcome, and the signal with which it was told to end; "" if it was not.
    """
    soon = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
    return run_until_signal(order, [signal.SIGTERM, signal.SIGINT, soon])


def _new_executor(parent: Path, cluster: str, parameters: Mapping[str, Any]) -> tuple[str, Any]:
    """A folder of its own, and an executor of submitit's that fills it."""
    submitit = imported_submitit()
    if cluster == "slurm" and shutil.which("srun") is None:
        raise UsageError(
            "there is no Slurm on this machine (no srun on PATH): start the sweep where jobs are submitted, or leave "
            "the engine out and have its chunks run here"
        )
    parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="run-", dir=parent)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**parameters)
    except (NameError, AssertionError, ValueError) as error:
        os.rmdir(folder)
        with contextlib.suppress(OSError):  # others use it
            parent.rmdir()
        raise ValueError(f"submitit does not take the parameters of Slurm's jobs: {error}") from error
    return folder, executor


def check_parameters(parameters: Mapping[str, Any], cluster: str) -> None:
    """See that they can work, as far as that can be known without submitit.

    Raises:
        ValueError: There is no such cluster, no time limit, or more than one process for a chunk.
    """
    if cluster not in _KINDS:
        raise ValueError(f"cluster= is {cluster!r}, and takes 'slurm' or 'local'")
    parameters_of_submitit(parameters, parallel=1, needs_time=cluster == "slurm")


def imported_submitit() -> Any:
    """The package; ImportError with the remedy where it is not installed."""
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            "chunks run as jobs of Slurm by submitit, which is not installed: pip install 'millpond[slurm]'"
        ) from error
    return submitit


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes that are started within have it blocked: at a terminal's Ctrl-C they wait for what the sweep says.

    submitit's local controllers would kill their chunks after one second, and print tracebacks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _last_line(text: str) -> str:
    """Of the traceback in an error of submitit's, which stands between dashes."""
    parts = text.split("-" * 22)
    lines = parts[1 if len(parts) > 2 else 0].strip().splitlines()
    return lines[-1] if lines else ""
