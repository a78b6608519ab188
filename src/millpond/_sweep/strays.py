"""Processes of a chunk whose keeper has died: nobody's children now, known by their environment alone."""

from __future__ import annotations

import contextlib
import time

import psutil

_PATIENCE_SECONDS = 5.0
_AGAIN_SECONDS = 0.005


def kill_strays(variable: str, value: str) -> int:
    """Kill every process that was started with this variable, and wait until they are gone; how many there were.

    One that cleared its environment is not found.
    """
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    killed: set[int] = set()
    while (found := _started_with(variable, value)) and time.monotonic() < give_up_at:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed.add(process.pid)
        time.sleep(_AGAIN_SECONDS)  # what is no child tells nobody that it has ended; and one may have forked meanwhile
    return len(killed)


def _started_with(variable: str, value: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended, or is another user's
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
