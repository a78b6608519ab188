"""One worker as its supervisor holds it: sockets, sentinel, state, tasks. Never blocks."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from millpond._cgroups import ControlGroups
from millpond._workers.child import DUMP_SIGNAL
from millpond._workers.descriptors import receive_descriptors
from millpond._workers.lifecycle import Attempt, Cause, Event, State, next_state
from millpond._workers.messages import TASK, Frame, Inbox, pack
from millpond._workers.starter import Spawned, Starter
from millpond._workers.verdicts import NEVER, Hang, TaskLimits
from millpond._workers.zygote_process import EXITED, FORKED, REPORT, STARTED


@dataclass(slots=True)
class Task:
    """A task from submit to its answer. `serial` is unique in its supervisor and grows; 0 is no task.

    `seat` is of the worker that it is for, where that matters.
    """

    task_id: int
    serial: int
    body: bytes
    limits: TaskLimits
    max_attempts: int
    seat: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def frame(self) -> list[bytes]:
        """What is sent to a worker."""
        return pack(TASK, self.serial, self.body)


class Worker:
    """The supervisor's end of one worker process, from the request for it until it is reaped.

    Args:
        index: Its place among the workers, which is another's once it is reaped.
        spawned: Owned from now on.
        starter: That starts it.
        now_seconds: On the clock of time.monotonic(), as all times here.
    """

    def __init__(self, index: int, spawned: Spawned, starter: Starter, now_seconds: float) -> None:
        self.index = index
        self.seat = 0  # what it is for, where workers differ
        self.starter = starter
        self.channel = spawned.channel
        self.report = spawned.report
        self.state = State.STARTING
        self.since_seconds = now_seconds  # when it came into its state
        self.head_since_seconds = now_seconds  # when it got the task at its head
        self.due_at_seconds = NEVER  # when the supervisor must look at it
        self.answered = 0  # tasks
        self.tasks: deque[Task] = deque()  # in the order they were sent; the first is the one it runs or will run next
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.wait_status: int | None = None
        self.start_errno: int | None = None
        self.hang: Hang | None = None
        self.doubted: tuple[int, int] | None = None  # (serial, progress) when a stall was not believed
        self.sent_when_judged: int | None = None  # see `sent_bytes`
        self.was_ready = False
        self.is_unwanted = False  # it is killed for what it does, which nobody waits for any more
        self.is_gone = False  # its pidfd says so
        self.channel_is_open = True
        self.report_is_open = True
        self.wants_to_write = False
        self._signals_go_by_pidfd = False
        self._oom_kills_before = ControlGroups().oom_kills()
        self._inbox = Inbox(self.channel)
        self._outbox: deque[memoryview] = deque()

    def take(self, event: Event, now_seconds: float) -> None:
        """Go to the next state."""
        state = next_state(self.state, event)
        if event is Event.READY:
            self.was_ready = True
        if state is not self.state:
            self.state, self.since_seconds = state, now_seconds

    def send(self, buffers: Sequence[bytes]) -> None:
        """Send now what the socket takes, and the rest from `flush`."""
        self._outbox.extend(memoryview(buffer) for buffer in buffers)
        if not self.wants_to_write:
            self.flush()

    def flush(self) -> None:
        """Send more of what waits; `wants_to_write` says whether anything still does."""
        try:
            while self._outbox:
                buffer = self._outbox[0]
                sent = self.channel.send(buffer)
                if sent < len(buffer):
                    self._outbox[0] = buffer[sent:]
                else:
                    self._outbox.popleft()
            self.wants_to_write = False
        except BlockingIOError:
            self.wants_to_write = True
        except OSError:  # it is dying: its sentinel will tell, and its tasks will be given to another
            self._outbox.clear()
            self.wants_to_write = False

    def receive(self) -> list[Frame]:
        """Frames that are here and complete; `channel_is_open` becomes False at the socket's end."""
        try:
            return self._inbox.receive()
        except BlockingIOError:
            return []
        except (EOFError, OSError):
            self.channel_is_open = False
            return []

    def receive_all(self) -> list[Frame]:
        """Everything that a dead worker has sent, or all that has come so far of a live one."""
        frames = []
        while self.channel_is_open:
            try:
                frames += self._inbox.receive()
            except BlockingIOError:
                break
            except (EOFError, OSError):
                self.channel_is_open = False
        return frames

    @property
    def sent_bytes(self) -> int | None:
        """What has come of it so far, if that ends amid a frame; None else."""
        return self._inbox.received_bytes if self._inbox.is_amid_frame else None

    def read_report(self) -> None:
        """Take in what the zygote told: the pid, the end. `report_is_open` becomes False when no more will come."""
        with contextlib.suppress(BlockingIOError):
            while self.report_is_open:
                data, descriptors = self._receive_report()
                if not data:
                    self.report_is_open = False
                    return
                kind, value = REPORT.unpack(data)
                if kind in (FORKED, STARTED):
                    self.pid = value
                    self._signals_go_by_pidfd = kind == FORKED and sys.platform == "linux"
                    self.pidfd = descriptors[0] if descriptors else None
                elif kind == EXITED:
                    self.wait_status = value
                else:
                    self.start_errno = value

    def _receive_report(self) -> tuple[bytes, list[int]]:
        try:
            return receive_descriptors(self.report, REPORT.size)
        except BlockingIOError:
            raise
        except OSError:
            return b"", []

    @property
    def is_reaped(self) -> bool:
        """Whether the zygote said so."""
        return self.wait_status is not None or self.start_errno is not None

    def attempt(self, cause: Cause, progress_count: int, stack: str) -> Attempt:
        """What is to be remembered of the task at its head, which it has not survived."""
        return Attempt(
            cause, progress_count, stack, self.index, self.pid or 0, self.head_since_seconds, time.monotonic()
        )

    def new_oom_kills(self) -> int | None:
        """How often the kernel has killed in this cgroup since the worker was asked for; None if it is unknown."""
        now = ControlGroups().oom_kills()
        return None if now is None or self._oom_kills_before is None else now - self._oom_kills_before

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def ask_for_stack(self) -> None:
        """Have it write its Python stack to its dump file and die of that; in C with the GIL held, and stopped, too."""
        self._signal(DUMP_SIGNAL)
        self._signal(signal.SIGCONT)  # second: a stopped one must find the other waiting when it goes on

    def _signal(self, number: int) -> None:
        if self.pid is None or self.is_reaped:
            return
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd is not None and self._signals_go_by_pidfd and sys.platform == "linux":
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                os.kill(self.pid, number)

    def close(self) -> None:
        """Close this end's descriptors."""
        self.channel.close()
        self.report.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        self.channel_is_open = self.report_is_open = False
