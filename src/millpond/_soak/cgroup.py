"""Memory and processes of a process's cgroup, v2 or v1, and what is left of its limits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT_BYTES = 1 << 60
"""Of v1, which says a page less than 2**63 where there is none."""


@dataclass(frozen=True, slots=True)
class _Names:
    """Files of a version, and the words of its memory.stat."""

    usage: str
    limit: str
    cached: str
    shared: str


_V2 = _Names("memory.current", "memory.max", "file", "shmem")
_V1 = _Names("memory.usage_in_bytes", "memory.limit_in_bytes", "total_cache", "total_shmem")


class Cgroup:
    """The cgroup of a process.

    Args:
        pid: Of the process; looked at once, here.
        proc: Where the proc file system is mounted.
        root: Where the cgroup file systems are mounted.
    """

    def __init__(self, pid: int, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> None:
        self._memory: Path | None = None
        self._names = _V2
        self._pids: Path | None = None
        for controllers, folder in _groups(proc / str(pid) / "cgroup", root):
            for names in (_V2, _V1):
                if self._memory is None and "memory" in controllers and (folder / names.usage).exists():
                    self._memory, self._names = folder, names
            if self._pids is None and "pids" in controllers and (folder / "pids.current").exists():
                self._pids = folder

    def memory_bytes(self) -> int | None:
        """What it uses and cannot give back: without the cache of files, which goes when memory is wanted."""
        return None if self._memory is None else self._used(self._memory)

    def memory_room_bytes(self) -> int | None:
        """What is left of the narrowest limit, of it and of those above; None where there is none."""
        rooms = []
        for folder in _upwards(self._memory):
            with contextlib.suppress(OSError, ValueError):  # no such file there, or "max"
                limit = int((folder / self._names.limit).read_text())
                used = self._used(folder)
                if used is not None and limit < _NO_LIMIT_BYTES:
                    rooms.append(max(0, limit - used))
        return min(rooms, default=None)

    def task_room(self) -> int | None:
        """Threads and processes that may still be started; None where there is no limit."""
        rooms = []
        for folder in _upwards(self._pids):
            with contextlib.suppress(OSError, ValueError):
                rooms.append(int((folder / "pids.max").read_text()) - int((folder / "pids.current").read_text()))
        return min(rooms, default=None)

    def _used(self, folder: Path) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            usage = int((folder / self._names.usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = int(stat.get(self._names.cached, 0)) - int(stat.get(self._names.shared, 0))
            return max(0, usage - max(0, cached))
        return None


def _groups(listed: Path, root: Path) -> Iterator[tuple[frozenset[str], Path]]:
    """Controllers and folders; in a container a group's path may not exist below its own root."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = listed.read_text().splitlines()
    for line in lines:
        number, names, path = line.split(":", 2)
        controllers = frozenset(("memory", "pids")) if number == "0" else frozenset(names.split(","))
        mounts = [root] if number == "0" else [root / name for name in names.split(",")]
        for mount in mounts:
            yield controllers, mount / path.lstrip("/")
            yield controllers, mount


def _upwards(folder: Path | None) -> Iterator[Path]:
    """A group's folder and those above it, which end where there is no group's."""
    while folder is not None and (folder / "cgroup.procs").exists():
        yield folder
        folder = folder.parent
