"""Keepers, seen from the sweep: a small process per slot that runs commands and ends all that is below it.

A keeper and no worker of the zygote, since workers are killed with their zygote: a keeper outlives the sweep for the
moment it takes to kill a command's whole process tree, with those in it that left the command's group and session.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from millpond._sweep.exits import signal_in_words
from millpond._sweep.keeper_process import END, RUN, UNHEEDED, Unpacker, pack
from millpond._workers.zygote import open_stderr

_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); from keeper_process import main; sys.path.pop(); "
    "control, parent_pid, *kept = map(int, sys.argv[2:]); main(control, parent_pid, kept)"
)
_CLOSE_SECONDS = 10.0
_SEND_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_code: As `subprocess` has it; None: it did not start, or nobody knows.
        was_asked: Whether `end` was called before its own process had ended.
        max_rss_bytes: Peak RSS of any one process below the keeper that was waited for.
        num_left_behind: Processes that the command's own left, and that were ended after it.
        num_stuck: Processes that outlived SIGKILL; the keeper has ended without them.
        problem: Why it did not start, or what became of the keeper; "" otherwise.
        is_lost: The keeper died, and with it the command.
    """

    exit_code: int | None
    was_asked: bool = False
    max_rss_bytes: int = 0
    num_left_behind: int = 0
    num_stuck: int = 0
    problem: str = ""
    is_lost: bool = False


class Keeper:
    """A keeper; used by one thread at a time. `close` it, also when it is lost.

    Args:
        keep: Descriptors that stay open as long as it lives, such as the lock of a sweep's folder; commands do not get
            them.
    """

    def __init__(self, keep: Sequence[int] = ()) -> None:
        self._unpacker = Unpacker()
        self._control, theirs = socket.socketpair()
        # Not 0 to 2, which would be its standard streams: they are free here if this process has closed its own.
        control = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
        theirs.close()
        try:
            self._process = _start(control, keep)
        except BaseException:
            self._control.close()
            raise
        finally:
            os.close(control)
        self._pidfd = _pidfd_of(self._process.pid)

    @property
    def pid(self) -> int:
        """Of the keeper; what it runs is below."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can run commands."""
        return self._control.fileno() >= 0 and self._process.poll() is None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Readable when `poll` may have news."""
        return tuple(descriptor for descriptor in (self._control.fileno(), self._pidfd) if descriptor >= 0)

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], directory: str, output_path: str, folder: str = ""
    ) -> None:
        """Run a command, in a session of its own; does not wait for it. `poll` also tells if it did not start.

        Args:
            argv: Program and arguments.
            environment: All of its variables.
            directory: Its working directory.
            output_path: Standard output and error are appended to it.
            folder: Removed by the keeper if this process ends meanwhile; "": none.
        """
        self._send((RUN, list(argv), dict(environment), directory, output_path, folder))

    def end(self, grace_seconds: float, number: int = signal.SIGTERM) -> None:
        """Send a signal to every process below it, and kill who is still there after the grace. Does not wait."""
        self._process.send_signal(signal.SIGCONT)  # it may have been stopped itself
        self._send((END, int(number), grace_seconds))

    def poll(self) -> Ended | None:
        """How the command ended, told once; None if it runs. Never blocks."""
        is_gone = self._process.poll() is not None  # looked at first: what it sent last is there then
        data = self._receive()
        ended = self._unpacker.feed(data or b"")
        if ended:
            return Ended(*ended[0])
        return self._lost() if is_gone or data == b"" else None

    def kill(self) -> None:
        """End it as it is; the kernel ends the command's own process with it. `poll` will tell."""
        self._process.kill()

    def close(self) -> None:
        """Kill everything below it at once, and have it end; waits until it is gone. Idempotent."""
        if self._control.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # closing alone does not tell it where a forked sibling has a copy
        self._process.send_signal(signal.SIGCONT)
        self._bury()
        self._control.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def _send(self, message: tuple[object, ...]) -> None:
        try:
            self._control.settimeout(_SEND_SECONDS)
            self._control.sendall(pack(message))
        except (BrokenPipeError, ConnectionResetError):
            pass  # `poll` will tell
        except TimeoutError:
            self.kill()  # it has been stopped, and half a message would be in its way when it goes on

    def _receive(self) -> bytes | None:
        """b"" at the end; None where there is nothing yet."""
        try:
            self._control.setblocking(False)
            return self._control.recv(1 << 16)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def _lost(self) -> Ended:
        self._bury()
        how = signal_in_words(-self._process.returncode) if self._process.returncode < 0 else "ended"
        return Ended(None, problem=f"its keeper (pid {self.pid}), the process above it, {how}", is_lost=True)

    def _bury(self) -> None:
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _start(control: int, keep: Sequence[int]) -> subprocess.Popen[bytes]:
    # Nothing of the user's is imported in it, or says how it runs; its commands get their environment from the sweep.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") or name == "PYTHONHOME"}
    numbers = [str(number) for number in (control, os.getpid(), *keep)]
    with open_stderr() as stderr, _blocked(UNHEEDED):  # until it catches them
        return subprocess.Popen(
            [sys.executable, "-S", "-P", "-c", _BOOTSTRAP, str(Path(__file__).parent), *numbers],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(control, *keep),
            env=own,
            start_new_session=True,  # a terminal's Ctrl-C does not reach it
        )


@contextlib.contextmanager
def _blocked(numbers: Collection[int]) -> Iterator[None]:
    """Signals wait, in this thread and in a process that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pidfd_of(pid: int) -> int:
    """-1 where there is none: then the end of the socket is all that tells."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1
