"""What control groups (cgroups, v1 and v2) allow a process: memory, CPU time, processes; and whom they have killed.

The group of a process and every group above it have limits, and the tightest holds. In a container the paths that
/proc/self/cgroup names may not exist: then its own group is the root of what is mounted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC, ROOT = Path("/proc"), Path("/sys/fs/cgroup")
_NO_LIMIT_BYTES = 1 << 60
"""Version 1 says "none" with a number of this size."""
_CACHED_V2, _CACHED_V1 = ("inactive_file", "active_file"), ("total_inactive_file", "total_active_file")
"""Cached files, without shared memory; version 1 counts the groups below in what is called total."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One limit of memory.

    Attributes:
        name: "memory.max", where processes are killed; "memory.high", where they are slowed down; or version 1's.
        limit_bytes: The limit.
        used_bytes: Of it, without cached files, which go when memory is wanted.
    """

    name: str
    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """What may still be taken."""
        return max(0, self.limit_bytes - self.used_bytes)

    @property
    def kills(self) -> bool:
        """Whether a process is killed at the limit."""
        return self.name != "memory.high"


class ControlGroups:
    """The groups of a process, its own first. What has none, or may not be looked at, has no limits.

    Args:
        process: Its pid; looked at when it is asked for the first time.
        proc: Where the proc file system is mounted.
        root: Where the control groups are.
    """

    def __init__(self, process: int | str = "self", proc: Path = PROC, root: Path = ROOT) -> None:
        self._listed = proc / str(process) / "cgroup"
        self._root = root
        self._found: dict[str, list[Path]] = {}

    def memory_limits(self) -> list[MemoryLimit]:
        """All that there are, the one with the least room first; none where nothing is limited."""
        found = [
            MemoryLimit(name, limit, _used_bytes(folder) or 0)
            for folder in self._folders("memory")
            for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
            if (limit := _number(folder / name)) is not None and limit < _NO_LIMIT_BYTES
        ]
        return sorted(found, key=lambda limit: limit.free_bytes)

    def memory_bytes(self) -> int | None:
        """What the own group uses, without cached files; None where it is not counted."""
        return next((_used_bytes(folder) for folder in self._folders("memory")), None)

    def kills_whole_group(self) -> bool:
        """Whether the kernel ends all processes of the group together (memory.oom.group), as Kubernetes asks for."""
        return any(_number(folder / "memory.oom.group") == 1 for folder in self._folders("memory"))

    def oom_kills(self) -> int | None:
        """How many processes the kernel has killed in the own group for want of memory; None where it does not say."""
        for folder in self._folders("memory"):
            for name in ("memory.events", "memory.oom_control"):
                if (count := _table(folder / name).get("oom_kill")) is not None:
                    return count
        return None

    def quota_cores(self) -> float | None:
        """Cores' worth of CPU time in a second; None where it is not limited."""
        return min((share for folder in self._folders("cpu") if (share := _share(folder)) is not None), default=None)

    def tasks_left(self) -> tuple[int, int] | None:
        """(limit, still free) of processes and threads; None where they are not limited."""
        limits = [
            (limit, limit - (_number(folder / "pids.current") or 0))
            for folder in self._folders("pids")
            if (limit := _number(folder / "pids.max")) is not None
        ]
        return min(limits, key=lambda limit: limit[1], default=None)

    def _folders(self, controller: str) -> list[Path]:
        """Of the process's group and of those above it, of version 1 where that has the controller."""
        if controller not in self._found:
            self._found[controller] = list(self._look_up(controller))
        return self._found[controller]

    def _look_up(self, controller: str) -> Iterator[Path]:
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self._listed.read_text().splitlines()
        groups = [line.split(":", 2) for line in lines if line.count(":") >= 2]
        for number, names, path in groups:
            if number != "0" and controller in names.split(","):
                for top in (self._root / names, self._root / controller):
                    if top.is_dir():
                        return _upwards(top, path)
        unified = self._root / "unified"
        for number, _, path in groups:
            if number == "0":
                return _upwards(unified if unified.is_dir() else self._root, path)
        return iter(())


def _upwards(top: Path, path: str) -> Iterator[Path]:
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # the group lies outside of what is mounted here
        parts = []
    for length in range(len(parts), -1, -1):
        folder = top.joinpath(*parts[:length])
        if folder.is_dir():
            yield folder


def _used_bytes(folder: Path) -> int | None:
    for name, cached in (("memory.current", _CACHED_V2), ("memory.usage_in_bytes", _CACHED_V1)):
        if (used := _number(folder / name)) is not None:
            stat = _table(folder / "memory.stat")
            return max(0, used - sum(stat.get(kind, 0) for kind in cached))
    return None


def _share(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _table(file: Path) -> dict[str, int]:
    with contextlib.suppress(OSError, ValueError):
        return {name: int(value) for name, value in map(str.split, file.read_text().splitlines())}
    return {}
