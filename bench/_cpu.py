"""CPU seconds of this process by the thread that spent them, and of the workers that it started."""

from __future__ import annotations

import os
import threading
import time

import psutil

_ROLES = {
    "MainThread": "consumer",
    "millpond-driver": "driver",
    "millpond-prefetch": "prefetch",
    "millpond-fetch": "loop",
}


def cpu_seconds() -> dict[str, float]:
    """By role, since the start of each; "client" is the store's client library, whose threads are not Python's."""
    found = dict.fromkeys((*_ROLES.values(), "others", "client", "workers", "zygote"), 0.0)
    for thread in threading.enumerate():
        if thread.ident is not None and hasattr(time, "pthread_getcpuclockid"):
            seconds = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            found[_ROLES.get(thread.name, "others")] += seconds
    found["client"] = time.process_time() - sum(found.values())
    for child in psutil.Process(os.getpid()).children(recursive=True):
        times = child.cpu_times()
        found["zygote" if "zygote" in child.name() else "workers"] += times.user + times.system
    return found


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Between two looks, by role, and "total"."""
    seconds = {role: after[role] - before[role] for role in after}
    return {**seconds, "total": sum(seconds.values())}
