"""How the service is told to stop: SIGTERM or SIGINT, blocked and looked for.

No handler: what a handler noted is lost when the process begins anew by exec, and so is a signal that comes between the
last look at that note and the exec. A blocked signal stays pending, across the exec, too. Every thread must have it
blocked, or that thread gets it; so it is blocked before anything is imported that starts threads.
"""

from __future__ import annotations

import signal

_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


def block_stop_signals() -> None:
    """Call it first of all."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)


def is_told_to_stop() -> bool:
    """Whether one has come."""
    return not _STOP_SIGNALS.isdisjoint(signal.sigpending())
