"""The zygote's own process: import the preload set once, then fork on request, reap, report. One thread, always.

It ends when the training process does (its pidfd; where there is none, the end of the control socket and a look at
the parent's pid each second), and kills its workers and their process groups first.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Sequence

from millpond._workers import child
from millpond._workers.descriptors import close_all, receive_descriptors, send_descriptors
from millpond._workers.messages import FAILED, NOTE, WARM, encode_error, pack

# A request on the control socket. FORK comes with the report socket, the worker's stderr, the worker's descriptors.
REQUEST = struct.Struct("<Ii")
FORK, SHUTDOWN = 1, 2
# What the report socket of a worker tells: FORKED (pid; with its pidfd) or NOT_FORKED (errno), then EXITED (status).
# STARTED is FORKED with a descriptor that is no pidfd; it, too, can be read when the process has ended.
REPORT = struct.Struct("<Ii")
FORKED, NOT_FORKED, EXITED, STARTED = 1, 2, 3, 4
_PARENT_CHECK_MS = 1000


def main(arguments: str) -> None:
    """Run until told to end; `arguments` is the JSON that `zygote.Zygote` wrote."""
    given = json.loads(arguments)
    control = socket.socket(fileno=given["control"])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for ignored in (*child.IGNORED_SIGNALS, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    child.name_process("millpond-zygote")
    child.be_ordinary()  # and so its workers will be
    with control:
        zygote = _ZygoteProcess(control, given["parent_pid"], use_pidfd=given["use_pidfd"])
        try:
            _preload(control, given["preload"])
            zygote.run()
        except BrokenPipeError:
            pass  # the training process is gone
        finally:
            zygote.kill_all()


def _preload(control: socket.socket, modules: Sequence[str]) -> None:
    gc.disable()
    try:
        for module in modules:
            control.sendall(b"".join(pack(NOTE, 0, f"importing {module}".encode())))
            importlib.import_module(module)
        _check_single_threaded()
    except BaseException as error:  # noqa: BLE001 - an import may raise anything; the training process must learn of it
        control.sendall(b"".join(pack(FAILED, 0, encode_error(error))))
        raise SystemExit(1) from None
    gc.collect()
    gc.freeze()  # the collector would write to every object's header, and so copy each page into each worker
    control.sendall(b"".join(pack(WARM)))


def _check_single_threaded() -> None:
    with contextlib.suppress(FileNotFoundError):  # no /proc
        threads = len(os.listdir("/proc/self/task"))
        if threads > 1:
            message = f"importing the preload set started {threads - 1} threads, and a process with threads cannot fork"
            raise RuntimeError(f"{message} safely: take the module that starts them out of it")


class _ZygoteProcess:
    def __init__(self, control: socket.socket, parent_pid: int, *, use_pidfd: bool) -> None:
        self._control = control
        self._parent_pid = parent_pid
        self._use_pidfd = use_pidfd
        self._pid = os.getpid()
        self._reports: dict[int, socket.socket] = {}
        self._parent_pidfd = os.pidfd_open(parent_pid) if use_pidfd else -1
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler that does nothing makes the wake-up come

    def run(self) -> None:
        poller = select.poll()
        for descriptor in (self._control.fileno(), self._wake_read, self._parent_pidfd):
            if descriptor >= 0:
                poller.register(descriptor, select.POLLIN)
        limit_ms = None if self._use_pidfd else _PARENT_CHECK_MS
        while os.getppid() == self._parent_pid:
            ready = {descriptor for descriptor, _ in poller.poll(limit_ms)}
            if self._parent_pidfd in ready:
                return
            if self._wake_read in ready:
                self._reap()
                _continue_stopped()
            if self._control.fileno() in ready and not self._serve():
                return

    def _serve(self) -> bool:
        """Carry out one request; False when it is the last."""
        try:
            data, descriptors = receive_descriptors(self._control, REQUEST.size)
        except ConnectionResetError:
            return False
        except (
            OSError
        ) as error:  # no room for the descriptors: the worker's sockets are closed, which tells the supervisor
            print(f"millpond: a worker was not started: {error}", file=sys.stderr)
            return True
        if len(data) < REQUEST.size or REQUEST.unpack(data)[0] == SHUTDOWN:
            return False
        self._fork(descriptors)
        return True

    def _fork(self, descriptors: list[int]) -> None:
        report_descriptor, stderr, *others = descriptors
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            with socket.socket(fileno=report_descriptor) as report:
                _tell(report, NOT_FORKED, error.errno or 0)
            close_all([stderr, *others])
            return
        if pid == 0:
            try:
                self._leave_to_parent(report_descriptor)
                child.run(others, stderr, self._pid)
            finally:
                os._exit(1)
        close_all([stderr, *others])
        self._report_fork(pid, socket.socket(fileno=report_descriptor))

    def _leave_to_parent(self, report_descriptor: int) -> None:
        """In the child: close what is the zygote's."""
        os.setpgid(0, 0)  # a group of its own: processes that the handler starts end with it
        signal.set_wakeup_fd(-1)
        self._control.close()
        for report in self._reports.values():
            report.close()
        close_all([report_descriptor, self._wake_read, self._wake_write, self._parent_pidfd])

    def _report_fork(self, pid: int, report: socket.socket) -> None:
        self._reports[pid] = report
        # It is not reaped yet, even if it is dead: its pid cannot be another process.
        pidfds = [os.pidfd_open(pid)] if self._use_pidfd else []
        with contextlib.suppress(OSError):
            send_descriptors(report, REPORT.pack(FORKED, pid), pidfds)
        close_all(pidfds)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while (dead := _reap_one(self._reports)) is not None:
            pid, status = dead
            report = self._reports.pop(pid, None)
            if report is not None:
                with report:
                    _tell(report, EXITED, status)

    def kill_all(self) -> None:
        """Kill and reap every worker, and what it started."""
        for pid in self._reports:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in list(self._reports):
            status = _reap(pid, wait=True)
            with self._reports.pop(pid) as report:
                _tell(report, EXITED, status or 0)


def _continue_stopped() -> None:
    """Continue workers that somebody stopped: else each would take up to its stall limit, and then be killed for it."""
    if not hasattr(os, "waitid"):
        return
    with contextlib.suppress(ChildProcessError):
        while (stopped := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped.si_pid, signal.SIGCONT)


def _reap_one(pids: Iterable[int]) -> tuple[int, int] | None:
    """Pid and wait status of one child that ended, now reaped; None if there is none."""
    if not hasattr(os, "waitid"):
        statuses = ((pid, _reap(pid, wait=False)) for pid in list(pids))
        return next(((pid, status) for pid, status in statuses if status is not None), None)
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else (found.si_pid, _reap(found.si_pid, wait=True) or 0)


def _reap(pid: int, *, wait: bool) -> int | None:
    """Reap a child and kill what it started; its wait status, or None if it has not ended."""
    if hasattr(os, "waitid"):  # not on macOS before Python 3.13
        flags = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
        if os.waitid(os.P_PID, pid, flags) is None:
            return None
        kill_group(pid)  # while the dead leader still holds the number
    reaped, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
    return status if reaped else None


def kill_group(leader: int) -> None:
    """Kill all processes of a group, if there are any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _tell(report: socket.socket, kind: int, value: int) -> None:
    with contextlib.suppress(OSError):
        report.send(REPORT.pack(kind, value))
