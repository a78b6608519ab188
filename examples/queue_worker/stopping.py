"""How the service is told to stop: SIGTERM or SIGINT, blocked and looked for.

What a handler noted is lost when the process begins anew by exec, and so is a signal that comes between the last look
at that note and the exec. A blocked signal stays pending, across the exec, too. Every thread must have it blocked, or
that thread gets it; so it is blocked before anything is imported that starts threads.

There is a handler nevertheless: multiprocessing unblocks both signals in the thread that starts its resource tracker
(CPython 3.11), which it does for some start methods and for POSIX shared memory. The next look blocks them again.
"""

from __future__ import annotations

import signal

_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_noted: list[int] = []


def block_stop_signals() -> None:
    """Call it first of all, in the main thread."""
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda number, _: _noted.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)


def is_told_to_stop() -> bool:
    """Whether one has come. Main thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    return bool(_noted) or not _STOP_SIGNALS.isdisjoint(signal.sigpending())
