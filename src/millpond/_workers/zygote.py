"""Zygotes, seen from the training process: started when first wanted, one per preload set, ended with the process.

Any thread may ask for one and spawn from it. A forked child of the training process forgets its parent's zygotes, and
starts its own if it wants workers.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

from millpond._workers.descriptors import close_all, send_descriptors
from millpond._workers.messages import FAILED, NOTE, WARM, Inbox, decode_error
from millpond._workers.starter import Spawned
from millpond._workers.surroundings import ONE_THREAD, absolute_sys_path, with_streamed_copies
from millpond._workers.zygote_process import FORK, REQUEST, SHUTDOWN
from millpond.errors import ClosedError, WorkerDied

# Its own modules are preloaded by being run. -P: the working directory is not put in front of the import path, which
# comes as it is in the training process.
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])['sys_path']; "
    "from millpond._workers.zygote_process import main; main(sys.argv[1])"
)
_END_SECONDS = 5.0


def has_pidfd() -> bool:
    """Whether this platform gives descriptors of processes (Linux 5.3; not macOS, not some sandboxes)."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


class Zygote:
    """One zygote process, which is a `Starter`; see `zygote_for`.

    Args:
        preload: Modules that it imports before it forks.
        use_pidfd: Whether workers and parent are watched by pidfd; else by the sockets' ends and the zygote's report.
    """

    def __init__(self, preload: tuple[str, ...], *, use_pidfd: bool) -> None:
        self.preload = preload
        self.use_pidfd = use_pidfd
        self.was_shut_down = False
        self._is_broken = False  # its socket's end comes a moment before its process can be seen to have ended
        self._lock = threading.Lock()
        self._doing = "starting the interpreter"
        self._failure: Exception | None = None
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._inbox = Inbox(self._control)
        # Not 0 to 2, which would be its standard streams: they are free here if this process has closed its own.
        control = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
        theirs.close()
        try:
            self._process = self._start(control)
        except BaseException:
            self._control.close()
            raise
        finally:
            os.close(control)

    def _start(self, control: int) -> subprocess.Popen[bytes]:
        arguments = {
            "sys_path": absolute_sys_path(),
            "control": control,
            "parent_pid": os.getpid(),
            "preload": self.preload,
            "use_pidfd": self.use_pidfd,
        }
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
        with open_stderr() as stderr:
            return subprocess.Popen(
                [sys.executable, *flags, "-P", "-c", _BOOTSTRAP, json.dumps(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=(control,),
                env=with_streamed_copies({**os.environ, **ONE_THREAD}),
                start_new_session=True,  # a terminal's Ctrl-C does not reach it
            )

    @property
    def pid(self) -> int:
        """Of the zygote."""
        return self._process.pid

    @property
    def control_descriptor(self) -> int:
        """The one descriptor that a zygote costs this process."""
        return self._control.fileno()

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked for workers."""
        return not self._is_broken and self._process.poll() is None

    def spawn(self, descriptors: list[int]) -> Spawned:
        """Ask for a worker; does not wait for it.

        Args:
            descriptors: What the worker gets after its task socket (see `child`); the caller keeps its own.

        Raises:
            ClosedError: `shutdown()` ended this zygote.
            WorkerDied: The zygote is dead.
        """
        with contextlib.ExitStack() as theirs:
            channel, their_channel = socket.socketpair()
            theirs.enter_context(their_channel)
            report, their_report = socket.socketpair()
            theirs.enter_context(their_report)
            stderr = theirs.enter_context(open_stderr())
            try:
                self._request(FORK, [their_report.fileno(), stderr, their_channel.fileno(), *descriptors])
            except BaseException:
                channel.close()
                report.close()
                raise
        channel.setblocking(False)
        report.setblocking(False)
        return Spawned(channel, report)

    def _request(self, kind: int, descriptors: list[int]) -> None:
        with self._lock:
            if self.was_shut_down:
                raise ClosedError("millpond.shutdown() has ended the worker processes; make a new loader or guard")
            self.was_shut_down = kind == SHUTDOWN  # ahead: a thread that finds its workers dead must know why
            try:
                if self._control.fileno() < 0:
                    raise BrokenPipeError
                send_descriptors(self._control, REQUEST.pack(kind, 0), descriptors)
            except BlockingIOError:
                message = f"the zygote (pid {self.pid}) takes no requests; it was last {self._read_notes()}"
                raise WorkerDied(message, pid=self.pid, exit_code=None, signal_name=None, task=None) from None
            except (BrokenPipeError, ConnectionResetError):
                self._is_broken = True
                message = f"the zygote (pid {self.pid}) has died"
                raise WorkerDied(message, pid=self.pid, exit_code=None, signal_name=None, task=None) from None

    def doing(self) -> str:
        """What it was last known to do, for messages: "the zygote was importing torch"."""
        with self._lock:
            return f"the zygote was {self._read_notes()}"

    def failure(self) -> Exception | None:
        """Why it could not import its preload set; None if it could, or has not yet."""
        with self._lock:
            self._read_notes()
            return self._failure

    def _read_notes(self) -> str:
        with contextlib.suppress(BlockingIOError, EOFError, OSError):
            while True:
                for kind, _, body in self._inbox.receive():
                    if kind == NOTE:
                        self._doing = bytes(body).decode()
                    elif kind == WARM:
                        self._doing = "waiting for requests"
                    elif kind == FAILED:
                        self._failure = decode_error(body)
                        self._failure.add_note(f"raised by the zygote, {self._doing} (preload set {self.preload})")
        return self._doing

    def give_up(self) -> None:
        """It failed; the next `zygote_for` of its preload set starts another."""
        with _lock:
            for key in [key for key, known in _zygotes.items() if known is self]:
                del _zygotes[key]
        self.shut_down()

    def release(self) -> None:
        """Nothing is to be done: a worker whose sockets are closed ends, and the zygote reaps it."""

    def resume(self) -> None:
        """Have it go on if somebody stopped it (SIGSTOP): else nobody would fork, reap or end it."""
        if self.is_alive:
            self._process.send_signal(signal.SIGCONT)

    def shut_down(self) -> None:
        """End it and its workers, and wait until they are gone; who asks it for more gets a ClosedError. Idempotent."""
        with contextlib.suppress(ClosedError, WorkerDied):
            self._request(SHUTDOWN, [])
        self.resume()
        with self._lock:
            self.was_shut_down = self._is_broken = True
        self.bury()

    def bury(self) -> None:
        """Wait until it is gone, and close this end. Idempotent."""
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its workers die with it (PDEATHSIG)
            self._process.wait(_END_SECONDS)
        self._control.close()

    def forget(self) -> None:
        """In a forked child: let go of the parent's zygote without touching it."""
        self._lock = threading.Lock()  # another thread may have held it at the fork
        self.was_shut_down = self._is_broken = True
        self._process.returncode = 0  # it is no child of this process: Popen must neither wait for it nor warn
        self._control.close()


@contextlib.contextmanager
def open_stderr() -> Iterator[int]:
    """This process's standard error at this moment; where it is closed, a descriptor that swallows all."""
    try:
        descriptor = os.dup(2)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        yield descriptor
    finally:
        close_all([descriptor])


_zygotes: dict[tuple[tuple[str, ...], bool], Zygote] = {}
_lock = threading.Lock()


def zygote_for(preload: tuple[str, ...], *, use_pidfd: bool | None = None) -> Zygote:
    """The process's zygote of this preload set; started if there is none, or it has died. Does not wait for it.

    Args:
        preload: Modules, in the order in which they are imported.
        use_pidfd: None: where the platform has pidfds. False is the fallback of other platforms, for tests.
    """
    key = (preload, has_pidfd() if use_pidfd is None else use_pidfd)
    with _lock:
        zygote = _zygotes.get(key)
        if zygote is not None and not zygote.is_alive:
            zygote.bury()
            zygote = None
        if zygote is None:
            zygote = _zygotes[key] = Zygote(preload, use_pidfd=key[1])
        return zygote


def live_zygotes() -> list[Zygote]:
    """Those that this process has now; dead ones are buried."""
    with _lock:
        for key, zygote in list(_zygotes.items()):
            if not zygote.is_alive:
                zygote.bury()
                del _zygotes[key]
        return list(_zygotes.values())


def shutdown() -> None:
    """End every zygote of this process, and with them all workers.

    Called at the interpreter's exit, and whenever nothing of millpond is wanted for a while; loaders and guards that
    are still open raise ClosedError from then on, and new ones start new zygotes. Idempotent.
    """
    for callback in _at_shutdown:
        callback()
    with _lock:
        zygotes = list(_zygotes.values())
        _zygotes.clear()
    for zygote in zygotes:
        zygote.shut_down()


_at_shutdown: list[Callable[[], None]] = []


def at_shutdown(callback: Callable[[], None]) -> None:
    """Have `shutdown` call this first, each time: for what the process keeps of its own accord and may make anew."""
    _at_shutdown.append(callback)


def _forget_after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it at the fork
    for zygote in _zygotes.values():
        zygote.forget()
    _zygotes.clear()


atexit.register(shutdown)
os.register_at_fork(after_in_child=_forget_after_fork)
