"""Which cores processes run on: the reader on one, the server on another, so that neither takes the other's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def two_cores() -> tuple[int, int]:
    """One for the reader and one for the server; the same twice where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """Processes that are started within the block, and all that they start, run on these cores; none: on any."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
