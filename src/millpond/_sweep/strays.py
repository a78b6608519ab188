"""Processes of a chunk whose keeper has died: nobody's children now, known by their environment alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection

import psutil

from millpond._sweep.progress import ChildSettings
from millpond._sweep.variables import CHILD_VARIABLE

_PATIENCE_SECONDS = 5.0
_AGAIN_SECONDS = 0.005


def kill_strays(progress_paths: Collection[str]) -> int:
    """Kill every process of the chunks with these progress files, and wait until they are gone; how many there were.

    One that cleared its environment is not found.
    """
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    killed: set[int] = set()
    while (found := _of_chunks(progress_paths)) and time.monotonic() < give_up_at:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed.add(process.pid)
        time.sleep(_AGAIN_SECONDS)  # what is no child tells nobody that it has ended; and one may have forked meanwhile
    return len(killed)


def _of_chunks(progress_paths: Collection[str]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError, TypeError):  # it has ended, or is another user's
            told = process.environ().get(CHILD_VARIABLE)
            is_ours = told is not None and ChildSettings.from_json(told).progress_path in progress_paths
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
