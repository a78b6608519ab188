"""A keeper's own process: runs one command after the other, and ends whatever a command leaves. One thread, always.

It imports the standard library's smallest modules and nothing else, also not `site`: the peak RSS of a command is never
less than that of the process it was forked from, since the kernel keeps it through the exec.

What a command's processes leave behind becomes the keeper's (PR_SET_CHILD_SUBREAPER), however they left: nothing can be
below it that it does not find, and a command is over when there is nothing. The keeper ends when the process that
started it does (its pidfd; where there is none, the end of the control socket and a look at the parent's pid each
second), after killing everything below; whoever else holds the socket, such as a forked sibling, does not matter.

Where there is no subreaper (macOS) only the command's process group is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import marshal
import os
import select
import signal
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing would be a third of what this process imports
    from typing import Any, NoReturn

RUN, END = 1, 2
"""What the sweep sends: RUN with argv, environment, directory, output path and the folder to remove if the sweep is
gone; END with a signal's number and a grace in seconds. A keeper answers each RUN once: see `keeper.Ended`."""

LET_ALONE_SECONDS = 0.1
"""What a command leaves has so long to end by itself, as multiprocessing's resource tracker does."""
LEFT_BEHIND_GRACE_SECONDS = 1.0
STUCK_SECONDS = 30.0
"""What outlives SIGKILL by so long waits in a driver, or is another user's: it is not waited for any longer."""
_LAST_KILL_SECONDS = 5.0
_KILL_AGAIN_SECONDS = 0.05
_PARENT_CHECK_SECONDS = 1.0
_EXEC_SECONDS = 1.0
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_IS_LINUX = sys.platform == "linux"
_MAX_RSS_UNIT_BYTES = 1024 if _IS_LINUX else 1
UNHEEDED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGPIPE)
_RUNS, _LET_ALONE, _ASKED, _KILLED = range(4)
_LENGTH = struct.Struct("<I")
_REMEDIES = {
    errno.ENOENT: "there is none of this name on the PATH, or its first line names an interpreter that is not there",
    errno.EACCES: "it is not executable; run it by its interpreter (python NAME), or chmod +x it",
    errno.ENOEXEC: "it has no format that the system runs; a script's first line must name its interpreter (#!)",
    errno.E2BIG: "the arguments and the environment are too long together",
}
_libc = ctypes.CDLL(None)


def pack(message: tuple[Any, ...]) -> bytes:
    """For the socket. Marshal is built in, and both ends are the same interpreter."""
    data = marshal.dumps(message)
    return _LENGTH.pack(len(data)) + data


