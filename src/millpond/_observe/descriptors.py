"""Open descriptors of a process, by kind: what a leak of pipes, sockets or shared memory shows itself in.

A look costs one readlink per descriptor, about 10 us each, and nothing is opened: it may be repeated every second.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import islice

import psutil

MOST_READ = 4096
"""Of one process, so that a look at one that leaks ends, too; what is beyond is counted, and its kind is not read."""

_KINDS = {"pipe:": "pipes", "socket:": "sockets", "/memfd:": "memfds", "/dev/shm/": "memfds", "/": "files"}
"""By what a link begins with, the first that fits; eventfds, epolls and the like are others."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Open descriptors of one process, or of several added up.

    Attributes:
        pipes: Ends of pipes, FIFOs without a name.
        sockets: Of any family.
        files: Regular files, folders, devices, and FIFOs with a name.
        memfds: Shared memory: memfds and files of `/dev/shm`, removed ones, too.
        others: eventfd, epoll and the like; what is beyond `MOST_READ`; everything where there is no `/proc`.
    """

    pipes: int = 0
    sockets: int = 0
    files: int = 0
    memfds: int = 0
    others: int = 0

    @property
    def total(self) -> int:
        """Of every kind."""
        return self.pipes + self.sockets + self.files + self.memfds + self.others

    def __add__(self, other: Descriptors) -> Descriptors:
        return Descriptors(
            self.pipes + other.pipes,
            self.sockets + other.sockets,
            self.files + other.files,
            self.memfds + other.memfds,
            self.others + other.others,
        )


def count_descriptors(pid: int) -> Descriptors:
    """Look at one process; all zero if it has ended, or may not be looked at."""
    try:
        if sys.platform != "linux":
            return Descriptors(others=psutil.Process(pid).num_fds())
        with os.scandir(f"/proc/{pid}/fd") as entries:
            counts = Counter(_kind(entry.path) for entry in islice(entries, MOST_READ))
            beyond = sum(1 for _ in entries)
    except (OSError, psutil.Error):  # it ended while we looked, or is another user's
        return Descriptors()
    counts.pop("", None)
    return Descriptors(**counts) + Descriptors(others=beyond)


def _kind(link: str) -> str:
    """As the field is called; "" of one that was closed while we looked."""
    try:
        target = os.readlink(link)
    except FileNotFoundError:
        return ""
    return next((kind for start, kind in _KINDS.items() if target.startswith(start)), "others")
