"""One process, read from /proc as cheaply as Python can: a few system calls each.

Every function raises `OSError` for a process that has ended, or that is another user's.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc/PID/stat says.

    Attributes:
        pid: Of the process.
        parent_pid: Of its parent now, which may have adopted it.
        start_ticks: When it started; with the pid, this names a process for good.
        num_threads: Its own.
        rss_bytes: Its pages in memory; shared ones count in every process.
        is_zombie: It has ended with all its threads, and its parent has not asked how.
    """

    pid: int
    parent_pid: int
    start_ticks: int
    num_threads: int
    rss_bytes: int
    is_zombie: bool


def read_file(path: str) -> bytes:
    """A file of /proc, which says its size nowhere."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = part = os.read(descriptor, _READ_BYTES)
        while len(part) == _READ_BYTES:
            part = os.read(descriptor, _READ_BYTES)
            data += part
        return data
    finally:
        os.close(descriptor)


def process_stat(pid: int) -> ProcessStat:
    """Look at a process."""
    # its name, in brackets, may hold spaces and brackets
    fields = read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return ProcessStat(
        pid=pid,
        parent_pid=int(fields[1]),
        start_ticks=int(fields[19]),
        num_threads=int(fields[17]),
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
        is_zombie=fields[0] in b"ZX" and int(fields[17]) <= 1,  # the first thread may end before the others
    )


def child_pids(pid: int, num_threads: int) -> list[int]:
    """Those that any of its threads has started, and those that it has adopted."""
    if num_threads == 1:
        return [int(child) for child in read_file(f"/proc/{pid}/task/{pid}/children").split()]
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this thread has ended
            found += map(int, read_file(f"/proc/{pid}/task/{task}/children").split())
    return found


def num_descriptors(pid: int) -> int:
    """How many it has open; cheaper than by kind."""
    # Linux 6.2 tells without a list
    return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
