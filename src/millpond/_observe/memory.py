"""Memory and descriptors of a process tree: PSS, RSS and USS of every process, and the peak of their sums over time.

RSS counts the arena once in every process that touched it, so budgets are judged by PSS, which shares it out. One look
at a process costs about as much as its pages: `bench/epoch.py` looks at 5 Hz, outside of what it times.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from millpond._observe.descriptors import Descriptors, count_descriptors

_PAGE_KINDS = {"Rss": "rss", "Pss": "pss", "Private_Clean": "uss", "Private_Dirty": "uss", "Pss_Anon": "pss_anon"}
_PAGE_KINDS |= {"Pss_Shmem": "pss_shmem", "SwapPss": "swap"}


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process, or of several added up.

    Attributes:
        pss_bytes: Private pages, and of shared pages one share per process that maps them.
        rss_bytes: Every page that is mapped; shared ones count in every process.
        uss_bytes: Private pages only: what ends with the process.
        pss_anon_bytes: The part of `pss_bytes` that is heap and stack, not files or shared memory; 0 where unknown.
        num_processes: Processes added up.
        pss_shared_bytes: The part of `pss_bytes` that is shared memory: memfds, files in /dev/shm, shared anonymous
            pages; 0 where unknown.
        swap_bytes: Pages that are swapped out, of shared ones a share; 0 where unknown.
    """

    pss_bytes: int = 0
    rss_bytes: int = 0
    uss_bytes: int = 0
    pss_anon_bytes: int = 0
    num_processes: int = 0
    pss_shared_bytes: int = 0
    swap_bytes: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            self.pss_bytes + other.pss_bytes,
            self.rss_bytes + other.rss_bytes,
            self.uss_bytes + other.uss_bytes,
            self.pss_anon_bytes + other.pss_anon_bytes,
            self.num_processes + other.num_processes,
            self.pss_shared_bytes + other.pss_shared_bytes,
            self.swap_bytes + other.swap_bytes,
        )


def process_memory(pid: int) -> Memory:
    """Look at one process; all zero if it has ended, or may not be looked at.

    Where there is no `smaps_rollup` (macOS) psutil's USS stands for the PSS: shared pages are then left out.
    """
    try:
        if sys.platform == "linux":
            return _parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
        full = psutil.Process(pid).memory_full_info()
        return Memory(full.uss, full.rss, full.uss, 0, 1)
    except (OSError, psutil.Error):  # it ended while we looked (ESRCH when it is a zombie), or is another user's
        return Memory()


def _parse_rollup(text: str) -> Memory:
    kibibytes = dict.fromkeys(_PAGE_KINDS.values(), 0)
    for line in text.splitlines()[1:]:
        name, _, rest = line.partition(":")
        if name in _PAGE_KINDS:
            kibibytes[_PAGE_KINDS[name]] += int(rest.split()[0])
    return Memory(
        pss_bytes=kibibytes["pss"] << 10,
        rss_bytes=kibibytes["rss"] << 10,
        uss_bytes=kibibytes["uss"] << 10,
        pss_anon_bytes=kibibytes["pss_anon"] << 10,
        num_processes=1,
        pss_shared_bytes=kibibytes["pss_shmem"] << 10,
        swap_bytes=kibibytes["swap"] << 10,
    )


def tree_pids(root_pid: int) -> list[int]:
    """The process and everything below it, root first; empty if it has ended."""
    try:
        root = psutil.Process(root_pid)
        return [root_pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def tree_memory(root_pid: int | None = None, *, without: Collection[int] = ()) -> Memory:
    """Add up a process (None: this one) and everything below it.

    Args:
        without: Processes that are left out, such as a bench's own.
    """
    pids = tree_pids(os.getpid() if root_pid is None else root_pid)
    return sum((process_memory(pid) for pid in pids if pid not in without), Memory())


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """One look: when, and what was seen; descriptors are those of the whole tree."""

    elapsed_seconds: float
    training: Memory
    below: Memory
    descriptors: Descriptors = field(default_factory=Descriptors)

    @property
    def total(self) -> Memory:
        """The whole tree."""
        return self.training + self.below


class MemorySampler:
    """Looks at a process tree again and again, on a thread of its own, until closed.

    Args:
        root_pid: None for this process.
        interval_seconds: From one look to the next; a look that takes longer only delays the next.
        without: Processes that are left out.
    """

    def __init__(
        self, root_pid: int | None = None, *, interval_seconds: float = 0.2, without: Collection[int] = ()
    ) -> None:
        self._root_pid = os.getpid() if root_pid is None else root_pid
        self._interval_seconds = interval_seconds
        self._without = frozenset(without)
        self._points: list[MemoryPoint] = []
        self._cpu_seconds = 0.0
        self._closing = threading.Event()
        self._began = time.monotonic()
        self._baseline = self._look()
        self._thread = threading.Thread(target=self._run, name="millpond-memory", daemon=True)
        self._thread.start()

    def __enter__(self) -> MemorySampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def baseline(self) -> Memory:
        """The tree when the sampler was made."""
        return self._baseline.total

    @property
    def points(self) -> tuple[MemoryPoint, ...]:
        """Every look so far, the baseline first."""
        return tuple(self._points)

    @property
    def peak_pss_bytes(self) -> int:
        """The greatest PSS of the whole tree so far."""
        return max(point.total.pss_bytes for point in self._points)

    @property
    def peak_growth_bytes(self) -> int:
        """The peak less the baseline, both PSS."""
        return self.peak_pss_bytes - self.baseline.pss_bytes

    @property
    def cpu_seconds(self) -> float:
        """What the sampler's thread itself used; known after `close`."""
        return self._cpu_seconds

    def close(self) -> None:
        """Take a last look and end the thread; idempotent."""
        if not self._closing.is_set():
            self._closing.set()
            self._thread.join()

    def _look(self) -> MemoryPoint:
        pids = [pid for pid in tree_pids(self._root_pid) if pid not in self._without]
        seen = [(pid, process_memory(pid)) for pid in pids]
        point = MemoryPoint(
            elapsed_seconds=time.monotonic() - self._began,
            training=sum((memory for pid, memory in seen if pid == self._root_pid), Memory()),
            below=sum((memory for pid, memory in seen if pid != self._root_pid), Memory()),
            descriptors=sum(map(count_descriptors, pids), Descriptors()),
        )
        self._points.append(point)
        return point

    def _run(self) -> None:
        while not self._closing.wait(self._interval_seconds):
            self._look()
        self._look()
        self._cpu_seconds = time.thread_time()
