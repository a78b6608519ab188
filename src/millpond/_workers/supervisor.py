"""The supervisor: gives tasks to workers, and survives whatever they do.

One thread drives it (`submit`, `wait`); `wake` is for any thread. `wait` waits at once for answers, for wake-ups, for
the ends of workers, and for the next limit that could pass; it never polls.

Rules:
    A worker's answers count up to its last byte: they are read before its death is judged.
    A task is given again only after its worker was reaped (or lost), so that nothing stale is written.
    Only the task that ran is blamed for a death, not those that were waiting behind it (the worker's cell tells).
    A task's last attempt runs while no other task does.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from millpond._workers import verdicts
from millpond._workers.lifecycle import MAX_ATTEMPTS, Cause, State, is_poison, runs_alone
from millpond._workers.messages import RESULT, decode, decode_error, encode
from millpond._workers.outcomes import Completed, Failed, Statistics, WorkerStatistics
from millpond._workers.recycling import NO_RECYCLING, Recycling
from millpond._workers.spawner import Spawner, WorkerOptions
from millpond._workers.staff import Staff
from millpond._workers.starter import Starter
from millpond._workers.verdicts import NEVER, ProcessLimits, TaskLimits
from millpond._workers.wakeup import Wakeup
from millpond._workers.worker import Task, Worker
from millpond._workers.worker_set import MOST_LOST, WorkerSet
from millpond._workers.zygote import has_pidfd
from millpond.errors import ClosedError, UsageError

__all__ = ["Completed", "Failed", "Statistics", "Supervisor", "WorkerStatistics"]


class Supervisor:
    """Runs tasks in worker processes.

    Args:
        handler: A callable `handler(payload, progress) -> result`, pickled by cloudpickle. If it has
            `attach(descriptors, worker_index)`, that is called once in each worker before its first task; `close()` at
            a worker's end in good order.
        num_workers: Processes.
        descriptors: Handed to every worker, in this order (under other numbers); they stay the caller's here.
        preload: Modules that the zygote imports once for all workers.
        tasks_in_flight_per_worker: One runs, the others wait in the worker's socket so that it never idles.
        limits: For each task that comes without limits of its own.
        max_attempts: Times that a task may end its worker before it is given up; see `lifecycle.is_poison`.
        max_restarts: Replacements that completed tasks have not made up for, one each; past that `wait` raises.
        recycling: When a worker that works well is replaced.
        on_demand: Start a worker when a task waits and none is idle, not all of them at once.
        start_timeout_seconds: For a worker to become ready.
        use_pidfd: None: where there are pidfds; False is the fallback of other platforms, for tests.
        starter: Starts the workers; None: the zygote of the preload set.
    """

    _worker_set: type[WorkerSet] = WorkerSet

    def __init__(
        self,
        handler: bytes,
        *,
        num_workers: int,
        descriptors: Sequence[int] = (),
        preload: tuple[str, ...] = (),
        tasks_in_flight_per_worker: int = 2,
        limits: TaskLimits = TaskLimits(),  # noqa: B008 - a frozen value
        max_attempts: int = MAX_ATTEMPTS,
        max_restarts: int = 100,
        recycling: Recycling = NO_RECYCLING,
        on_demand: bool = False,
        start_timeout_seconds: float = 30.0,
        use_pidfd: bool | None = None,
        starter: Starter | None = None,
    ) -> None:
        if num_workers < 1 or tasks_in_flight_per_worker < 1:
            raise ValueError(f"need at least 1 worker and 1 task each, not {num_workers}, {tasks_in_flight_per_worker}")
        process_limits = ProcessLimits(start_timeout_seconds)
        self._num_workers = num_workers
        self._tasks_per_worker = tasks_in_flight_per_worker
        self._limits = limits
        self._max_attempts = max_attempts
        self._owner_pid = os.getpid()
        self._is_closed = False

        self._backlog: deque[Task] = deque()
        self._alone: Task | None = None  # runs, and no other shall beside it
        self._events: list[Completed | Failed] = []
        self._fatal: Exception | None = None
        self._woken = False
        self._wakes_on: set[Wakeup] = set()
        self._last_serial = 0
        self._completed = self._failed = 0

        with_pidfd = has_pidfd() if use_pidfd is None else use_pidfd
        num_places = num_workers + recycling.is_wanted  # a successor starts before its worker has ended
        options = WorkerOptions(
            handler,
            num_places + MOST_LOST,
            tuple(descriptors),
            preload,
            with_pidfd,
            recycling.max_anon_bytes is not None,
            starter,
        )
        this = weakref.proxy(self)  # for what it drives: no cycle, so all of it ends when it is let go
        with contextlib.ExitStack() as undo:
            self._wakeup = Wakeup()
            undo.callback(self._wakeup.close)
            self._spawner = Spawner(options)
            undo.callback(self._spawner.close)
            self._set = self._worker_set(self._spawner, num_places, process_limits, this)
            undo.callback(self._set.release)
            self._set.watch(self._wakeup.readable, lambda mask: this._on_wake(mask))
            self._staff = self._make_staff(
                num_workers=num_workers,
                on_demand=on_demand,
                recycling=recycling,
                max_restarts=max_restarts,
            )
            undo.pop_all()

    def _make_staff(self, *, num_workers: int, on_demand: bool, recycling: Recycling, max_restarts: int) -> Staff:
        return Staff(
            self._set,
            self._spawner.cells,
            num_workers=num_workers,
            on_demand=on_demand,
            recycling=recycling,
            max_restarts=max_restarts,
            on_fatal=self._tell_fatal(),
        )

    def _tell_fatal(self) -> Callable[[Exception], None]:
        """`on_fatal` for a staff, which does not hold this."""
        this = weakref.proxy(self)
        return lambda error: this.on_fatal(error)

    # ---- the driver's calls

    @property
    def capacity(self) -> int:
        """How many more tasks are wanted now; submitting more is allowed, they wait here."""
        return max(0, self._num_workers * self._tasks_per_worker - self._unanswered)

    @property
    def _unanswered(self) -> int:
        return len(self._backlog) + sum(len(worker.tasks) for worker in self._set.workers)

    def submit(
        self,
        task_id: int,
        payload: object,
        *,
        limits: TaskLimits | None = None,
        max_attempts: int | None = None,
        seat: int = 0,
    ) -> None:
        """Have a task carried out, exactly one Completed or Failed of which will come from `wait`. Does not block.

        Args:
            task_id: Comes back with the answer; any number.
            payload: Pickled now, by value where it comes from `__main__`.
            limits: Of this task; None: the supervisor's.
            max_attempts: Of this task; None: the supervisor's.
            seat: Of the worker that it is for; see `SeatedSupervisor`.
        """
        self._check_usable()
        self._last_serial += 1
        most = max_attempts or self._max_attempts
        self._backlog.append(Task(task_id, self._last_serial, encode(payload), limits or self._limits, most, seat))
        self._keep_up()
        self._dispatch()

    def wait(self, timeout_seconds: float | None = None) -> list[Completed | Failed]:
        """Wait until at least one answer is here, `wake` was called, or the time is up; what is here, possibly nothing.

        Raises:
            ClosedError: After close() or millpond.shutdown().
            UsageError: In a forked child.
            WorkerDied: The restart budget is used up, workers die at their start, or too many cannot be killed.
            DeadlineExceeded: A worker did not start in time.
            Exception: The handler could not be unpickled or attached in a worker: the exception of that, as itself.
        """
        self._check_usable()
        now = time.monotonic()
        deadline = NEVER if timeout_seconds is None else now + timeout_seconds
        while True:
            self._turn(deadline, look_only=bool(self._events or self._woken or self._fatal))
            if self._events or self._woken:
                break
            if self._fatal is not None:
                raise self._fatal
            if time.monotonic() >= deadline:
                break
        self._woken = False
        events, self._events = self._events, []
        return events

    def wait_until_ready(self) -> None:
        """Wait until every worker has its handler attached, for at most the start limit; raises as `wait` does.

        Answers that come meanwhile stay for `wait`.
        """
        self._check_usable()
        while any(worker.state is State.STARTING or worker.pid is None for worker in self._set.workers):
            if self._fatal is not None:
                raise self._fatal
            self._turn(NEVER, look_only=False)

    def wake(self) -> None:
        """Make the `wait` that runs, or the next one, return. Any thread, at any time; also after close()."""
        self._wakeup.wake()

    def wake_on(self, wakeup: Wakeup) -> None:
        """Have the `wait` that comes next return when a wake-up of the caller's is given; once."""
        if wakeup not in self._wakes_on:
            this = weakref.proxy(self)
            self._set.watch(wakeup.readable, lambda mask: this._on_wake_of(wakeup))
            self._wakes_on.add(wakeup)

    def _on_wake_of(self, wakeup: Wakeup) -> None:
        self._set.unwatch(wakeup.readable)
        self._wakes_on.remove(wakeup)
        self._woken = True

    @property
    def failure(self) -> Exception | None:
        """Why this supervisor cannot go on: what `wait` raises once the answers that are here were taken."""
        return self._fatal

    def statistics(self) -> Statistics:
        """Counts, and who the workers are."""
        by_place = sorted(self._set.workers, key=lambda worker: worker.index)
        workers = tuple(WorkerStatistics(w.index, w.pid, w.state.name.lower(), len(w.tasks)) for w in by_place)
        in_flight = sum(worker.tasks_in_flight for worker in workers)
        return Statistics(
            self._last_serial,
            self._completed,
            self._failed,
            len(self._backlog),
            in_flight,
            self._staff.restarts,
            self._staff.recycles,
            self._spawner.starter.pid,
            workers,
        )

    def _check_usable(self) -> None:
        if self._is_closed:
            raise ClosedError("this supervisor is closed")
        if os.getpid() != self._owner_pid:
            raise UsageError(
                f"workers belong to process {self._owner_pid}, and a fork does not take them along to {os.getpid()}; "
                "make a new loader after the fork",
                owner_pid=self._owner_pid,
            )

    # ---- giving out

    def _turn(self, deadline: float, *, look_only: bool) -> None:
        self._set.turn(deadline, look_only=look_only)
        self._dispatch()

    def _on_wake(self, _: int) -> None:
        self._wakeup.clear()
        self._woken = True

    def _dispatch(self) -> None:
        while self._backlog and self._alone is None:
            worker = self._least_loaded()
            if worker is None:
                return
            if runs_alone(self._backlog[0].attempts, self._backlog[0].max_attempts):
                if any(busy.tasks for busy in self._set.workers):
                    return
                self._alone = self._backlog[0]
            self._set.give(worker, self._backlog.popleft())

    def _least_loaded(self) -> Worker | None:
        """Who gets the next task. A worker gets a second one only when there is one for each that is about to start."""
        best, least, starting = None, self._tasks_per_worker, 0
        for worker in self._set.workers:
            load = len(worker.tasks)
            if worker.state is State.STARTING:
                starting += 1
            elif load < least and (worker.state is State.IDLE or worker.state is State.BUSY):
                best, least = worker, load
        return None if least > 0 and len(self._backlog) <= starting else best

    # ---- what the worker set tells

    def on_ready(self, worker: Worker) -> None:
        """See `worker_set.Listener`, as for the three below."""
        self._staff.note_ready(worker)

    def on_answer(self, worker: Worker, task: Task, kind: int, body: bytes | bytearray) -> None:
        """A task was answered."""
        self._note_end_of(task)
        if kind != RESULT:
            self._fail(task, decode_error(body))
        else:
            self._complete(task, body)
        self._staff.note_answer(worker)

    def _complete(self, task: Task, body: bytes | bytearray) -> None:
        try:
            answer = Completed(task.task_id, decode(body), tuple(task.attempts))
        except Exception as error:  # noqa: BLE001 - the user's own __setstate__ may raise anything
            error.add_note(f"raised while the result of task {task.task_id} was unpickled")
            self._fail(task, error)
        else:
            self._completed += 1
            self._events.append(answer)

    def _note_end_of(self, task: Task) -> None:
        if task is self._alone:
            self._alone = None

    def _fail(self, task: Task, error: Exception) -> None:
        self._failed += 1
        self._events.append(Failed(task.task_id, error, tuple(task.attempts)))

    def on_fatal(self, error: Exception) -> None:
        """From now on `wait` raises this, when the answers that are here are taken."""
        self._fatal = self._fatal or error

    def on_end(self, worker: Worker, end: verdicts.End) -> None:
        """A worker was reaped: give its tasks to others and its place to a new one."""
        self._give_back(worker, end)
        self._staff.note_end(worker, end)
        self._keep_up()

    def _keep_up(self) -> None:
        if self._fatal is None:
            self._staff.keep_up(self._unanswered)

    def _give_back(self, worker: Worker, end: verdicts.End) -> None:
        """Put the tasks of a dead worker at the front again, or give up the one that it died of."""
        tasks, worker.tasks = worker.tasks, deque()
        progress = self._spawner.cells.read(worker.index)
        for task in tasks:
            self._note_end_of(task)
        if tasks and tasks[0].serial == progress.serial and (end.wait_status is not None or end.is_lost):
            ran = tasks[0]
            cause = end.hang.cause if end.hang else Cause.DIED
            ran.attempts.append(worker.attempt(cause, progress.count, end.stack))
            if is_poison(ran.attempts, ran.max_attempts):
                tasks.popleft()
                self._fail(ran, verdicts.task_failed(ran.task_id, ran.attempts, end))
        self._backlog.extendleft(reversed(tasks))

    # ---- the end

    def close(self) -> None:
        """End all workers and give back what they held; unanswered tasks are dropped. Blocks, with a limit; idempotent.

        Idle workers end in good order, busy ones get a short grace and then SIGKILL.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if os.getpid() != self._owner_pid:
            return  # a forked child: the sockets here are copies, and the workers are not its own
        try:
            self._set.end_all()
        finally:
            self._wakeup.close()
            self._set.release()

    def end_now(self) -> None:
        """Kill all workers and close, also where an interrupt left everything in disorder. Never raises."""
        for worker in list(self._set.workers):
            with contextlib.suppress(Exception):
                worker.kill()
        with contextlib.suppress(Exception):
            self.close()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
