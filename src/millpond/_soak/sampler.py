"""Looks at a process tree: what of it is due, what that costs, and what is left until its limits."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from millpond._cgroups import ControlGroups
from millpond._observe.descriptors import Descriptors, count_descriptors
from millpond._observe.memory import Memory, process_memory
from millpond._soak.kinds import Bound, Group
from millpond._soak.pace import Pace
from millpond._soak.proc import ProcessStat, num_descriptors
from millpond._soak.tree import ProcessTree
from millpond._workers.zygote import has_pidfd
from millpond.errors import UsageError

CORE_SHARE = 0.01
"""Of a core, that a soak may cost if nobody says otherwise."""
_SHARES = {Group.TREE: 0.2, Group.MEMORY: 0.45, Group.DESCRIPTORS: 0.1, Group.SURROUNDINGS: 0.05}
"""Of that, for looks at each group; the rest is for what is around them: waking up, writing down, a bar."""
_SHM = Path("/dev/shm")


class Sampler:
    """Looks at a tree, each group of series at its own pace. One thread.

    Args:
        tree: Whose it is.
        pid: Of a process of it, whose cgroup counts.
        interval_seconds: From look to look.
        core_share: Of a core, that all of it may cost.

    Attributes:
        paces: How often each group is looked at.
        rooms: What is left of each bound, by the last look.
    """

    def __init__(self, tree: ProcessTree, pid: int, interval_seconds: float, core_share: float) -> None:
        self._tree = tree
        self._groups = ControlGroups(pid)
        self._shared_files = _SharedFiles()
        self._oom_kills_before = self._groups.oom_kills() or 0
        self.oom_kills = 0
        self.paces = {group: Pace(interval_seconds, core_share * share) for group, share in _SHARES.items()}
        self.rooms: dict[Bound, float] = {}

    def look(self) -> dict[str, float]:
        """What is due now, by the name of its series; nothing where the tree has ended, or nothing is due."""
        now = time.monotonic()
        if not self.paces[Group.TREE].is_due(now):
            return {}
        with self.paces[Group.TREE].looking(now):
            processes = self._tree.look()
            found = self._look_at_tree(processes)
        if processes:
            pids = [process.pid for process in processes]
            for group, values in (
                (Group.MEMORY, _memory_of),
                (Group.DESCRIPTORS, _descriptors_of),
                (Group.SURROUNDINGS, self._look_around),
            ):
                if self.paces[group].is_due(now):
                    with self.paces[group].looking(now):
                        found |= values(pids)
        return found

    def _look_at_tree(self, processes: Sequence[ProcessStat]) -> dict[str, float]:
        if not processes:
            return {}
        counts = {process.pid: _num_descriptors(process.pid) for process in processes}
        fullest = max(counts, key=counts.__getitem__)
        num_threads = sum(process.num_threads for process in processes)
        self._note_limits(fullest, num_descriptors=counts[fullest], num_threads=num_threads)
        return {
            "rss_bytes": sum(process.rss_bytes for process in processes),
            "threads": num_threads,
            "processes": len(processes),
            "zombies": sum(zombie.parent_pid != os.getpid() for zombie in self._tree.zombies),
            "descriptors": sum(counts.values()),
            "most_descriptors": counts[fullest],
        }

    def _note_limits(self, pid: int, *, num_descriptors: int, num_threads: int) -> None:
        """Of the process with most descriptors; threads are its user's, of whom the tree's are known."""
        for bound, which, used in (
            (Bound.DESCRIPTORS, resource.RLIMIT_NOFILE, num_descriptors),
            (Bound.THREADS, resource.RLIMIT_NPROC, num_threads),
        ):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                limit = resource.prlimit(pid, which)[0]
                self._note(bound, None if limit == resource.RLIM_INFINITY else limit - used)

    def _look_around(self, pids: Sequence[int]) -> dict[str, float]:
        available = psutil.virtual_memory().available
        rooms = [limit.free_bytes for limit in self._groups.memory_limits() if limit.kills]
        self._note(Bound.MEMORY, min([available, *rooms]))
        swap = psutil.swap_memory()
        self._note(Bound.SWAP, swap.free if swap.total else None)
        tasks = self._groups.tasks_left()
        if tasks is not None:
            self._note(Bound.THREADS, min(tasks[1], self.rooms.get(Bound.THREADS, tasks[1])))
        self._note(Bound.SHARED_FILES, self._shared_files.room_bytes())
        self.oom_kills = (self._groups.oom_kills() or self._oom_kills_before) - self._oom_kills_before
        found: dict[str, float] = {"dev_shm_bytes": self._shared_files.new_bytes()}
        used = self._groups.memory_bytes()
        return found if used is None else found | {"cgroup_bytes": used}

    def _note(self, bound: Bound, room: float | None) -> None:
        if room is not None:
            self.rooms[bound] = room


class _SharedFiles:
    """Files of this user's in /dev/shm that were not there before: segments that nobody unlinked, mapped or not."""

    def __init__(self) -> None:
        self._before = frozenset(os.listdir(_SHM)) if _SHM.is_dir() else frozenset()

    def new_bytes(self) -> int:
        """What they take."""
        if not _SHM.is_dir():
            return 0
        with os.scandir(_SHM) as entries:
            return sum(_own_bytes(entry) for entry in entries if entry.name not in self._before)

    def room_bytes(self) -> int | None:
        """What /dev/shm still takes."""
        if not _SHM.is_dir():
            return None
        room = os.statvfs(_SHM)
        return room.f_bavail * room.f_frsize


def _own_bytes(entry: os.DirEntry[str]) -> int:
    """Of a file, or of all that is in a folder."""
    try:
        if entry.is_dir(follow_symlinks=False):
            with os.scandir(entry.path) as below:
                return sum(map(_own_bytes, below))
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return 0
    return status.st_blocks * 512 if status.st_uid == os.getuid() else 0


def _num_descriptors(pid: int) -> int:
    try:
        return num_descriptors(pid)
    except OSError:  # it has ended meanwhile
        return 0


def _descriptors_of(pids: Sequence[int]) -> dict[str, float]:
    found = sum(map(count_descriptors, pids), Descriptors())
    return {
        "pipes": found.pipes,
        "sockets": found.sockets,
        "files": found.files,
        "memfds": found.memfds,
        "other_descriptors": found.others,
    }


def _memory_of(pids: Sequence[int]) -> dict[str, float]:
    memory = sum(map(process_memory, pids), Memory())
    return {
        "pss_bytes": memory.pss_bytes,
        # where the kernel does not tell (before Linux 5.9) all of it
        "held_bytes": memory.pss_anon_bytes + memory.pss_shared_bytes if memory.pss_anon_bytes else memory.pss_bytes,
        "uss_bytes": memory.uss_bytes,
        "shared_bytes": memory.pss_shared_bytes,
        "swap_bytes": memory.swap_bytes,
    }


def refuse_elsewhere() -> None:
    """Raise where what a soak reads is not there.

    Raises:
        UsageError: This is no Linux, or one without these files.
    """
    needed = ("fd", "smaps_rollup", f"task/{threading.get_native_id()}/children")
    missing = [f"/proc/PID/{name}" for name in needed if not os.path.exists(f"/proc/self/{name}")]
    if missing or not has_pidfd():
        raise UsageError(
            f"a soak needs {', '.join(missing) or 'pidfd_open'}, which this system ({sys.platform}, or its sandbox) "
            "does not have: run it on Linux 5.3 or later"
        )
