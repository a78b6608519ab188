"""How many processes the kernel has killed for want of memory in a process's cgroup."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def oom_kill_count(
    proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup"), *, process: int | str = "self"
) -> int | None:
    """The cgroup's counter `oom_kill`, of cgroup v2 (memory.events) or v1 (memory.oom_control); None where neither is.

    Args:
        proc: Where the proc file system is mounted.
        root: Where the cgroup file systems are mounted.
        process: Whose cgroup: its pid.
    """
    for file in _counter_files(proc / str(process), root):
        with contextlib.suppress(OSError, ValueError):
            counts = dict(line.split() for line in file.read_text().splitlines())
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return None


def _counter_files(process: Path, root: Path) -> Iterator[Path]:
    """Where the counter may be, the likeliest first; in a container a group's path may not exist below its own root."""
    groups: list[list[str]] = []
    with contextlib.suppress(OSError):
        groups = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
    for number, controllers, path in groups:
        if "memory" in controllers.split(","):
            yield root / "memory" / path.lstrip("/") / "memory.oom_control"
            yield root / "memory" / "memory.oom_control"
        elif number == "0":
            yield root / path.lstrip("/") / "memory.events"
            yield root / "memory.events"
