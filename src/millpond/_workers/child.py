"""What a worker process does, from the fork to its end. It holds no state that matters: it may be killed at any moment.

The zygote calls `run` in the forked child, and never gets it back; a process of multiprocessing calls `serve`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from millpond._anon_memory import STATM_PATH, parse_anon_bytes
from millpond._workers.cells import Cells
from millpond._workers.messages import (
    END,
    ERROR,
    READY,
    RESULT,
    TASK,
    UNUSABLE,
    Frame,
    Inbox,
    Start,
    decode,
    encode,
    encode_error,
    pack,
)

# Not SIGUSR1, which Slurm sends; macOS has no real-time signals.
DUMP_SIGNAL: int = getattr(signal, "SIGRTMIN", signal.SIGUSR2 - 3) + 3
# A terminal's Ctrl-C, and what schedulers send to every process of a job, are for the training process to act on.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_libc = ctypes.CDLL(None)

CHANNEL, DUMP_FILE, CELLS_FILE = range(3)
"""Places of the descriptors that every worker gets; those of the handler follow."""
OWN_DESCRIPTORS = 3


class Handler(Protocol):
    """What a worker runs. It may also have `attach(descriptors, worker_index)` and `close()`."""

    def __call__(self, payload: Any, progress: Callable[[], None], /) -> Any:
        """Carry out one task."""


def name_process(name: str) -> None:
    """Set the name that `ps -o comm` and `top` show (15 characters)."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent, which must be single-threaded, is gone."""
    if sys.platform != "linux":
        return  # the end of the task socket ends it, when its task is done
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it went before the line above
        os._exit(1)


def run(descriptors: Sequence[int], stderr: int, zygote_pid: int) -> None:
    """Serve tasks until the supervisor ends it; the process is gone when this is.

    Args:
        descriptors: The task socket, the file for stack dumps, the cells, then the handler's; owned.
        stderr: Where the worker's output goes; owned.
        zygote_pid: The parent of this process.
    """
    exit_code = 1
    try:
        die_with(zygote_pid)
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        os.close(stderr)
        settle()
        exit_code = serve(descriptors)
        _end_queues()
    finally:
        os._exit(exit_code)


def _end_queues() -> None:
    """What a handler has put into queues of multiprocessing may not have left this process yet."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()  # as every process of multiprocessing does at its end


def settle() -> None:
    """Set up signals and output."""
    for ignored in IGNORED_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    for default in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(default, signal.SIG_DFL)
    # Its output must not be lost when it is killed.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)


def serve(descriptors: Sequence[int]) -> int:
    """Carry out tasks until the supervisor wants no more, or is gone; the exit code for this process.

    Args:
        descriptors: As `run`.
    """
    exit_code = 1
    try:
        with socket.socket(fileno=descriptors[CHANNEL]) as channel:
            exit_code = _serve(channel, descriptors)
        sys.stdout.flush()
        sys.stderr.flush()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the training process has gone, or closed its end
    except BaseException:  # noqa: BLE001 - the handler's close() may raise anything, and nobody above would show it
        traceback.print_exc()
    return exit_code


def be_ordinary() -> None:
    """Be no realtime process: one that spins would take its core from who is to end it.

    A training process may have become one without knowing: SVT-AV1, an encoder, makes its caller one where it is root.
    """
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _serve(channel: socket.socket, descriptors: Sequence[int]) -> int:
    inbox = Inbox(channel)
    frames: list[Frame] = []
    try:
        while not frames:
            frames = inbox.receive()
        start: Start = decode(frames.pop(0).body)
        name_process(f"millpond-w{start.worker_index}")
        cells = Cells(descriptors[CELLS_FILE], start.num_places)
        _watch_for_dumps(descriptors[DUMP_FILE])
        handler = _make_handler(start, descriptors)
    except EOFError:
        return 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the supervisor must learn of it
        _send(channel, pack(UNUSABLE, 0, encode_error(error)))
        return 1
    gc.enable()  # the zygote had it off
    _send(channel, pack(READY))
    try:
        _Loop(channel, inbox, frames, handler, cells, start).run()
    finally:
        close = getattr(handler, "close", None)
        if close is not None:
            close()
    return 0


def _watch_for_dumps(dump_file: int) -> None:
    faulthandler.enable(file=dump_file)  # segfaults and aborts leave their stack there, too
    # chain: after the dump the default action ends the process, so that its sentinel marks the end of the dump.
    signal.signal(DUMP_SIGNAL, signal.SIG_DFL)
    faulthandler.register(DUMP_SIGNAL, file=dump_file, all_threads=True, chain=True)


def _make_handler(start: Start, descriptors: Sequence[int]) -> Handler:
    start.surroundings.adopt()
    if "numpy.random" in sys.modules:  # else every worker would draw what the zygote's generator has in store
        sys.modules["numpy.random"].seed(int.from_bytes(os.urandom(4), "little"))
    handler: Handler = decode(start.handler)
    attach = getattr(handler, "attach", None)
    if attach is not None:
        attach(tuple(descriptors[OWN_DESCRIPTORS:]), start.worker_index)
    return handler


class _AnonMemory:
    """This process's anonymous memory, also where a handler has left no descriptor."""

    def __init__(self) -> None:
        self._file = os.open(STATM_PATH, os.O_RDONLY | os.O_CLOEXEC)

    def now_bytes(self) -> int:
        """5 us."""
        return parse_anon_bytes(os.pread(self._file, 128, 0))


class _Loop:
    """Takes tasks in order until END, the stop cell, or the end of the socket."""

    def __init__(
        self,
        channel: socket.socket,
        inbox: Inbox,
        frames: list[Frame],
        handler: Handler,
        cells: Cells,
        start: Start,
    ) -> None:
        self._channel = channel
        self._inbox = inbox
        self._frames = frames
        self._handler = handler
        self._cells = cells
        self._index = start.worker_index
        self._pid = os.getpid()
        self._begin, self._progress = cells.recorder(start.worker_index)
        self._memory = _AnonMemory() if start.reports_memory else None

    def run(self) -> None:
        while True:
            for kind, serial, body in self._frames:
                if kind == END or self._cells.is_stopped(self._index):
                    return
                if kind == TASK:
                    self._begin(serial)
                    answer = self._answer(serial, body)
                    if self._memory is not None:
                        self._cells.set_anon_bytes(self._index, self._memory.now_bytes())
                    _send(self._channel, answer)
            try:
                self._frames = self._inbox.receive()
            except EOFError:
                return

    def _answer(self, serial: int, body: bytes | bytearray) -> list[bytes]:
        try:
            result = self._handler(decode(body), self._progress)
            self._end_copies()
            return pack(RESULT, serial, encode(result))
        except BaseException as error:  # noqa: BLE001 - it travels to the training process
            self._end_copies()
            return pack(ERROR, serial, encode_error(error))

    def _end_copies(self) -> None:
        """A function that forks has two ends: that of the child is not the task's."""
        if os.getpid() != self._pid:
            os._exit(0)


def _send(channel: socket.socket, buffers: list[bytes]) -> None:
    for buffer in buffers:
        channel.sendall(buffer)