class Unpacker:
    """Puts messages together from what was received."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        """Those that are whole now."""
        self._data += data
        messages = []
        while len(self._data) >= _LENGTH.size:
            stop = _LENGTH.size + _LENGTH.unpack_from(self._data)[0]
            if len(self._data) < stop:
                break
            messages.append(marshal.loads(self._data[_LENGTH.size : stop]))
            del self._data[:stop]
        return messages


def main(control: int, parent_pid: int, kept: list[int]) -> None:
    """Run until the sweep is gone, or wants no more.

    Args:
        control: The socket; owned.
        parent_pid: Of the sweep.
        kept: Descriptors that are to stay open as long as this process lives, and that commands do not get.
    """
    for descriptor in (control, *kept):
        os.set_inheritable(descriptor, False)
    _settle_signals()
    if _IS_LINUX:
        _libc.prctl(_PR_SET_NAME, b"millpond-keeper", 0, 0, 0)
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = _Keeper(control, parent_pid)
    try:
        keeper.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the sweep is gone
    finally:
        keeper.leave()
        os._exit(0)  # nothing is left to do, and taking the interpreter apart takes longer than all of its life


def _settle_signals() -> None:
    """Heed none that a terminal or a scheduler sends.

    Those are caught, and not ignored: what is caught is default again after an exec, so a command's process has nothing
    to do about it.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # whoever started the sweep may have ignored some (nohup), as Python does
    for number in (*UNHEEDED, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _Keeper:
    def __init__(self, control: int, parent_pid: int) -> None:
        self._control = control
        self._parent_pid = parent_pid
        self._unpacker = Unpacker()
        self._command: _Command | None = None
        self._folder = ""
        self._parent_pidfd = _pidfd(parent_pid)
        self._wake_read, wake_write = os.pipe()
        for descriptor in (control, self._wake_read, wake_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def run(self) -> None:
        poller = select.poll()
        for descriptor in (self._control, self._wake_read, self._parent_pidfd):
            if descriptor >= 0:
                poller.register(descriptor, select.POLLIN)
        while os.getppid() == self._parent_pid:
            ready = {descriptor for descriptor, _ in poller.poll(self._wait_ms())}
            if self._parent_pidfd in ready:
                return
            if self._wake_read in ready:
                _read(self._wake_read)
            if self._control in ready and not self._receive():
                return
            if self._command is not None and self._command.attend() and not self._report(self._command):
                return

    def _wait_ms(self) -> float | None:
        now = time.monotonic()
        waits = [] if self._parent_pidfd >= 0 else [_PARENT_CHECK_SECONDS]
        if self._command is not None and self._command.act_at is not None:
            waits.append(max(0.0, self._command.act_at - now))
        return min(waits) * 1000 + 1 if waits else None

    def _receive(self) -> bool:
        """Do as the sweep says; False when it says no more."""
        data = os.read(self._control, 1 << 16)
        for kind, *arguments in self._unpacker.feed(data):
            if kind == RUN:
                *arguments, self._folder = arguments
                self._command = _Command(*arguments)
            elif self._command is not None and kind == END:
                self._command.end(*arguments)
        return bool(data)

    def _report(self, command: _Command) -> bool:
        """Tell how a command ended; False where this keeper can run no other."""
        self._command, self._folder = None, ""
        os.write(self._control, pack(command.result()))
        return not command.num_stuck

    def leave(self) -> None:
        """Kill everything below, and remove the folder of what ran."""
        give_up_at = time.monotonic() + _LAST_KILL_SECONDS
        while _reap([]) and time.monotonic() < give_up_at:
            _kill(_below())
            select.select([self._wake_read], [], [], _KILL_AGAIN_SECONDS)
            _read(self._wake_read)
        if self._folder:
            import shutil  # not into every keeper's memory

            shutil.rmtree(self._folder, ignore_errors=True)


class _Command:
    """One command and everything below the keeper: from the fork until there is nothing.

    What is left when the command's own process has ended is let alone for a moment, then asked to end (SIGTERM), then
    killed. `end` asks and kills all of it before.
    """

    def __init__(self, argv: list[str], environment: dict[str, str], directory: str, output_path: str) -> None:
        self.num_stuck = 0
        self.act_at: float | None = None
        self._phase = _RUNS
        self._exit_code: int | None = None
        self._max_rss_bytes = self._num_left_behind = 0
        self._was_asked = False
        self._give_up_at = 0.0
        self._pid = 0
        self._errors, theirs = os.pipe()
        try:
            self._pid = _fork_into(argv, environment, directory, output_path, theirs)
        except OSError as error:
            os.write(theirs, _problem(f"{argv[0]!r} with its output in {output_path!r}", error, {}))
        finally:
            os.close(theirs)

    def end(self, number: int, grace_seconds: float) -> None:
        """Send a signal to all, and after the grace kill who is still there; asked again, the last grace counts.

        Where the command's own process has ended, what it left gets no more time by this.
        """
        self._reap()
        if self._exit_code is None:
            self._was_asked = True
            select.select([self._errors], [], [], _EXEC_SECONDS)  # before its exec it would be as deaf as the keeper
            self._send(number)
        if self._exit_code is None or not grace_seconds:
            self._enter(_ASKED, grace_seconds)

    def _send(self, number: int) -> int:
        """Send a signal to everything below the keeper, to each once; how many there are."""
        below = _below()
        has_group = any(process.group == self._pid for process in below)
        if has_group:
            _send_to_group(self._pid, number)  # also to who is forked at this moment
        for process in below:
            if process.group != self._pid:
                _send(process.pid, number)
            if process.state == "T":
                _send(process.pid, signal.SIGCONT)  # else it could not act on it
        return len(below)

    def attend(self) -> bool:
        """Reap who has ended and do what is due; True when it is over."""
        is_any_below = self._reap()
        if is_any_below:
            self._press_on(time.monotonic())
        return not is_any_below or self.num_stuck > 0

    def _reap(self) -> bool:
        """Whether anybody is left."""
        ended: list[tuple[int, int, int]] = []
        is_any_below = _reap(ended)
        for pid, status, max_rss_bytes in ended:
            self._max_rss_bytes = max(self._max_rss_bytes, max_rss_bytes)
            if pid == self._pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
                if not _IS_LINUX:  # what it left is not this process's: its group is all that is known of it
                    _send_to_group(pid, signal.SIGKILL)
        return is_any_below

    def _press_on(self, now: float) -> None:
        is_due = self.act_at is not None and now >= self.act_at
        if self._phase == _RUNS and self._exit_code is not None:
            self._enter(_LET_ALONE, LET_ALONE_SECONDS)
        elif self._phase == _LET_ALONE and is_due:
            self._num_left_behind = self._send(signal.SIGTERM)
            self._enter(_ASKED, LEFT_BEHIND_GRACE_SECONDS)
        elif self._phase == _ASKED and is_due:
            self._give_up_at = now + STUCK_SECONDS
            self._kill()
        elif self._phase == _KILLED:  # due or not: when one has ended, what it forked last has become the keeper's
            self._kill()
            self.num_stuck = max(1, len(_below())) if now >= self._give_up_at else 0

    def _kill(self) -> None:
        _kill(_below())
        self._enter(_KILLED, _KILL_AGAIN_SECONDS)

    def _enter(self, phase: int, seconds: float) -> None:
        self._phase, self.act_at = phase, time.monotonic() + seconds

    def result(self) -> tuple[int | None, bool, int, int, int, str]:
        """For the sweep, once."""
        os.set_blocking(self._errors, False)  # a process that is stuck may hold the other end
        problem = _read(self._errors).decode()
        os.close(self._errors)
        exit_code = None if problem else self._exit_code
        return exit_code, self._was_asked, self._max_rss_bytes, self._num_left_behind, self.num_stuck, problem


def _fork_into(argv: list[str], environment: dict[str, str], directory: str, output_path: str, errors: int) -> int:
    """Start the command; its pid. Why it cannot be executed is written to `errors`, which an exec closes."""
    keeper_pid = os.getpid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        output = os.open(output_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            pid = os.fork()
            if pid == 0:
                _become(argv, environment, directory, (nothing, output, output), errors, keeper_pid)
            return pid
        finally:
            os.close(output)
    finally:
        os.close(nothing)


def _become(
    argv: list[str],
    environment: dict[str, str],
    directory: str,
    streams: tuple[int, int, int],
    errors: int,
    keeper_pid: int,
) -> NoReturn:
    """In the forked child, where each page that is written to is copied: as little as can be."""
    remedies: dict[int, str] = {}
    try:
        os.setsid()
        if _IS_LINUX:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != keeper_pid:  # it went before the line above
                os._exit(1)
        os.chdir(directory)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        remedies = _REMEDIES
        _execute(argv, environment)
    except BaseException as error:  # noqa: BLE001 - whatever it is, nothing of the keeper's may go on in this process
        os.write(errors, _problem(f"{argv[0]!r} in {directory!r}", error, remedies))
    finally:
        os._exit(127)


def _execute(argv: list[str], environment: dict[str, str]) -> None:
    """As `os.execvpe`, which imports more."""
    if "/" in argv[0]:
        os.execve(argv[0], argv, environment)
    refused: OSError = FileNotFoundError(errno.ENOENT, "")
    for folder in environment.get("PATH", os.defpath).split(":"):
        try:
            os.execve(f"{folder or '.'}/{argv[0]}", argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except PermissionError as error:
            refused = error
    raise refused


def _problem(what: str, error: BaseException, remedies: dict[int, str]) -> bytes:
    number = getattr(error, "errno", None) or 0
    reason = remedies.get(number) or (os.strerror(number) if number else str(error))
    return f"cannot start {what}: {reason}".encode("utf-8", "backslashreplace")


def _reap(ended: list[tuple[int, int, int]]) -> bool:
    """Reap all who have ended, as (pid, wait status, peak RSS in bytes); whether anybody else is below."""
    try:
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return True
            ended.append((pid, status, usage.ru_maxrss * _MAX_RSS_UNIT_BYTES))
    except ChildProcessError:
        return False


class _Process:
    __slots__ = ("group", "parent", "pid", "state")

    def __init__(self, pid: str, state: str, parent: str, group: str) -> None:
        self.pid, self.state, self.parent, self.group = int(pid), state[0], int(parent), int(group)


def _below() -> list[_Process]:
    """Everything below this process that has not ended, parents before their children."""
    children: dict[int, list[_Process]] = {}
    for process in _all_processes():
        children.setdefault(process.parent, []).append(process)
    found = children.get(os.getpid(), [])
    for process in found:
        found += children.get(process.pid, ())
    return [process for process in found if process.state != "Z"]


def _all_processes() -> list[_Process]:
    if not _IS_LINUX:
        import subprocess

        listed = subprocess.run(["ps", "-axo", "pid=,state=,ppid=,pgid="], capture_output=True, text=True, check=False)
        return [_Process(*line.split()) for line in listed.stdout.splitlines()]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    found.append(_Process(name, *file.read().rpartition(")")[2].split()[:3]))
            except OSError:
                pass  # it has ended
    return found


def _kill(processes: list[_Process]) -> None:
    for process in processes:
        _send(process.pid, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or is another user's now
        os.kill(pid, number)


def _send_to_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _read(descriptor: int) -> bytes:
    """What is there; b"" where nothing is, or ever will be."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


def _pidfd(pid: int) -> int:
    """-1 where the platform has none (macOS, some sandboxes)."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1
