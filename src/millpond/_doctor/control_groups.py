"""What control groups (cgroups, v1 and v2) allow this process: memory, CPU time, processes. Pure but for reading files.

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


def memory_limits(proc: Path = PROC, root: Path = ROOT) -> list[MemoryLimit]:
    """All that there are, the one with the least room first; none where nothing is limited."""
    found = [
        MemoryLimit(name, limit, _used_bytes(folder, is_v2=name != "memory.limit_in_bytes"))
        for folder in group_folders("memory", proc, root)
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
        if (limit := _number(folder / name)) is not None and limit < _NO_LIMIT_BYTES
    ]
    return sorted(found, key=lambda limit: limit.free_bytes)


def _used_bytes(folder: Path, *, is_v2: bool) -> int:
    used = _number(folder / ("memory.current" if is_v2 else "memory.usage_in_bytes")) or 0
    cached = _table(folder / "memory.stat").get("inactive_file" if is_v2 else "total_inactive_file", 0)
    return max(0, used - cached)


def kills_whole_group(proc: Path = PROC, root: Path = ROOT) -> bool:
    """Whether the kernel ends all processes of the group together (memory.oom.group), as Kubernetes asks for."""
    return any(_number(folder / "memory.oom.group") == 1 for folder in group_folders("memory", proc, root))


def quota_cores(proc: Path = PROC, root: Path = ROOT) -> float | None:
    """Cores' worth of CPU time in a second; None where it is not limited."""
    shares = [share for folder in group_folders("cpu", proc, root) if (share := _share(folder)) is not None]
    return min(shares, default=None)


def _share(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def processes_left(proc: Path = PROC, root: Path = ROOT) -> tuple[int, int] | None:
    """(limit, still free) of processes and threads; None where they are not limited."""
    limits = [
        (limit, limit - (_number(folder / "pids.current") or 0))
        for folder in group_folders("pids", proc, root)
        if (limit := _number(folder / "pids.max")) is not None
    ]
    return min(limits, key=lambda limit: limit[1], default=None)


def group_folders(controller: str, proc: Path = PROC, root: Path = ROOT) -> Iterator[Path]:
    """The folders of this process's group and of those above it, of version 1 where that has the controller."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = (proc / "self/cgroup").read_text().splitlines()
    groups = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    own = [(names, path) for number, names, path in groups if number != "0" and controller in names.split(",")]
    if own:
        names, path = own[0]
        tops = [top for top in (root / names, root / controller) if top.is_dir()]
    else:
        path = next((path for number, _, path in groups if number == "0"), "/")
        tops = [top for top in (root, root / "unified") if (top / "cgroup.controllers").exists()]
    for top in tops[:1]:
        yield from _upwards(top, path)


def _upwards(top: Path, path: str) -> Iterator[Path]:
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # the group lies outside of what is mounted here
        parts = []
    for length in range(len(parts), -1, -1):
        folder = top.joinpath(*parts[:length])
        if folder.is_dir():
            yield folder


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _table(file: Path) -> dict[str, int]:
    with contextlib.suppress(OSError, ValueError):
        return {name: int(value) for name, value in map(str.split, file.read_text().splitlines())}
    return {}
