"""A supervisor of workers that are not alike: each has a seat, and a task names the seat whose worker carries it out.

For work that has its place in an order per worker, or random numbers of its own. A worker that ended, or had its time,
is followed by another in the same seat, which is told how many were there before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from millpond._workers import verdicts
from millpond._workers.cells import Cells
from millpond._workers.lifecycle import State, runs_alone
from millpond._workers.recycling import Recycling
from millpond._workers.staff import Staff
from millpond._workers.supervisor import Supervisor
from millpond._workers.worker import Task, Worker
from millpond._workers.worker_set import WorkerSet

HandlerFor = Callable[[int, int], bytes]
"""What the worker of a seat runs, pickled by cloudpickle: (seat, workers that were there before it) -> handler."""


class SeatedStaff(Staff):
    """One worker in each seat. Arguments as `Staff`, and:

    A worker is recycled by having it end in good order; its successor starts when it is gone. So at no time do two
    workers of one seat run, of which one would not know what the other does.

    Args:
        handler_for: Gives what a new worker runs.
    """

    def __init__(
        self,
        workers: WorkerSet,
        cells: Cells,
        *,
        handler_for: HandlerFor,
        num_workers: int,
        recycling: Recycling,
        max_restarts: int,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._handler_for = handler_for
        self._predecessors = [-1] * num_workers
        self.last_ends: dict[int, verdicts.End] = {}
        self._had_their_time: set[Worker] = set()
        super().__init__(
            workers,
            cells,
            num_workers=num_workers,
            on_demand=True,
            recycling=recycling,
            max_restarts=max_restarts,
            on_fatal=on_fatal,
        )
        self._wanted = num_workers
        self.keep_up(0)

    def _spawn(self) -> Worker | None:
        taken = {worker.seat for worker in self._set.workers}
        seat = next(seat for seat in range(self._wanted) if seat not in taken)
        self._predecessors[seat] += 1
        worker = self._try_spawn(self._handler_for(seat, self._predecessors[seat]))
        if worker is not None:
            worker.seat = seat
        return worker

    def note_answer(self, worker: Worker) -> None:
        """A worker has answered a task: that makes up for a restart, and may be the last of its time."""
        self._unpaid_restarts = max(0, self._unpaid_restarts - 1)
        if worker.state not in (State.IDLE, State.BUSY):
            return
        if self._recycling.is_due(worker.answered, self._cells.anon_bytes(worker.index)):
            self._had_their_time.add(worker)
            self._set.drain(worker)

    def note_end(self, worker: Worker, end: verdicts.End) -> None:
        """A worker was reaped."""
        self.last_ends.pop(worker.seat, None)
        if worker in self._had_their_time and end.exit_code == 0:
            self.recycles += 1
        else:
            self.last_ends[worker.seat] = end
            self._count_restart(worker, end)
        self._had_their_time.discard(worker)


class SeatedSupervisor(Supervisor):
    """Runs tasks in workers with seats 0 to num_workers - 1; tasks of a seat are carried out in the order of `submit`.

    Args:
        handler_for: Gives what a new worker runs.
        num_workers: As `Supervisor`, like everything else.
        options: As `Supervisor`; neither `on_demand`, nor a handler.
    """

    def __init__(self, handler_for: HandlerFor, *, num_workers: int, **options: Any) -> None:
        self._handler_for = handler_for
        super().__init__(b"", num_workers=num_workers, **options)

    def _make_staff(self, *, num_workers: int, on_demand: bool, recycling: Recycling, max_restarts: int) -> Staff:
        self._seats = SeatedStaff(
            self._set,
            self._spawner.cells,
            handler_for=self._handler_for,
            num_workers=num_workers,
            recycling=recycling,
            max_restarts=max_restarts,
            on_fatal=self._tell_fatal(),
        )
        return self._seats

    def last_end(self, seat: int) -> verdicts.End | None:
        """Of the last worker of a seat that is gone; None if there is none, or it ended in good order."""
        return self._seats.last_ends.get(seat)

    def pids(self) -> Sequence[int | None]:
        """Of the workers, by seat; None where it is not known yet, or nobody sits there now."""
        by_seat = {worker.seat: worker.pid for worker in self._set.workers}
        return [by_seat.get(seat) for seat in range(self._num_workers)]

    def _dispatch(self) -> None:
        if self._alone is not None:
            return
        waiting, self._backlog = self._backlog, deque()
        full: set[int] = set()  # seats of which a task must wait, and so those behind it
        while waiting:
            task = waiting.popleft()
            must_wait = runs_alone(task.attempts, task.max_attempts) and any(w.tasks for w in self._set.workers)
            worker = None if must_wait or task.seat in full else self._free_worker(task)
            if worker is None:
                full.add(task.seat)
                self._backlog.append(task)
            else:
                self._give(worker, task)
            if must_wait or self._alone is not None:
                break  # nothing else begins, or it would never be alone
        self._backlog.extend(waiting)

    def _give(self, worker: Worker, task: Task) -> None:
        if runs_alone(task.attempts, task.max_attempts):
            self._alone = task
        self._set.give(worker, task)

    def _free_worker(self, task: Task) -> Worker | None:
        for worker in self._set.workers:
            if worker.seat == task.seat and worker.state in (State.IDLE, State.BUSY):
                return worker if len(worker.tasks) < self._tasks_per_worker else None
        return None
