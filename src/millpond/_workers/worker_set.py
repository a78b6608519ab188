"""All workers of a supervisor as processes: what comes from them, their limits, their ends. It knows no policy.

What a task's answer or a worker's end means is for the `Listener` to say, which is the supervisor.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from millpond._workers import verdicts
from millpond._workers.lifecycle import Event, State
from millpond._workers.messages import END, READY, UNUSABLE, Frame, decode_error, pack
from millpond._workers.spawner import Spawner
from millpond._workers.verdicts import NEVER, ProcessLimits
from millpond._workers.worker import Task, Worker
from millpond.errors import InternalError

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# The pidfd says at once that a worker is gone, and the zygote a moment later how; a stopped zygote never does.
_REPORT_SECONDS = 2.0
MOST_LOST = 8
"""Workers in state D that are replaced: storage that lets more of them hang will not come back for the next."""


class Listener(Protocol):
    """Who is told what happens; called from within `WorkerSet.turn`."""

    def on_answer(self, worker: Worker, task: Task, kind: int, body: bytes | bytearray) -> None:
        """A worker has answered a task, with RESULT or ERROR."""

    def on_ready(self, worker: Worker) -> None:
        """A worker can take tasks."""

    def on_end(self, worker: Worker, end: verdicts.End) -> None:
        """A worker was reaped; its unanswered tasks are still with it. Not called during `end_all`."""

    def on_fatal(self, error: Exception) -> None:
        """Something happened that makes going on pointless."""


class WorkerSet:
    """The workers that there are, each in its place; closed by `end_all`, then `release`.

    Args:
        spawner: Starts them.
        num_places: Most workers at once, not counting those that were lost.
        limits: For their coming and going.
        listener: Is told what happens.
    """

    def __init__(self, spawner: Spawner, num_places: int, limits: ProcessLimits, listener: Listener) -> None:
        self.workers: list[Worker] = []
        self._free_places = set(range(num_places + MOST_LOST))
        self._num_lost = 0
        self._spawner = spawner
        self._limits = limits
        self._listener = listener
        self._is_ending = False
        self._selector = selectors.DefaultSelector()

    def watch(self, descriptor: int, callback: Callable[[int], None]) -> None:
        """Have `callback` called in a turn in which the descriptor can be read."""
        self._selector.register(descriptor, _READ, callback)

    def unwatch(self, descriptor: int) -> None:
        """End that."""
        self._selector.unregister(descriptor)

    def spawn(self, handler: bytes | None = None) -> Worker:
        """Start a worker in a free place; `handler` is what it runs, if not what all run."""
        now = time.monotonic()
        place = min(self._free_places)
        worker = self._spawner.spawn(place, now, handler)
        self._free_places.remove(place)
        worker.due_at_seconds = now + self._limits.start_seconds
        self.workers.append(worker)
        self._selector.register(worker.channel, self._interest(worker), partial(self._on_channel, worker))
        self._selector.register(worker.report, _READ, partial(self._on_report, worker))
        return worker

    def drain(self, worker: Worker) -> None:
        """Have a worker end in good order when it has answered the tasks that it has; it gets no more."""
        worker.take(Event.DRAIN, time.monotonic())
        self._send(worker, pack(END))
        if not worker.tasks:
            self._watch_head(worker)

    def give(self, worker: Worker, task: Task) -> None:
        """Send a task to a worker that is idle or busy."""
        worker.take(Event.DISPATCHED, time.monotonic())
        worker.tasks.append(task)
        if len(worker.tasks) == 1:
            self._watch_head(worker)
        self._send(worker, task.frame())

    def turn(self, until_seconds: float, *, look_only: bool) -> None:
        """Handle everything that is here; if nothing is, wait for it until a limit or `until_seconds`, or only look."""
        due_at = min(until_seconds, min((worker.due_at_seconds for worker in self.workers), default=NEVER))
        if look_only:
            timeout: float | None = 0.0
        elif due_at == NEVER:
            timeout = None
        else:
            timeout = max(0.0, due_at - time.monotonic())
        self._select(timeout)
        now = time.monotonic()
        for worker in list(self.workers):
            if now >= worker.due_at_seconds:
                self._on_due(worker, now)

    def _select(self, timeout_seconds: float | None) -> None:
        for key, ready in self._selector.select(timeout_seconds):
            key.data(ready)

    def _interest(self, worker: Worker) -> int:
        return _READ | _WRITE if worker.wants_to_write else _READ

    def _send(self, worker: Worker, buffers: list[bytes]) -> None:
        worker.send(buffers)
        if worker.wants_to_write and worker.channel_is_open:
            self._selector.modify(worker.channel, _READ | _WRITE, partial(self._on_channel, worker))

    def _flush(self, worker: Worker) -> None:
        """Send the rest of a long task, which may have waited for this thread: its time runs from here."""
        is_of_later_task = bool(worker.tasks) and self._is_running(worker)  # asked now: a moment later it may run
        worker.flush()
        if worker.tasks and worker.state is State.BUSY and not is_of_later_task:
            self._watch_head(worker)

    def _is_running(self, worker: Worker) -> bool:
        """Whether it has begun with the task at its head."""
        return self._spawner.cells.read(worker.index).serial == worker.tasks[0].serial

    def _watch_head(self, worker: Worker) -> None:
        """A task came to the head of a worker's tasks, or none is left: time runs anew, or not at all."""
        worker.head_since_seconds = now = time.monotonic()
        if worker.tasks:
            worker.due_at_seconds = worker.tasks[0].limits.due_at(now, now, now, has_begun=False)
        else:
            worker.due_at_seconds = now + self._limits.grace_seconds if worker.state is State.DRAINING else NEVER

    # ---- what comes from workers

    def _on_channel(self, worker: Worker, ready: int) -> None:
        if worker.state in (State.DEAD, State.LOST):
            return  # it was buried earlier in this turn
        if ready & _WRITE:
            self._flush(worker)
            self._selector.modify(worker.channel, self._interest(worker), partial(self._on_channel, worker))
        if ready & _READ:
            self._take_frames(worker, worker.receive())
            if not worker.channel_is_open:
                self._on_channel_end(worker)

    def _on_channel_end(self, worker: Worker) -> None:
        self._selector.unregister(worker.channel)
        if worker.tasks or worker.state is not State.DRAINING:  # else it is on its way out, as it was asked
            self._kill(worker)  # without its socket it is of no use, if it is not dead already
        self._bury_if_gone(worker)

    def _take_frames(self, worker: Worker, frames: list[Frame]) -> None:
        for kind, serial, body in frames:
            if kind == READY:
                if worker.state is State.STARTING:
                    worker.due_at_seconds = NEVER
                worker.take(Event.READY, time.monotonic())
                self._listener.on_ready(worker)
            elif kind == UNUSABLE:
                self._listener.on_fatal(decode_error(body))
            else:
                self._listener.on_answer(worker, self._answered(worker, serial), kind, body)

    def _answered(self, worker: Worker, serial: int) -> Task:
        if not worker.tasks or worker.tasks[0].serial != serial:
            raise InternalError(f"worker {worker.index} answered task serial {serial}, which is not at its head")
        task = worker.tasks.popleft()
        worker.answered += 1
        worker.take(Event.FINISHED if worker.tasks else Event.EMPTIED, time.monotonic())
        if worker.state in (State.BUSY, State.IDLE, State.DRAINING):
            self._watch_head(worker)
        return task

    def _on_report(self, worker: Worker, _: int) -> None:
        if worker.state in (State.DEAD, State.LOST):
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
        if worker.state in (State.DEAD, State.LOST) or worker.pidfd is None:
            return
        worker.is_gone = True
        self._selector.unregister(worker.pidfd)
        self._kill(worker)
        worker.starter.resume()  # a zygote that is stopped reaps nobody
        worker.due_at_seconds = time.monotonic() + _REPORT_SECONDS
        self._bury_if_gone(worker)

    # ---- limits

    def _on_due(self, worker: Worker, now: float) -> None:
        if worker.is_gone:
            self._bury(worker)
        elif worker.state is State.STARTING:
            elapsed, doing = now - worker.since_seconds, worker.starter.doing()
            self._listener.on_fatal(verdicts.start_took_too_long(worker.index, self._limits, elapsed, doing))
            self._kill(worker)
        elif worker.tasks and worker.state in (State.BUSY, State.DRAINING):
            self._judge(worker)
        elif worker.state is State.KILLED:
            self._lose(worker)
        else:  # hung, and not dead of the dump; or draining, and not at an end
            self._kill(worker)

    def _judge(self, worker: Worker) -> None:
        self._take_frames(worker, worker.receive_all())  # an answer may be here, if this thread was late
        if not worker.tasks or worker.state not in (State.BUSY, State.DRAINING):
            return
        now = time.monotonic()
        before, worker.sent_when_judged = worker.sent_when_judged, worker.sent_bytes
        if worker.sent_bytes is not None and worker.sent_bytes != before:
            # It is sending an answer, which takes as long as this thread lets it wait. Once more, if it has stopped.
            self._watch_head(worker)
            worker.due_at_seconds = now + worker.tasks[0].limits.timeout_seconds
            return
        progress = self._spawner.cells.read(worker.index)
        is_running = progress.serial == worker.tasks[0].serial
        since = worker.head_since_seconds
        progress_at = progress.at_seconds if is_running else since
        has_begun = is_running and progress.count > 0
        limits = worker.tasks[0].limits
        worker.hang = limits.judge(since, progress_at, now, has_begun=has_begun)
        if worker.hang is None:
            worker.due_at_seconds = limits.due_at(since, progress_at, now, has_begun=has_begun)
            return
        late_seconds = now - worker.due_at_seconds
        seen = progress.serial, progress.count
        if worker.hang.is_doubtful(late_seconds) and worker.doubted != seen:
            # not longer than the limit: if that is short, the next standstill may come first, and the one after that
            worker.due_at_seconds = now + min(late_seconds, worker.hang.limit_seconds)
            worker.doubted, worker.hang = seen, None
            return
        worker.take(Event.OVER_LIMIT, now)
        worker.ask_for_stack()
        worker.due_at_seconds = now + self._limits.dump_seconds

    # ---- ends

    def _kill(self, worker: Worker) -> None:
        worker.kill()
        if worker.state not in (State.KILLED, State.LOST, State.DEAD):
            now = time.monotonic()
            worker.take(Event.KILL, now)
            worker.due_at_seconds = now + self._limits.reap_seconds

    def _bury_if_gone(self, worker: Worker) -> None:
        # With the zygote gone nobody reports. Then the pidfd tells, or, without one, the end of the task socket: the
        # kernel takes a process's memory before its descriptors.
        is_gone = worker.is_gone if worker.pidfd is not None else not worker.channel_is_open
        if worker.is_reaped or (is_gone and not worker.report_is_open):
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """It can write nothing any more: take its last answers, and tell."""
        self._let_go(worker, Event.REAPED)
        self._free_places.add(worker.index)
        if not self._is_ending:
            self._listener.on_end(worker, self._end_of(worker))

    def _lose(self, worker: Worker) -> None:
        """It does not die of SIGKILL; its place is given to nobody."""
        self._let_go(worker, Event.UNREAPABLE)
        self._num_lost += 1
        if self._num_lost > MOST_LOST:
            self._listener.on_fatal(verdicts.too_many_lost(self._num_lost, worker.pid, self._limits))
        self._listener.on_end(worker, self._end_of(worker))

    def _let_go(self, worker: Worker, event: Event) -> None:
        self._take_frames(worker, worker.receive_all())
        worker.take(event, time.monotonic())
        worker.due_at_seconds = NEVER
        for descriptor in (worker.channel, worker.report, worker.pidfd):
            if descriptor is not None and descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)
        worker.close()
        self.workers.remove(worker)

    def _end_of(self, worker: Worker) -> verdicts.End:
        return verdicts.End(
            worker.index,
            worker.pid,
            worker.wait_status,
            worker.hang,
            stack=self._spawner.read_stack(worker.index),
            start_errno=worker.start_errno,
            oom_kills=worker.new_oom_kills(),
            is_lost=worker.state is State.LOST,
        )

    def end_all(self) -> None:
        """Ask all workers to end, kill those that do not, and wait until they are gone; for a bounded time."""
        self._is_ending = True
        self._spawner.starter.resume()
        for worker in self.workers:
            self._spawner.cells.ask_to_stop(worker.index)
            if worker.state in (State.STARTING, State.IDLE, State.BUSY):
                worker.take(Event.DRAIN, time.monotonic())
                self._send(worker, pack(END))
        self._select_until_dead(self._limits.grace_seconds)
        for worker in self.workers:
            self._kill(worker)
        self._select_until_dead(self._limits.reap_seconds)

    def _select_until_dead(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(_can_be_awaited(worker) for worker in self.workers):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            self._select(remaining)

    def release(self) -> None:
        """Give every descriptor back; a worker that is not dead is killed and not waited for."""
        for worker in self.workers:
            worker.kill()
            worker.close()
        self.workers = []
        self._selector.close()
        self._spawner.close()


def _can_be_awaited(worker: Worker) -> bool:
    # One that the zygote has not forked yet, because it is still importing, has no pid to be killed by. It will find
    # its socket closed, and end.
    return worker.pid is not None or worker.state is State.DRAINING
