"""Signals that end what a command line runs: whoever runs it is told, and ends it in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType


@contextlib.contextmanager
def told_of(signals: Sequence[int], tell: Callable[[int], None]) -> Iterator[None]:
    """Within it, these signals only call `tell`, where nobody else handles or ignores them (`nohup` does, for one).

    Only the main thread can have a say in that; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        tell(number)

    defaults = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in signals}
    ours = {number: handler for number, handler in before.items() if handler in defaults}
    try:
        for number in ours:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def is_in_foreground() -> bool:
    """Whether a terminal's Ctrl-C goes to this process and those it starts, wherever their input is from."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it hung up
        return False
    finally:
        os.close(terminal)
