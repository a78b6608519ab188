"""Runs a sweep: asks the plan what is next, has an engine do it, and writes down what became of it.

All of it happens on the thread that calls `run`: ends of chunks, looks at them and signals come through one mailbox.
The plan decides, the engine carries out, the ledger remembers.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue

from millpond._plan.chunks import Chunk, JobState, JobVerdict, SweepPlan
from millpond._sweep.engines import Engine
from millpond._sweep.exits import exit_code_of
from millpond._sweep.ledger import Ledger
from millpond._sweep.options import SweepOptions
from millpond._sweep.orders import ChunkOrder, ChunkOutcome, EndedBy, Look
from millpond._sweep.out_folder import OutFolder
from millpond._sweep.resuming import recover
from millpond._sweep.verdict import REPORTED_NOTHING, Verdict, judge
from millpond._sweep.watching import Counts, Failure, Watcher
from millpond._sweep.work import Work

SOME_FAILED = 3
"""Exit code of a sweep some of whose jobs have failed, where no child's own code says more."""

_SHELL_SIGNAL = 128


class SweepRun:
    """A sweep from its first chunk to its last.

    Args:
        work: Jobs, and how they are run.
        options: How to go about it.
        out: Its folder, open.
        watcher: Is told what happens.
        directory: Working directory of the chunks.
    """

    def __init__(self, work: Work, options: SweepOptions, out: OutFolder, watcher: Watcher, directory: str) -> None:
        self._work = work
        self._options = options
        self._out = out
        self._watcher = watcher
        self._directory = directory
        self._mailbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._running: dict[int, tuple[Chunk, ChunkOrder]] = {}
        self._signals: list[int] = []
        self._child_code = 0
        self._must_report = work.must_report
        self._silent: dict[str, int] = {}  # done in chunks that wrote no metrics, by chunk
        self.failures: list[Failure] = []

    @property
    def interrupted_by(self) -> int | None:
        """The first signal that `interrupt` was told of."""
        return self._signals[0] if self._signals else None

    @property
    def exit_code(self) -> int:
        """0 if all is done and well; 128 + n after signal n; the child's own code where the sweep stopped; else 3."""
        if self._signals:
            return _SHELL_SIGNAL + self._signals[0]
        return (self._child_code or SOME_FAILED) if self.failures else 0

    def interrupt(self, number: int) -> None:
        """End the sweep: chunks get this signal, at the second call no grace. For any thread and signal handlers."""
        self._mailbox.put(partial(self._interrupt, number))

    def looked(self, number: int, look: Look) -> None:
        """Somebody has looked at a chunk. For any thread."""
        self._mailbox.put(partial(self._watcher.chunk_looked, number, look))

    def printed(self, number: int, output: bytes) -> None:
        """A chunk has printed something. For any thread."""
        self._mailbox.put(partial(self._watcher.chunk_printed, number, output))

    def run(self, engine: Engine, ledger: Ledger) -> None:
        """Run what is not done, until it is, or is given up, or the sweep is interrupted."""
        self._engine, self._ledger = engine, ledger
        self._num_done = recover(ledger, self._out, self._work, engine)
        self._must_report = self._must_report or any(ledger.metrics().values())
        self._watcher.sweep_began(self._counts, folder=str(self._out.path))
        if self._num_done < len(self._work.names):
            self._plan = self._make_plan(engine.capacity)
            self._loop()
            if self._must_report and self._silent:
                self._fail_silent()
        self._watcher.sweep_ended(self._counts)

    def _make_plan(self, capacity: int) -> SweepPlan:
        options = self._options
        return SweepPlan(
            [job.name for job in self._ledger.jobs() if job.state != JobState.DONE],
            chunk_size=options.chunk_size,
            budget_bytes=options.budget_bytes,
            capacity=capacity,
            retries=options.retries,
            bisect=options.bisect,
            stop_on_error=options.stop_on_error,
            first_number=self._ledger.next_chunk_number,
        )

    @property
    def _counts(self) -> Counts:
        return Counts(len(self._work.names), self._num_done, sum(1 for failure in self.failures if failure.job))

    def _loop(self) -> None:
        while True:
            self._start()
            if not self._running:
                return
            self._mailbox.get()()

    def _start(self) -> None:
        orders = []
        while not self._signals and len(self._running) < self._engine.capacity:
            chunk = self._plan.next_chunk()
            if chunk is None:
                break
            orders.append(self._begin(chunk))
        if not orders:
            return
        for future in self._engine.submit(orders):
            future.add_done_callback(self._tell_of_end)
        if handles := self._engine.handles():
            self._ledger.note_handles(handles)

    def _tell_of_end(self, future: Future[ChunkOutcome]) -> None:
        self._mailbox.put(partial(self._ended, future))

    def _begin(self, chunk: Chunk) -> ChunkOrder:
        order = ChunkOrder(
            number=chunk.number,
            names=chunk.names,
            command=self._work.command,
            files=self._work.files(chunk.names),
            jobs_file=self._work.jobs_file_name,
            directory=self._directory,
            work_folder=str(self._out.work_folder(chunk.number)),
            log_path=str(self._out.log_path(chunk.number)),
            timeout_seconds=self._options.timeout_seconds,
            budget_bytes=self._options.budget_bytes,
            grace_seconds=self._options.grace_seconds,
            jobs_key=self._work.jobs_key,
            name_key=self._work.name_key,
        )
        log = self._log_of(chunk.number)
        self._ledger.begin(chunk.number, chunk.names, attempt=chunk.attempt, log=log, began_at=time.time())
        self._running[chunk.number] = (chunk, order)
        self._watcher.chunk_began(chunk.number, chunk.names, chunk.attempt)
        return order

    def _ended(self, future: Future[ChunkOutcome]) -> None:
        outcome = future.result()
        chunk, order = self._running.pop(outcome.number)
        verdict = judge(order, outcome, must_report=self._must_report)
        self._note_reports(chunk, verdict)
        if outcome.ended_by is EndedBy.CANCELLED:
            jobs = self._plan.cancelled(chunk, verdict.end.done)
        else:
            jobs = self._plan.ended(chunk, verdict.end)
        reason = verdict.end.reason or verdict.warning
        self._ledger.end(outcome, jobs, verdict.metrics, seconds=verdict.seconds, reason=reason)
        self._start()  # before the folder is removed, which may take some milliseconds
        shutil.rmtree(self._out.work_folder(chunk.number), ignore_errors=True)
        self._num_done += len(verdict.metrics)
        failures = _failures(outcome, verdict, jobs, self._log_of(chunk.number))
        if failures and self._options.stop_on_error and outcome.ended_by in (EndedBy.ITSELF, EndedBy.TIMEOUT):
            self._child_code = self._child_code or exit_code_of(outcome)
        self.failures += failures
        self._watcher.chunk_ended(outcome, reason, self._counts)
        for failure in failures:
            self._watcher.job_failed(failure)

    def _log_of(self, number: int) -> str:
        return self._out.log_path(number).name

    def _note_reports(self, chunk: Chunk, verdict: Verdict) -> None:
        """Once a job has reported, all must have: a silent job is one however jobs are cut."""
        if any(verdict.metrics.values()):
            self._must_report = True
        elif not self._must_report:
            self._silent |= dict.fromkeys(verdict.metrics, chunk.number)

    def _fail_silent(self) -> None:
        """Jobs whose chunks wrote nothing before it was known that jobs of this sweep report."""
        self._ledger.fail(self._silent, REPORTED_NOTHING)
        self._num_done -= len(self._silent)
        for name, number in self._silent.items():
            failure = Failure(name, REPORTED_NOTHING, number, 1, self._log_of(number))
            self.failures.append(failure)
            self._watcher.job_failed(failure)

    def _interrupt(self, number: int) -> None:
        self._signals.append(number)
        self._watcher.interrupted(signal.Signals(number).name, is_last_warning=len(self._signals) > 1)
        if len(self._signals) > 1:
            self._engine.kill()
        else:
            self._engine.cancel(number)


def _failures(outcome: ChunkOutcome, verdict: Verdict, jobs: Sequence[JobVerdict], log: str) -> list[Failure]:
    """Jobs that are given up; or the chunk, where it ended badly though all its jobs are done."""
    failed = [job for job in jobs if job.state is JobState.FAILED]
    if not failed and verdict.end.has_failed and all(job.state is JobState.DONE for job in jobs):
        reason = f"{verdict.end.reason}, after all its jobs had reported"
        return [Failure(job="", reason=reason, chunk=outcome.number, attempt=0, log=log)]
    return [Failure(job.name, job.reason, outcome.number, job.attempt, log) for job in failed]
