"""Locks on open files, among the threads and processes of a machine; whoever dies lets go of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.0005, 0.05

_FLOCK = struct.Struct("hhqqi0q")  # kind, whence, start, length, pid: of Linux on 64 bits
_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)  # macOS has them, but Python does not say so


def lock_soon(descriptor: int, patience_seconds: float) -> bool:
    """Take the lock of a file, unless it is not to be had soon: who holds it may have been stopped.

    Raises:
        OSError: The file system has no locks.
    """

    def try_lock() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return wait_until(try_lock, patience_seconds)


def unlock(descriptor: int) -> None:
    """Let go of it: closing alone does not, where a child that was forked meanwhile holds the descriptor, too."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def wait_until(is_so: Callable[[], bool], patience_seconds: float, progress: Callable[[], None] | None = None) -> bool:
    """Ask again and again, at least once; False if it was not so for so long.

    Args:
        is_so: Asked every 50 ms at least, more often at first.
        patience_seconds: After which it is asked no more.
        progress: Called whenever it was not so.
    """
    deadline, wait_seconds = time.monotonic() + patience_seconds, _FIRST_WAIT_SECONDS
    while not is_so():
        if time.monotonic() >= deadline:
            return False
        if progress is not None:
            progress()
        time.sleep(wait_seconds)
        wait_seconds = min(wait_seconds * 2, _LONGEST_WAIT_SECONDS)
    return True


class Claim:
    """Numbers that one holder has to itself, for a while: those of things that are to be made once.

    A number is a byte of a file that stays empty, and to have it is to lock that byte by an open file of one's own
    (`F_OFD_SETLK` of Linux). So one file serves for millions of things, nothing is to be cleaned up, and two claims of
    one process are kept apart as those of two are. Where there are no such locks (other systems, some network file
    systems), or the file is not to be opened, everybody gets what they ask for: things are made more than once then.

    A child that is forked meanwhile shares the claim: if its parent is killed, the child's end is what lets go. So who
    waits for a number must not wait for ever.

    Args:
        path: The file. It is made, with its folder, when something is first taken. None: everybody gets everything.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._is_released = False

    def take(self, numbers: range) -> list[range]:
        """Take what nobody else has of some numbers, without waiting; gives the parts that are this holder's now.

        Args:
            numbers: Of step 1, between 0 and 2**63.
        """
        with self._lock:
            taken = [] if self._is_released else self._take(numbers)
        if self._is_released:
            self.release()  # meanwhile, when that could not be done
        return taken

    def release(self) -> None:
        """Let go of all, for good. Idempotent; any thread, and it never waits: one that is taking does it then."""
        self._is_released = True
        if self._lock.acquire(blocking=False):
            descriptor, self._descriptor = self._descriptor, None
            self._lock.release()
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    _set_lock(descriptor, fcntl.F_UNLCK, range(0))  # of all: see `unlock`
                os.close(descriptor)

    def _take(self, numbers: range) -> list[range]:
        if _SET_LOCK is None or self._path is None:
            return [numbers]
        try:
            if self._descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            return _lock_parts(self._descriptor, numbers)
        except OSError:
            return [numbers]


def _lock_parts(descriptor: int, numbers: range) -> list[range]:
    """Lock all at once; where somebody else has some of them, one half after the other."""
    try:
        _set_lock(descriptor, fcntl.F_WRLCK, numbers)
    except (BlockingIOError, PermissionError):
        if len(numbers) == 1:
            return []
        middle = len(numbers) // 2
        return _lock_parts(descriptor, numbers[:middle]) + _lock_parts(descriptor, numbers[middle:])
    return [numbers]


def _set_lock(descriptor: int, kind: int, numbers: range) -> None:
    assert _SET_LOCK is not None
    fcntl.fcntl(descriptor, _SET_LOCK, _FLOCK.pack(kind, os.SEEK_SET, numbers.start, len(numbers), 0))
