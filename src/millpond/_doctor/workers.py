"""Whether worker processes come to life: a zygote is started, and forks one, as for a loader."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from millpond._doctor.findings import Finding, Looking, error, fine, warning
from millpond._guard.guard import Guard
from millpond._workers.zygote import has_pidfd, shutdown

_PRELOAD = ("millpond._media.warm",)
_SLOW_SECONDS = 10.0


def look_at_workers(preload: tuple[str, ...] = _PRELOAD) -> Iterator[Finding | Looking]:
    """Start one worker, have it answer, and end it."""
    yield Looking("starting a worker")
    began = time.monotonic()
    try:
        with Guard(1, preload=preload) as guard:
            guard.call(os.getpid)
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is what a loader would fail with
        yield error("workers", f"none starts: {type(failure).__name__}: {failure}", _remedy(failure))
        return
    finally:
        shutdown()
    yield _started(time.monotonic() - began, pidfd=has_pidfd())


def _started(seconds: float, *, pidfd: bool) -> Finding:
    watched = "by pidfd" if pidfd else "without pidfd (Linux 5.3, and allowed by the sandbox), which works, too"
    found = f"the zygote forked one, which answered after {seconds:.1f} s; watched {watched}"
    if seconds > _SLOW_SECONDS:
        return warning("workers", found, "Python and its packages come from a slow disk: install them on a local one")
    return fine("workers", found)


def _remedy(failure: Exception) -> str:
    if "threads" in str(failure):
        return "a module starts threads when it is imported (sitecustomize, a .pth file of a tracer): take it out"
    if isinstance(failure, OSError):
        return "see the lines of processes and open files"
    return "run `python -X faulthandler -m millpond doctor` for more, and report this"
