"""What is soaked: a command of ours, ended with all that it started; or a process of somebody's, which is not."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from millpond._soak.proc import child_pids, process_stat
from millpond._soak.tree import ProcessTree
from millpond.errors import UsageError

_log = logging.getLogger("millpond.soak")

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_STEP_SECONDS = 0.02
_LEAVE_SECONDS = 0.1
"""What a command leaves has so long to end by itself, as multiprocessing's resource tracker does."""
_LEFT_GRACE_SECONDS = 1.0
_STUCK_SECONDS = 10.0
"""What outlives SIGKILL by so long waits in a driver: it is not waited for any longer."""
_REMEDIES = {
    FileNotFoundError: "there is none of this name on the PATH, or its first line names no interpreter of this machine",
    PermissionError: "it is not executable; run it by its interpreter (python NAME), or chmod +x it",
    OSError: "it has no format that the system runs; a script's first line must name its interpreter (#!)",
}


class Target(Protocol):
    """A process tree to look at.

    Attributes:
        pid: Of its first process.
        tree: All of them.
        exit_code: As `subprocess` has it; None: it runs, or nobody knows.
    """

    pid: int
    tree: ProcessTree
    exit_code: int | None

    def has_ended(self) -> bool:
        """Whether its first process has; reaps what is ours."""
        ...

    def descriptor(self) -> int:
        """Readable when the first process has ended."""
        ...

    def end(self, number: int, grace_seconds: float, wake: int) -> int:
        """End what is ours to end: a signal, then after the grace, or when `wake` is readable, SIGKILL.

        Returns:
            Processes that the first one had left behind when it ended by itself.
        """
        ...


class Command:
    """A command in a session of its own. What loses its parents becomes a child of this process (subreaper).

    It inherits standard input, output and error. If this process is killed the kernel asks the command to end
    (SIGTERM). Made, used and closed by the main thread.

    Raises:
        UsageError: It cannot be started.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        own = os.getpid()
        libc = ctypes.CDLL(None)
        self._libc = libc
        before = _children(own)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

        def end_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != own:  # it went before the line above
                os._exit(1)

        try:
            self._process = subprocess.Popen(list(argv), start_new_session=True, preexec_fn=end_with_parent)
        except OSError as error:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
            raise UsageError(f"cannot start {argv[0]!r}: {_remedy(error)}", command=list(argv)) from error
        self.pid = self._process.pid
        self.tree = ProcessTree(own, with_root=False, without=before)
        self._pidfd = os.pidfd_open(self.pid)
        self._has_given_up = False

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left."""
        self.end(signal.SIGKILL, 0.0, -1)
        os.close(self._pidfd)
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    @property
    def exit_code(self) -> int | None:
        """As `subprocess` has it."""
        return self._process.returncode

    def descriptor(self) -> int:
        """Readable when the command's own process has ended."""
        return self._pidfd

    def has_ended(self) -> bool:
        """Whether the command's own process has; reaps it, and what was left to this process."""
        self._reap()
        return self._process.poll() is not None

    def end(self, number: int, grace_seconds: float, wake: int) -> int:
        """End all of it."""
        num_left = 0
        if not self.has_ended():
            self._send(number)
            self._wait(grace_seconds, wake)
        elif not self._wait(_LEAVE_SECONDS, wake):
            num_left = self._send(signal.SIGTERM)
            self._wait(min(grace_seconds, _LEFT_GRACE_SECONDS), wake)
        self._kill()
        return num_left

    def _kill(self) -> None:
        """Until none is left; who cannot be ended is told of, once."""
        give_up_at = time.monotonic() + (0.0 if self._has_given_up else _STUCK_SECONDS)
        while self._send(signal.SIGKILL) and time.monotonic() < give_up_at:
            self._wait(_STEP_SECONDS, -1)  # one that forked meanwhile has left something
        if self._is_any_left() and not self._has_given_up:
            self._has_given_up = True
            pids = ", ".join(str(process.pid) for process in self.tree.look())
            _log.warning("cannot end process %s: another user's, or stuck in the kernel; kill it as root", pids)

    def _wait(self, seconds: float, wake: int) -> bool:
        """Whether all has ended within a time, or before `wake` is readable."""
        give_up_at = time.monotonic() + seconds
        while self._is_any_left():
            left = give_up_at - time.monotonic()
            if left <= 0 or select.select([wake] if wake >= 0 else [], [], [], min(left, _STEP_SECONDS))[0]:
                return False
        return True

    def _is_any_left(self) -> bool:
        self.has_ended()
        return bool(self.tree.look())

    def _send(self, number: int) -> int:
        """Send a signal to every process, also to who is forked at this moment; how many there were."""
        self.has_ended()
        processes = self.tree.look()
        if any(os_group(process.pid) == self.pid for process in processes):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
                os.killpg(self.pid, signal.SIGCONT)  # one that is stopped could not act on it
        for process in processes:
            if os_group(process.pid) != self.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, number)
                    os.kill(process.pid, signal.SIGCONT)
        return len(processes)

    def _reap(self) -> None:
        """Adopted processes that have ended; the command's own is `subprocess`'s to reap."""
        for zombie in self.tree.zombies:
            if zombie.parent_pid == os.getpid() and zombie.pid != self.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(zombie.pid, os.WNOHANG)


class Attached:
    """A process that runs already. It is looked at, and never signalled.

    Raises:
        UsageError: There is none of this number, or it may not be looked at.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        try:
            self._pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError) as error:
            raise UsageError(f"there is no process {pid}: --pid takes the number of one that runs", pid=pid) from error
        try:
            os.listdir(f"/proc/{pid}/fd")
        except OSError as error:
            os.close(self._pidfd)
            raise UsageError(
                f"process {pid} may not be looked at ({error.strerror}): it is another user's; soak it as that user, "
                "or as root",
                pid=pid,
            ) from error
        self.tree = ProcessTree(pid, without=[os.getpid()])

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._pidfd)

    def descriptor(self) -> int:
        """Readable when it has ended."""
        return self._pidfd

    def has_ended(self) -> bool:
        """Whether it has."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def end(self, number: int, grace_seconds: float, wake: int) -> int:
        """Nothing: it is not ours."""
        return 0


def os_group(pid: int) -> int:
    """A process's group; 0 where it has ended."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _children(pid: int) -> list[int]:
    return child_pids(pid, process_stat(pid).num_threads)


def _remedy(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | PermissionError):
        return _REMEDIES[type(error)]
    return _REMEDIES[OSError] if error.errno == 8 else str(error)
