"""How many workers there are: who is started, who is replaced, who is followed by another, and when it is too often."""

from __future__ import annotations

import logging
from collections.abc import Callable

from millpond._workers import verdicts
from millpond._workers.cells import Cells
from millpond._workers.lifecycle import State
from millpond._workers.recycling import Recycling
from millpond._workers.worker import Worker
from millpond._workers.worker_set import WorkerSet
from millpond.errors import ClosedError, MillpondError

logger = logging.getLogger("millpond")

_MAX_FAILED_STARTS = 3


class Staff:
    """Keeps up the number of workers of a set.

    A worker is recycled by a successor that is ready before it goes, one at a time, so that as many as wanted take
    tasks at any moment.

    Args:
        workers: The set, in which there is a place more than workers where some are recycled.
        cells: What workers tell of themselves.
        num_workers: Wanted.
        on_demand: Start a worker when a task waits for one, not all of them at once.
        recycling: When a worker that works well is followed by another.
        max_restarts: Replacements that completed tasks have not made up for, one each.
        on_fatal: Is told what makes going on pointless.
    """

    def __init__(
        self,
        workers: WorkerSet,
        cells: Cells,
        *,
        num_workers: int,
        on_demand: bool,
        recycling: Recycling,
        max_restarts: int,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self.restarts = 0
        self.recycles = 0
        self._set = workers
        self._cells = cells
        self._most = num_workers
        self._wanted = 0 if on_demand else num_workers
        self._recycling = recycling
        self._max_restarts = max_restarts
        self._on_fatal = on_fatal
        self._unpaid_restarts = 0
        self._failed_starts = 0
        self._leaving: Worker | None = None
        self._successor: Worker | None = None  # of the one that leaves, until it is ready
        for _ in range(self._wanted):
            self._set.spawn()

    def keep_up(self, unanswered: int) -> None:
        """Start as many workers as there should be and are not, with so many tasks unanswered.

        A worker that leaves, or is to be killed, is there until it is reaped.
        """
        if self._wanted < self._most:
            self._wanted = max(self._wanted, min(self._most, unanswered))
        while len(self._set.workers) < self._wanted:
            if self._spawn() is None:
                return

    def _spawn(self) -> Worker | None:
        return self._try_spawn(None)

    def _try_spawn(self, handler: bytes | None) -> Worker | None:
        try:
            return self._set.spawn(handler)
        except (MillpondError, OSError) as error:  # the zygote is gone again, or there is no descriptor left
            self._on_fatal(error)
            return None

    def note_ready(self, worker: Worker) -> None:
        """A worker can take tasks; if it follows another, that one may go."""
        self._failed_starts = 0
        if worker is self._successor and self._leaving is not None:
            self._successor = None
            if self._leaving.state in (State.IDLE, State.BUSY):
                self._set.drain(self._leaving)

    def note_answer(self, worker: Worker) -> None:
        """A worker has answered a task: that makes up for a restart, and may be the last of its time."""
        self._unpaid_restarts = max(0, self._unpaid_restarts - 1)
        if self._leaving is not None or worker.state not in (State.IDLE, State.BUSY):
            return
        if self._recycling.is_due(worker.answered, self._cells.anon_bytes(worker.index)):
            self._leaving, self._successor = worker, self._spawn()

    def note_end(self, worker: Worker, end: verdicts.End) -> None:
        """A worker was reaped."""
        if worker is self._leaving and end.exit_code == 0:
            self.recycles += 1
        else:
            self._count_restart(worker, end)
        if worker is self._leaving or worker is self._successor:
            self._leaving = self._successor = None  # the one of them that is left is a worker like any other

    def _count_restart(self, worker: Worker, end: verdicts.End) -> None:
        self.restarts += 1
        self._unpaid_restarts += 1
        if not worker.was_ready and end.is_its_own_doing:
            self._failed_starts += 1
        error = self._why_to_give_up(worker, end)
        if error is not None:
            self._on_fatal(error)
        elif worker.is_unwanted:
            logger.debug("worker %d (pid %s) was ended with a call that nobody waits for", end.worker_index, end.pid)
        else:
            stack = f"; its stack:\n{end.stack.rstrip()}" if end.stack else ""
            logger.warning("worker %d (pid %s) %s; it is replaced%s", end.worker_index, end.pid, end.in_words(), stack)

    def _why_to_give_up(self, worker: Worker, end: verdicts.End) -> Exception | None:
        failure = None if worker.was_ready else worker.starter.failure()
        if failure is not None:
            worker.starter.give_up()
            return failure
        if worker.starter.was_shut_down:
            return ClosedError("millpond.shutdown() has ended the worker processes; make a new loader or guard")
        if self._unpaid_restarts > self._max_restarts:
            return verdicts.too_many_restarts(self._unpaid_restarts, self._max_restarts, end)
        if self._failed_starts >= _MAX_FAILED_STARTS:
            return verdicts.dies_at_start(self._failed_starts, end)
        return None
