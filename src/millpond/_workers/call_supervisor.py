"""A supervisor for calls: what nobody waits for any more is withdrawn, and what had begun is never begun again."""

from __future__ import annotations

from collections.abc import Iterable

from millpond._workers import verdicts
from millpond._workers.call_worker_set import CallWorkerSet
from millpond._workers.lifecycle import Cause
from millpond._workers.supervisor import Supervisor
from millpond._workers.worker import Task, Worker
from millpond.errors import UsageError


class CallSupervisor(Supervisor):
    """Ends what was withdrawn: with its worker if that runs it, else before any runs it. Arguments as `Supervisor`."""

    _worker_set = CallWorkerSet
    _withdrawn: frozenset[int] = frozenset()

    def withdraw(self, task_ids: Iterable[int]) -> None:
        """Have tasks end soon, each with a Failed from `wait` if it does not end of its own accord before.

        Args:
            task_ids: Of tasks that were submitted; those that were answered are passed over.
        """
        self._withdrawn = frozenset(task_ids) & frozenset(task.task_id for task in self._unanswered_tasks())
        self._drop_what_waits()
        self._kill_who_runs()

    @property
    def running_withdrawn(self) -> list[Worker]:
        """Workers at a withdrawn task. One whose pid is known has been killed; else withdraw again."""
        workers = self._set.workers if self._withdrawn else ()
        return [worker for worker in workers if worker.tasks and worker.tasks[0].task_id in self._withdrawn]

    def _unanswered_tasks(self) -> list[Task]:
        return [*self._backlog, *(task for worker in self._set.workers for task in worker.tasks)]

    def _drop_what_waits(self) -> None:
        for task in [task for task in self._backlog if task.task_id in self._withdrawn]:
            self._backlog.remove(task)
            self._fail(task, UsageError("withdrawn before it was begun"))

    def _kill_who_runs(self) -> None:
        for worker in self.running_withdrawn:
            if worker.pid is None:
                continue  # the zygote has not told yet whom to kill
            worker.is_unwanted = True
            self._set._kill(worker)  # and it gets no other task, should it answer after all

    def _give_back(self, worker: Worker, end: verdicts.End) -> None:
        progress = self._spawner.cells.read(worker.index)
        if end.wait_status is None and worker.tasks and worker.tasks[0].serial == progress.serial:
            # Its zygote has died with it. For other tasks that is no verdict, but this one ran.
            ran = worker.tasks.popleft()
            self._note_end_of(ran)
            ran.attempts.append(worker.attempt(Cause.DIED, progress.count, end.stack))
            self._fail(ran, verdicts.task_failed(ran.task_id, ran.attempts, end))
        super()._give_back(worker, end)
        self._drop_what_waits()
