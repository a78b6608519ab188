"""Has tasks carried out in worker processes, from a thread that owns pond and supervisor."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from millpond._loader.driver import Driving, Setup
from millpond._loader.jobs import Job, Piece
from millpond._loader.work import Outcome, ReadTask, pack_task
from millpond._plan.epoch import EpochPlan
from millpond._plan.pond import ReadyBatch
from millpond._workers.lifecycle import MAX_ATTEMPTS
from millpond._workers.supervisor import Completed, Failed, Supervisor
from millpond._workers.verdicts import TaskLimits
from millpond._workers.wakeup import Wakeup
from millpond.errors import (
    ClosedError,
    DeadlineExceeded,
    DecodeTimeout,
    InternalError,
    MillpondError,
    WorkerDied,
)

logger = logging.getLogger("millpond")

MENDING_SECONDS = 80.0
"""For two workers to be reaped (10 s each at most) and replaced (30 s each at most); it takes 10 ms."""


class WorkerDriver(Driving):
    """Feeds a supervisor from a thread, so that workers stay busy while the training loop computes.

    The thread owns pond and supervisor. Commands reach it through a deque and the supervisor's wake-up; ready batches,
    or the error that stopped the epoch, leave through a queue.
    """

    def __init__(self, supervisor: Supervisor, setup: Setup, *, num_workers: int, limits: TaskLimits) -> None:
        self._lease_ends = Wakeup()
        super().__init__(setup, on_ready=supervisor.wake, waker=self._lease_ends.waker())
        self._num_workers = num_workers
        # Datasets of ours call progress(); a user's transform has the total limit alone.
        self._read_limits, self._finish_limits = limits, TaskLimits(limits.timeout_seconds)
        # A task that hangs is tried twice, and only then do its samples fail: the consumer must wait for that.
        self._patience_seconds = 2 * limits.timeout_seconds + MENDING_SECONDS
        self._stirred_at = time.monotonic()
        self._supervisor = supervisor
        self._commands: deque[Callable[[], None]] = deque()
        self._ready: queue.SimpleQueue[ReadyBatch | BaseException] = queue.SimpleQueue()  # read by the consumer
        self._outbox = self._ready  # written by the thread; the same, once the thread has heard of an epoch's start
        self._waiting_plan: EpochPlan | None = None
        self._in_flight: dict[int, Piece] = {}
        self._next_id = 0
        self._wants_slots = False
        self._closing = False
        self._dead: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="millpond-driver", daemon=True)
        self._thread.start()

    def start(self, plan: EpochPlan) -> None:
        """See `Driver`."""
        ready: queue.SimpleQueue[ReadyBatch | BaseException] = queue.SimpleQueue()
        self._ready = ready
        if self._dead is not None:  # looked at after the queue was set, since the thread writes to it in its last act
            raise self._dead
        self._command(lambda: self._begin(plan, ready))

    def next_ready(self) -> ReadyBatch:
        """See `Driver`."""
        began = time.monotonic()
        while True:
            try:
                ready = self._ready.get(timeout=self._patience_left(began))
            except queue.Empty:
                continue
            if isinstance(ready, BaseException):
                raise ready
            return ready

    def _patience_left(self, began: float) -> float | None:
        """Seconds; counted anew whenever a worker answers, or is given up."""
        if math.isinf(self._patience_seconds):
            return None
        still = time.monotonic() - max(began, self._stirred_at)
        if still >= self._patience_seconds and self._held:
            return self._patience_seconds  # bytes are waited for, and every fetch has a limit of its own
        if still >= self._patience_seconds:
            raise DeadlineExceeded(
                f"no worker answered for {still:.1f} s (limit {self._patience_seconds:.1f} s: twice timeout= and "
                f"{MENDING_SECONDS:.0f} s to replace them); {self._situation()}",
                limit_seconds=self._patience_seconds,
                elapsed_seconds=still,
            )
        return self._patience_seconds - still

    def _situation(self) -> str:
        return f"{len(self._in_flight)} tasks are with workers, {self.open_slots()} slots are open"

    def release(self, slot: int) -> None:
        """See `Driver`."""
        self._returned.append(slot)
        if self._wants_slots:
            self._supervisor.wake()

    def cancel(self) -> None:
        """See `Driver`; tasks that are with workers run to their end before the next epoch begins."""
        self._command(lambda: self._begin(None, queue.SimpleQueue()))

    def close(self) -> None:
        """See `Driver`."""
        self._closing = True
        self._supervisor.wake()
        self._thread.join()

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._supervisor.wake()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._step()
            self._dead = ClosedError("this loader was closed while a batch was waited for")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the consumer must learn of it, not wait
            self._dead = error
        finally:
            self._supervisor.close()
            self.leases.close()
            self._lease_ends.close()
            if self._prefetch is not None:
                self._prefetch.close()
            for waited_for in {id(self._outbox): self._outbox, id(self._ready): self._ready}.values():
                waited_for.put(self._dead or ClosedError("this loader is closed"))

    def _step(self) -> None:
        while self._commands:
            self._commands.popleft()()
        if self._waiting_plan is not None and not self._in_flight:
            self._open_pond(self._waiting_plan)
            self._waiting_plan = None
        self._wants_slots = False
        self._give_out()
        for event in self._supervisor.wait(None):
            self._stirred_at = time.monotonic()
            self._on_event(event)
        while self._pond is not None and (ready := self._take_ready()) is not None:
            self._outbox.put(ready)

    def _begin(self, plan: EpochPlan | None, outbox: queue.SimpleQueue[ReadyBatch | BaseException]) -> None:
        # Slots that tasks of the former epoch still write to are not free: the next one begins when all came back.
        self._close_pond()
        self._waiting_plan = plan
        with contextlib.suppress(queue.Empty):
            while True:  # what nobody took
                left = self._outbox.get_nowait()
                if isinstance(left, ReadyBatch):
                    self._setup.slots.out.discard(left.slot)
        self._outbox.put(ClosedError("this epoch was closed while a batch was waited for"))  # in another thread
        self._outbox = outbox

    def _take_back(self) -> None:
        self._lease_ends.clear()  # first: who lets go writes last
        super()._take_back()

    def _give_out(self) -> None:
        while self._pond is not None and self._supervisor.capacity > 0:
            self._take_back()
            job = self._next_job()
            if job is None and not self._wants_slots and len(self._in_flight) < self._num_workers:
                # A worker idles. (While all work, slots can wait for the next answer: a wake-up costs 0.1 ms of CPU.)
                # Said before a last look, so that no slot can come back in between without a wake-up.
                self._wants_slots = True
                self._supervisor.wake_on(self._lease_ends)
                continue
            if job is None:
                return
            self._send(Piece(job, job.payload))

    def _send(self, piece: Piece) -> None:
        self._next_id += 1
        self._in_flight[self._next_id] = piece
        limits = self._read_limits if isinstance(piece.payload, ReadTask) else self._finish_limits
        attempts = 1 if piece.can_be_split(self._setup.cuts) else MAX_ATTEMPTS
        self._supervisor.submit(self._next_id, pack_task(piece.payload), limits=limits, max_attempts=attempts)

    def _on_event(self, event: Completed | Failed) -> None:
        piece = self._in_flight.pop(event.task_id)
        job = piece.job
        if job.pond is not self._pond:
            return
        for attempt in event.attempts:
            self._note_loss(piece, attempt)
        if isinstance(event, Completed):
            self._account(piece, Outcome(*event.result))
        elif isinstance(event.error, MillpondError) and not isinstance(event.error, InternalError):
            self._on_failed(piece, event.error)
        else:
            # No sample is to blame for an error of ours, or for a full disk: it stops the epoch whatever on_error says.
            self._close_pond()
            self._outbox.put(event.error)
            return
        job.waiting -= 1
        if job.waiting == 0:
            self._end(job)

    def _on_failed(self, piece: Piece, error: Exception) -> None:
        ended_its_worker = isinstance(error, WorkerDied | DecodeTimeout)
        if not (ended_its_worker and piece.can_be_split(self._setup.cuts)):
            piece.fail_whole(error)
            return
        pieces = piece.split(self._setup.cuts)
        logger.warning("a task of %d samples is done again in %d pieces: %s", len(piece.samples), len(pieces), error)
        self._counters["tasks_split"] += 1
        piece.job.waiting += len(pieces)
        piece.job.is_split = True
        for part in pieces:
            self._send(part)

    def _end(self, job: Job) -> None:
        """All answers are here: the pond may know, unless the samples that are good are still to be read in one go."""
        if job.is_split and job.must_end_whole and (rest := job.rest()) is not None:
            job.is_split = False
            job.waiting = 1
            self._send(rest)
        else:
            self._complete(job)
