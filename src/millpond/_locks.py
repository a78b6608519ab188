"""A lock on an open file, among the threads and processes of a machine; whoever dies lets go of it."""

from __future__ import annotations

import fcntl
import time

_LONGEST_WAIT_SECONDS = 0.05


def lock_soon(descriptor: int, patience_seconds: float) -> bool:
    """Take the lock of a file, unless it is not to be had soon: who holds it may have been stopped.

    Raises:
        OSError: The file system has no locks.
    """
    deadline, wait_seconds = time.monotonic() + patience_seconds, 0.0005
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(wait_seconds)
        wait_seconds = min(wait_seconds * 2, _LONGEST_WAIT_SECONDS)


def unlock(descriptor: int) -> None:
    """Let go of it: closing alone does not, where a child that was forked meanwhile holds the descriptor, too."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
