"""A worker in a process that multiprocessing started: it ends with the training process, and serves tasks until then.

The kernel ends it, by the end of a pipe whose other end only the training process has: at once, whatever the worker
does, and with its process group what it started. (PDEATHSIG would not do: it tells the end of a thread, and any thread
may start workers; the forkserver outlives its owner as long as a child of that lives.) Should a copy of that other end
have come to yet another process, a thread that watches the training process does the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any

from millpond._workers import child

_SET_SIGNAL = getattr(fcntl, "F_SETSIG", None)  # Linux


class Passed:
    """Descriptors on their way to a process that is being started: a fork inherits them, else they are sent."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = descriptors

    def __reduce__(self) -> Any:
        return _Arrived, ([DupFd(descriptor) for descriptor in self._descriptors],)

    def take(self) -> list[int]:
        """In the child: copies of its own, since objects that it inherited with the others may close those."""
        return [os.dup(descriptor) for descriptor in self._descriptors]


class _Arrived(Passed):
    def __init__(self, wrapped: Sequence[Any]) -> None:
        super().__init__([each.detach() for each in wrapped])

    def take(self) -> list[int]:
        """They are its own already, but what it starts shall not have them."""
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, False)
        return list(self._descriptors)


def main(passed: Passed, *, is_forked: bool) -> None:
    """Be a worker, until it is to end.

    Args:
        passed: The lifeline's end, the training process's pidfd (where there is none, the lifeline's end again), then
            what `child.serve` takes.
        is_forked: From the training process itself.
    """
    if is_forked:
        gc.freeze()  # the collector would copy the training process's pages, and end its garbage a second time
    lifeline, parent, *own = passed.take()
    # A group of its own: a terminal's Ctrl-C does not reach it, and what the handler starts ends with it.
    os.setpgid(0, 0)
    with contextlib.suppress(ValueError):  # a wake-up of the training process's
        signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTTOU, signal.SIGTTIN):  # it may write to the terminal all the same
        signal.signal(number, signal.SIG_IGN)
    child.be_ordinary()
    child.settle()
    _end_with_parent(lifeline, parent)
    sys.exit(child.serve(own))


def _end_with_parent(lifeline: int, parent: int) -> None:
    if _SET_SIGNAL is not None:
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, _SET_SIGNAL, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_watch, args=(parent,), name="millpond-parent", daemon=True).start()
    if _wait_for_end(lifeline, 0):  # it went before the lines above
        os._exit(1)


def _watch(parent: int) -> None:
    _wait_for_end(parent, None)
    os.killpg(0, signal.SIGKILL)


def _wait_for_end(descriptor: int, timeout_ms: int | None) -> bool:
    """Whether a pidfd's process, or everybody at the other end of a pipe, is gone."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout_ms))
