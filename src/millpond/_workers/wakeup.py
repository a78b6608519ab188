"""A wake-up for a thread that waits in a selector: any thread, and any finalizer, may give it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial

from millpond._workers.descriptors import close_all


class Waker:
    """Gives a wake-up from where no line of Python may run, as at the end of a lease.

    It holds both ends of the pipe until nobody holds it any more: who gives it just now never writes to a descriptor
    that is somebody else's by then, nor to a pipe that nobody can read. In a forked child it wakes the parent for
    nothing.

    Args:
        readable: Of a pipe; copied.
        writable: Of the same; copied. What is not read fills it, and then `give` raises BlockingIOError.

    Attributes:
        give: Writes a byte.
    """

    __slots__ = ("_descriptors", "give")

    def __init__(self, readable: int, writable: int) -> None:
        self._descriptors: list[int] = []
        for descriptor in (readable, writable):
            self._descriptors.append(os.dup(descriptor))
        self.give: Callable[[], object] = partial(os.write, self._descriptors[1], b"\0")

    def __del__(self) -> None:
        close_all(self._descriptors)


class Wakeup:
    """A pipe that is readable from `wake` until `clear`."""

    def __init__(self) -> None:
        self._owner_pid = os.getpid()
        self._lock = threading.RLock()  # a finalizer may call wake() in the middle of wake()
        self._is_closed = False
        self.readable, self._writable = os.pipe()
        os.set_blocking(self.readable, False)
        os.set_blocking(self._writable, False)

    def wake(self) -> None:
        """Any thread, at any time; does nothing after `close`, and in a forked child, which runs finalizers, too."""
        if os.getpid() != self._owner_pid:
            return  # nor may the lock be touched: another thread may have held it at the fork
        with self._lock, contextlib.suppress(BlockingIOError):  # full: it will wake without this byte
            if not self._is_closed:
                os.write(self._writable, b"\0")

    def waker(self) -> Waker:
        """Another end of it, which runs no Python."""
        return Waker(self.readable, self._writable)

    def clear(self) -> None:
        """Take all wake-ups so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.readable, 4096)

    def close(self) -> None:
        """Idempotent. The lock keeps `wake` from writing to a descriptor that is somebody else's by now."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                close_all([self.readable, self._writable])
