"""Workers as processes of multiprocessing, for who asks for a start method of its: fork, forkserver or spawn.

What the start method means is kept: a fork has all that the training process has, spawn and forkserver import its main
module. The rest is as with a zygote. There is no thread here: when a supervisor sees that a worker is gone, it asks for
the report (`resume`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import (
    connection,  # noqa: F401 - multiprocessing imports it when it first waits, and then there may be no descriptor left
    forkserver,
    util,
)
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from millpond._workers.context_child import Passed, main
from millpond._workers.descriptors import close_all, send_descriptors
from millpond._workers.starter import Spawned
from millpond._workers.zygote import at_shutdown, has_pidfd
from millpond._workers.zygote_process import EXITED, FORKED, REPORT, STARTED, kill_group
from millpond.errors import ClosedError

_STATUS_SECONDS = 1.0
"""For a process that is gone until its status is known here; a forkserver tells it within milliseconds."""
_END_SECONDS = 5.0
_UNKNOWN_CODE = 255
"""What multiprocessing takes for the exit code of a process whose fork server has died."""


@dataclass(eq=False, slots=True)
class _Started:
    """A process, from its start until it is reaped.

    Attributes:
        pid: Of it.
        sentinel: Can be read when it is gone; `is_pidfd` says whether signals go by it.
        report: The end of its report socket that the supervisor has.
        told: The other end, which is written to here.
        lifeline: When this end is closed, the process is killed.
    """

    process: BaseProcess
    pid: int
    sentinel: int
    is_pidfd: bool
    report: weakref.ref[socket.socket]
    told: socket.socket
    lifeline: int

    @property
    def is_let_go(self) -> bool:
        """Whether the supervisor has closed its end. (A hang-up would tell later: the child begins with copies.)"""
        report = self.report()
        return report is None or report.fileno() < 0

    def report_start(self) -> None:
        kind = FORKED if self.is_pidfd else STARTED
        with contextlib.suppress(OSError):
            send_descriptors(self.told, REPORT.pack(kind, self.pid), [self.sentinel])

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.is_pidfd and sys.platform == "linux":
                signal.pidfd_send_signal(self.sentinel, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)

    def bury(self) -> None:
        """It is gone: reap it, kill what it started, report how it ended."""
        try:
            kill_group(self.pid)  # no other group gets this number as long as there is anybody in this one
            self._report_end()
        finally:
            self.let_go()

    def _report_end(self) -> None:
        self.process.join(_STATUS_SECONDS)
        code = self.process.exitcode
        if code is None:  # somebody else has reaped it, or nobody is to: SIGCHLD is ignored
            popen: Any = self.process._popen  # type: ignore[attr-defined]
            popen.returncode = code = _UNKNOWN_CODE
        with contextlib.suppress(OSError):
            self.told.send(REPORT.pack(EXITED, -code if code < 0 else code << 8))
        self.process.close()

    def let_go(self) -> None:
        """Close what belongs to it here."""
        self.told.close()
        close_all([self.sentinel, self.lifeline])


class ContextStarter:
    """Starts workers by a context of multiprocessing; a `Starter`.

    Only its own process may use it; a forked child of that forgets it.

    Args:
        context: Whose start method is used.
        use_pidfd: None: where the platform has pidfds. False is the fallback of other platforms, for tests.
    """

    pid = None

    def __init__(self, context: BaseContext, *, use_pidfd: bool | None = None) -> None:
        self.was_shut_down = False
        self._context = context
        self._use_pidfd = has_pidfd() if use_pidfd is None else use_pidfd
        self._lock = threading.RLock()
        self._started: list[_Started] = []
        _all_starters.add(self)

    def spawn(self, descriptors: list[int]) -> Spawned:
        """See `Starter`. A fork server that does not run yet is waited for, as multiprocessing does.

        Raises:
            AssertionError: This is a daemonic process of multiprocessing, which may have no children.
            OSError: No process or descriptor is to be had.
            ClosedError: It was shut down.
        """
        for starter in list(_at_work):
            starter.tidy_up()
        with self._lock, contextlib.ExitStack() as theirs, contextlib.ExitStack() as undo:
            if self.was_shut_down:
                raise ClosedError("millpond.shutdown() has ended the worker processes; make a new loader or guard")
            channel, their_channel = socket.socketpair()
            theirs.enter_context(their_channel)
            report, told = socket.socketpair()
            for ours in (channel, report, told):
                undo.enter_context(ours)
                _sockets.add(ours)
            hangs_up, lifeline = os.pipe()
            theirs.callback(os.close, hangs_up)
            undo.callback(close_all, [lifeline])
            _lifelines.add(lifeline)
            undo.callback(_lifelines.discard, lifeline)
            parent = os.pidfd_open(os.getpid()) if self._use_pidfd else os.dup(hangs_up)
            theirs.callback(os.close, parent)
            process = self._start([hangs_up, parent, their_channel.fileno(), *descriptors])
            try:
                sentinel, is_pidfd = self._sentinel_of(process)
            except BaseException:
                process.kill()
                process.join()
                process.close()
                raise
            started = _Started(process, process.pid or 0, sentinel, is_pidfd, weakref.ref(report), told, lifeline)
            self._started.append(started)
            _at_work.add(self)
            undo.pop_all()
        started.report_start()
        channel.setblocking(False)
        report.setblocking(False)
        return Spawned(channel, report)

    def _start(self, descriptors: list[int]) -> BaseProcess:
        is_forked = self._context.get_start_method() == "fork"
        process: BaseProcess = self._context.Process(  # type: ignore[attr-defined] # every context has it
            target=main,
            args=(Passed(descriptors),),
            kwargs={"is_forked": is_forked},
            name="millpond-worker",
            daemon=True,
        )
        process.start()
        return process

    def _sentinel_of(self, process: BaseProcess) -> tuple[int, bool]:
        if self._use_pidfd:
            with contextlib.suppress(ProcessLookupError):  # a fork server has reaped it already
                return os.pidfd_open(process.pid or 0), True
        return os.dup(process.sentinel), False

    def resume(self) -> None:
        """See `Starter`."""
        with self._lock:
            _continue_fork_server()
            self._reap()

    def release(self) -> None:
        """See `Starter`."""
        with self._lock:
            self._end([started for started in self._started if started.is_let_go], _END_SECONDS)

    def shut_down(self) -> None:
        """End all workers, and wait until they are gone; who asks for more gets a ClosedError. Idempotent."""
        with self._lock:
            self.was_shut_down = True
            self._end(self._started, _END_SECONDS)

    def failure(self) -> Exception | None:
        """See `Starter`: nothing is imported before workers are started."""
        return None

    def give_up(self) -> None:
        """See `Starter`; it never fails."""

    def doing(self) -> str:
        """See `Starter`."""
        return (
            f"its process was started by multiprocessing ({self._context.get_start_method()!r}), and has not answered"
        )

    def tidy_up(self) -> None:
        """Reap what is gone, unless this is being used: whoever uses it may have left something that took its time."""
        if self._lock.acquire(blocking=False):
            try:
                self._reap()
            finally:
                self._lock.release()

    def _reap(self) -> None:
        for started in _gone(self._started, 0):
            self._bury(started)

    def _bury(self, started: _Started) -> None:
        self._started.remove(started)
        if not self._started:
            _at_work.discard(self)
        _lifelines.discard(started.lifeline)
        started.bury()

    def _end(self, those: Iterable[_Started], seconds: float) -> None:
        left = list(those)
        for started in left:
            started.kill()
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            for started in _gone(left, deadline - time.monotonic()):
                left.remove(started)
                self._bury(started)

    def forget(self) -> None:
        """In a forked child: these are its parent's workers. Close what was inherited of them."""
        self._lock = threading.RLock()  # another thread may have held it at the fork
        self.was_shut_down = True
        for started in self._started:
            started.let_go()
        self._started = []


