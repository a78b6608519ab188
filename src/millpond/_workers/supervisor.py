"""The supervisor: gives tasks to workers, and survives whatever they do.

One thread drives it (`submit`, `wait`); `wake` is for any thread. `wait` waits at once for answers, for wake-ups, for
the ends of workers, and for the next limit that could pass; it never polls.

Rules:
    A worker's answers count up to its last byte: they are read before its death is judged.
    A task is given again only after its worker was reaped, so that nothing stale is written.
    Only the task that ran is blamed for a death, not those that were waiting behind it (the worker's cell tells).
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from millpond._workers import verdicts
from millpond._workers.cells import Cells, cells_bytes
from millpond._workers.descriptors import anonymous_file, close_all
from millpond._workers.lifecycle import Attempt, Cause, Event, State, is_poison
from millpond._workers.messages import (
    END,
    READY,
    RESULT,
    START,
    UNUSABLE,
    Frame,
    Start,
    decode,
    decode_error,
    encode,
    pack,
)
from millpond._workers.verdicts import NEVER, Limits
from millpond._workers.worker import Task, Worker
from millpond._workers.zygote import absolute_sys_path, discard, has_pidfd, zygote_for
from millpond.errors import ClosedError, InternalError, UsageError, WorkerDied

logger = logging.getLogger("millpond")

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_DUMP_BYTES = 65536
# The pidfd says that a worker is gone at once, the zygote how it went a moment later; a stopped zygote never does.
_REPORT_SECONDS = 2.0
_MAX_FAILED_STARTS = 3


@dataclass(frozen=True, slots=True)
class Completed:
    """A task's result."""

    task_id: int
    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A task's exception: the handler's own, or WorkerDied or DecodeTimeout when it was given up."""

    task_id: int
    error: Exception


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """One worker at one moment; `pid` is None until the zygote told it."""

    index: int
    pid: int | None
    state: str
    tasks_in_flight: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """A supervisor at one moment. tasks_submitted = completed + failed + waiting + in flight."""

    tasks_submitted: int
    tasks_completed: int
    tasks_failed: int
    tasks_waiting: int
    tasks_in_flight: int
    restarts: int
    zygote_pid: int
    workers: tuple[WorkerStatistics, ...]


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
        task_timeout_seconds: For one task.
        stall_timeout_seconds: Between two calls of progress(); None: no such limit.
        max_restarts: Replacements over the supervisor's life; when they are used up, `wait` raises.
        start_timeout_seconds: For a worker to become ready.
        use_pidfd: None: where there are pidfds; False is the fallback of other platforms, for tests.
    """

    def __init__(
        self,
        handler: bytes,
        *,
        num_workers: int,
        descriptors: Sequence[int] = (),
        preload: tuple[str, ...] = (),
        tasks_in_flight_per_worker: int = 2,
        task_timeout_seconds: float = 300.0,
        stall_timeout_seconds: float | None = None,
        max_restarts: int = 100,
        start_timeout_seconds: float = 30.0,
        use_pidfd: bool | None = None,
    ) -> None:
        if num_workers < 1 or tasks_in_flight_per_worker < 1:
            raise ValueError(f"need at least 1 worker and 1 task each, not {num_workers}, {tasks_in_flight_per_worker}")
        self._limits = Limits(task_timeout_seconds, stall_timeout_seconds, start_timeout_seconds)
        self._handler = handler
        self._num_workers = num_workers
        self._tasks_per_worker = tasks_in_flight_per_worker
        self._max_restarts = max_restarts
        self._use_pidfd = has_pidfd() if use_pidfd is None else use_pidfd
        self._preload = preload
        self._handler_descriptors = tuple(descriptors)
        self._owner_pid = os.getpid()

        self._backlog: deque[Task] = deque()
        self._events: list[Completed | Failed] = []
        self._fatal: Exception | None = None
        self._last_serial = 0
        self._completed = self._failed = self._restarts = self._failed_starts = 0

        self._is_closed = False
        self._woken = False
        self._wake_lock = threading.RLock()  # a finalizer may call wake() in the middle of wake()
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._files: list[int] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._wake_read, self._wake_write = os.pipe()
        self._files += [self._wake_read, self._wake_write]
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._selector.register(self._wake_read, _READ, self._on_wake)
        self._cells_file = anonymous_file("millpond-cells", cells_bytes(self._num_workers), use_memfd=self._use_pidfd)
        self._files.append(self._cells_file)
        self._cells = Cells(self._cells_file, self._num_workers)
        self._dump_files = []
        for _ in range(self._num_workers):
            self._dump_files.append(anonymous_file("millpond-stack", 0, use_memfd=self._use_pidfd))
            self._files.append(self._dump_files[-1])
        self._zygote = zygote_for(self._preload, use_pidfd=self._use_pidfd)
        for index in range(self._num_workers):
            self._workers.append(self._spawn(index))

    # ---- the driver's calls

    @property
    def capacity(self) -> int:
        """How many more tasks are wanted now; submitting more is allowed, they wait here."""
        return max(0, self._num_workers * self._tasks_per_worker - self._unanswered)

    @property
    def _unanswered(self) -> int:
        return len(self._backlog) + sum(len(worker.tasks) for worker in self._workers)

    def submit(self, task_id: int, payload: object) -> None:
        """Have a task carried out, exactly one Completed or Failed of which will come from `wait`. Does not block.

        Args:
            task_id: Comes back with the answer; any number.
            payload: Pickled now, by value where it comes from `__main__`.
        """
        self._check_usable()
        self._last_serial += 1
        self._backlog.append(Task(task_id, self._last_serial, encode(payload)))
        self._dispatch()

    def wait(self, timeout_seconds: float | None = None) -> list[Completed | Failed]:
        """Wait until at least one answer is here, `wake` was called, or the time is up; what is here, possibly nothing.

        Raises:
            ClosedError: After close() or millpond.shutdown().
            UsageError: In a forked child.
            WorkerDied: The restart budget is used up, workers die at their start, or one cannot be killed.
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
        while any(worker.state is State.STARTING or worker.pid is None for worker in self._workers):
            if self._fatal is not None:
                raise self._fatal
            self._turn(NEVER, look_only=False)

    def wake(self) -> None:
        """Make the `wait` that runs, or the next one, return. Any thread, at any time; also after close()."""
        if os.getpid() != self._owner_pid:
            return  # a forked child runs finalizers, too; the lock may have been held at the fork
        with self._wake_lock, contextlib.suppress(BlockingIOError):  # full: it will wake without this byte
            if not self._is_closed:
                os.write(self._wake_write, b"\0")

    def statistics(self) -> Statistics:
        """Counts, and who the workers are."""
        workers = tuple(WorkerStatistics(w.index, w.pid, w.state.name.lower(), len(w.tasks)) for w in self._workers)
        in_flight = sum(worker.tasks_in_flight for worker in workers)
        return Statistics(
            self._last_serial,
            self._completed,
            self._failed,
            len(self._backlog),
            in_flight,
            self._restarts,
            self._zygote.pid,
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

    # ---- one turn

    def _turn(self, deadline: float, *, look_only: bool) -> None:
        """Handle everything that is here; if nothing is, wait for it until a limit or `deadline`, or only look."""
        due_at = min(deadline, min((worker.due_at_seconds for worker in self._workers), default=NEVER))
        if look_only:
            timeout: float | None = 0.0
        elif due_at == NEVER:
            timeout = None
        else:
            timeout = max(0.0, due_at - time.monotonic())
        for key, ready in self._selector.select(timeout):
            key.data(ready)
        now = time.monotonic()
        for worker in list(self._workers):
            if now >= worker.due_at_seconds:
                self._on_due(worker, now)
        self._dispatch()

    def _on_wake(self, _: int) -> None:
        os.read(self._wake_read, 4096)
        self._woken = True

    def _dispatch(self) -> None:
        while self._backlog:
            worker = self._least_loaded()
            if worker is None:
                return
            task = self._backlog.popleft()
            worker.take(Event.DISPATCHED, time.monotonic())
            worker.tasks.append(task)
            if len(worker.tasks) == 1:
                self._watch_head(worker)
            self._send(worker, task.frame())

    def _least_loaded(self) -> Worker | None:
        """Who gets the next task. A worker gets a second one only when there is one for each that is about to start."""
        best, least, starting = None, self._tasks_per_worker, 0
        for worker in self._workers:
            load = len(worker.tasks)
            if worker.state is State.STARTING:
                starting += 1
            elif load < least and (worker.state is State.IDLE or worker.state is State.BUSY):
                best, least = worker, load
        return None if least > 0 and len(self._backlog) <= starting else best

    def _watch_head(self, worker: Worker) -> None:
        """A task came to the head of a worker's tasks: its time runs."""
        worker.since_seconds = now = time.monotonic()
        worker.due_at_seconds = self._limits.task_due_at(now, now) if worker.tasks else NEVER

    def _send(self, worker: Worker, buffers: list[bytes]) -> None:
        worker.send(buffers)
        if worker.wants_to_write:
            self._selector.modify(worker.channel, _READ | _WRITE, partial(self._on_channel, worker))

    # ---- what comes from workers

    def _on_channel(self, worker: Worker, ready: int) -> None:
        if worker.state is State.DEAD:
            return  # it was buried earlier in this turn
        if ready & _WRITE:
            worker.flush()
            if not worker.wants_to_write:
                self._selector.modify(worker.channel, _READ, partial(self._on_channel, worker))
        if ready & _READ:
            self._take_frames(worker, worker.receive())
            if not worker.channel_is_open:
                self._selector.unregister(worker.channel)
                self._kill(worker)  # without its socket it is of no use, if it is not dead already
                self._bury_if_gone(worker)

    def _take_frames(self, worker: Worker, frames: list[Frame]) -> None:
        for kind, serial, body in frames:
            if kind == READY:
                self._failed_starts = 0
                worker.due_at_seconds = NEVER if worker.state is State.STARTING else worker.due_at_seconds
                worker.take(Event.READY, time.monotonic())
            elif kind == UNUSABLE:
                self._fatal = self._fatal or decode_error(body)
            else:
                self._answer(worker, kind, serial, body)

    def _answer(self, worker: Worker, kind: int, serial: int, body: bytes | bytearray) -> None:
        if not worker.tasks or worker.tasks[0].serial != serial:
            raise InternalError(f"worker {worker.index} answered task serial {serial}, which is not at its head")
        task = worker.tasks.popleft()
        worker.take(Event.FINISHED if worker.tasks else Event.EMPTIED, time.monotonic())
        if worker.state is State.BUSY or worker.state is State.IDLE:
            self._watch_head(worker)
        if kind == RESULT:
            try:
                self._events.append(Completed(task.task_id, decode(body)))
                self._completed += 1
                return
            except Exception as error:  # noqa: BLE001 - the user's own __setstate__ may raise anything
                error.add_note(f"raised while the result of task {task.task_id} was unpickled")
                self._fail(task, error)
        else:
            self._fail(task, decode_error(body))

    def _fail(self, task: Task, error: Exception) -> None:
        self._failed += 1
        self._events.append(Failed(task.task_id, error))

    def _on_report(self, worker: Worker, _: int) -> None:
        if worker.state is State.DEAD:
            return
        had_pidfd = worker.pidfd is not None
        worker.read_report()
        if worker.pidfd is not None and not had_pidfd:
            self._selector.register(worker.pidfd, _READ, partial(self._on_sentinel, worker))
        if not worker.report_is_open:
            self._selector.unregister(worker.report)
            if not worker.is_reaped:
                self._kill(worker)  # the zygote is dead; where the kernel does not end its workers for it, this does
        self._bury_if_gone(worker)

    def _on_sentinel(self, worker: Worker, _: int) -> None:
        if worker.state is State.DEAD or worker.pidfd is None:
            return
        worker.is_gone = True
        self._selector.unregister(worker.pidfd)
        self._kill(worker)
        worker.due_at_seconds = time.monotonic() + _REPORT_SECONDS
        self._bury_if_gone(worker)

    # ---- limits

    def _on_due(self, worker: Worker, now: float) -> None:
        if worker.is_gone:
            self._bury(worker)
        elif worker.state is State.STARTING:
            elapsed = now - worker.since_seconds
            doing = worker.zygote.doing()
            self._fatal = self._fatal or verdicts.start_took_too_long(worker.index, self._limits, elapsed, doing)
            self._kill(worker)
        elif worker.state is State.BUSY:
            self._judge(worker)
        elif worker.state is State.KILLED:
            worker.take(Event.UNREAPABLE, now)
            worker.due_at_seconds = NEVER
            self._fatal = self._fatal or verdicts.will_not_die(worker.index, worker.pid, self._limits)
        else:  # hung and not dead of the dump, or draining for too long
            self._kill(worker)

    def _judge(self, worker: Worker) -> None:
        self._take_frames(worker, worker.receive_all())  # an answer may be here, if this thread was late
        if worker.state is not State.BUSY:
            return
        now = time.monotonic()
        progress = self._cells.read(worker.index)
        is_running = progress.serial == worker.tasks[0].serial
        progress_at = progress.at_seconds if is_running else worker.since_seconds
        hang = self._limits.judge(worker.since_seconds, progress_at, now)
        if hang is None:
            worker.due_at_seconds = self._limits.task_due_at(worker.since_seconds, progress_at)
            return
        worker.hang = hang
        worker.take(Event.OVER_LIMIT, now)
        worker.ask_for_stack()
        worker.due_at_seconds = now + self._limits.dump_seconds

    def _kill(self, worker: Worker) -> None:
        worker.kill()
        if worker.state not in (State.KILLED, State.LOST, State.DEAD):
            now = time.monotonic()
            worker.take(Event.KILL, now)
            worker.due_at_seconds = now + self._limits.reap_seconds

    # ---- the end of a worker, and its successor

    def _bury_if_gone(self, worker: Worker) -> None:
        # With the zygote gone nobody reports; the task socket's end then tells that the process has none of it open.
        if worker.is_reaped or not (worker.report_is_open or worker.channel_is_open):
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """It can write nothing any more: take its last answers, give its tasks to others, its place to a new one."""
        self._take_frames(worker, worker.receive_all())
        was_starting = not worker.was_ready
        worker.take(Event.REAPED, time.monotonic())
        worker.due_at_seconds = NEVER
        self._unregister(worker)
        stack = self._read_stack(worker)
        end = verdicts.End(worker.index, worker.pid, worker.wait_status, worker.hang, stack, worker.start_errno)
        worker.close()
        if self._is_closed:
            return
        self._give_back(worker, end)
        self._replace(worker, end, was_starting=was_starting)

    def _unregister(self, worker: Worker) -> None:
        for descriptor in (worker.channel, worker.report, worker.pidfd):
            if descriptor is not None and descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)

    def _read_stack(self, worker: Worker) -> str:
        return os.pread(self._dump_files[worker.index], _DUMP_BYTES, 0).decode(errors="replace")

    def _give_back(self, worker: Worker, end: verdicts.End) -> None:
        """Put the tasks of a dead worker at the front again, or give up the one that it died of."""
        tasks, worker.tasks = worker.tasks, deque()
        progress = self._cells.read(worker.index)
        if tasks and tasks[0].serial == progress.serial and worker.wait_status is not None:
            ran = tasks[0]
            ran.attempts.append(Attempt(end.hang.cause if end.hang else Cause.DIED, progress.count))
            if is_poison(ran.attempts):
                tasks.popleft()
                self._fail(ran, verdicts.task_failed(ran.task_id, ran.attempts, end))
        self._backlog.extendleft(reversed(tasks))

    def _replace(self, worker: Worker, end: verdicts.End, *, was_starting: bool) -> None:
        self._restarts += 1
        self._failed_starts = self._failed_starts + 1 if was_starting else 0
        failure = worker.zygote.failure() if was_starting else None
        if failure is not None:
            self._fatal = self._fatal or failure
            discard(worker.zygote)
        elif worker.zygote.was_shut_down:
            self._fatal = self._fatal or ClosedError("millpond.shutdown() has ended the worker processes")
        elif self._restarts > self._max_restarts:
            self._fatal = self._fatal or verdicts.too_many_restarts(self._restarts, self._max_restarts, end)
        elif self._failed_starts >= _MAX_FAILED_STARTS:
            self._fatal = self._fatal or verdicts.dies_at_start(self._failed_starts, end)
        if self._fatal is None:
            logger.warning("worker %d (pid %s) %s; it is replaced", end.worker_index, end.pid, end.in_words())
            self._workers[worker.index] = self._spawn(worker.index)

    def _spawn(self, index: int) -> Worker:
        self._cells.clear(index)
        dump_file = self._dump_files[index]
        os.ftruncate(dump_file, 0)
        os.lseek(dump_file, 0, os.SEEK_SET)  # the offset is shared with the worker
        descriptors = [dump_file, self._cells_file, *self._handler_descriptors]
        try:
            spawned = self._zygote.spawn(descriptors)
        except WorkerDied:
            self._zygote = zygote_for(self._preload, use_pidfd=self._use_pidfd)
            spawned = self._zygote.spawn(descriptors)
        now = time.monotonic()
        worker = Worker(index, spawned, self._zygote, now)
        worker.due_at_seconds = now + self._limits.start_timeout_seconds
        self._selector.register(worker.channel, _READ, partial(self._on_channel, worker))
        self._selector.register(worker.report, _READ, partial(self._on_report, worker))
        self._send(worker, pack(START, 0, encode(self._start_message(index))))
        return worker

    def _start_message(self, index: int) -> Start:
        try:
            directory: str | None = os.getcwd()
        except FileNotFoundError:
            directory = None
        environment = dict(os.environ)
        return Start(index, self._num_workers, self._handler, absolute_sys_path(), directory, environment)

    # ---- the end

    def close(self) -> None:
        """End all workers and give back what they held; unanswered tasks are dropped. Blocks, with a limit; idempotent.

        Idle workers end in good order, busy ones get a short grace and then SIGKILL.
        """
        if os.getpid() != self._owner_pid:
            self._is_closed = True  # a forked child: the sockets here are copies, and the workers are not its own
            return
        with self._wake_lock:
            if self._is_closed:
                return
            self._is_closed = True
        try:
            self._end_workers()
        finally:
            self._release()

    def _end_workers(self) -> None:
        for worker in self._workers:
            self._cells.ask_to_stop(worker.index)
            if worker.state in (State.STARTING, State.IDLE, State.BUSY):
                worker.take(Event.DRAIN, time.monotonic())
                worker.due_at_seconds = NEVER
                self._send(worker, pack(END))
        self._step_until_dead(self._limits.grace_seconds)
        for worker in self._workers:
            if worker.state is not State.DEAD:
                self._kill(worker)
        self._step_until_dead(self._limits.reap_seconds)

    def _step_until_dead(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        # One that was not forked yet (the zygote is still importing) has no pid: it finds its socket closed, and ends.
        while any(
            w.state is not State.DEAD and (w.pid is not None or w.state is State.DRAINING) for w in self._workers
        ):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            for key, ready in self._selector.select(remaining):
                key.data(ready)

    def _release(self) -> None:
        for worker in self._workers:
            if worker.state is not State.DEAD:
                worker.kill()
                worker.close()
        self._selector.close()
        if hasattr(self, "_cells"):
            self._cells.close()
        with self._wake_lock:
            close_all(self._files)
        self._workers, self._files = [], []

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