def _gone(those: Iterable[_Started], timeout_seconds: float) -> list[_Started]:
    by_sentinel = {started.sentinel: started for started in those}
    poller = select.poll()
    for sentinel in by_sentinel:
        poller.register(sentinel, select.POLLIN)
    return [by_sentinel[sentinel] for sentinel, _ in poller.poll(max(0.0, timeout_seconds) * 1000)]


def _continue_fork_server() -> None:
    """If somebody stopped it, nobody would start or reap workers."""
    server: Any = getattr(forkserver, "_forkserver", None)
    pid = getattr(server, "_forkserver_pid", None)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


_all_starters: weakref.WeakSet[ContextStarter] = weakref.WeakSet()
_at_work: set[ContextStarter] = set()
"""Those that have processes: at the interpreter's end somebody must know of these."""
# What a forked child closes: with a copy of it, it would keep its siblings alive when the training process is gone.
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_lifelines: set[int] = set()


def _shut_down_all() -> None:
    for starter in list(_all_starters):
        starter.shut_down()


def _forget_after_fork() -> None:
    close_all(_lifelines)
    _lifelines.clear()
    for sock in list(_sockets):
        sock.close()
    for starter in list(_all_starters):
        starter.forget()
    _all_starters.clear()
    _at_work.clear()


at_shutdown(_shut_down_all)
# multiprocessing waits at the interpreter's exit for its processes, for ever; these it shall not find.
util.Finalize(None, _shut_down_all, exitpriority=100)
os.register_at_fork(after_in_child=_forget_after_fork)
