"""How many cores there are for us."""

from __future__ import annotations

import math
import os

from millpond._cgroups import ControlGroups


def usable_cores() -> int:
    """Cores that this process may run on, and has the time of: as many as a quota (docker run --cpus) begins."""
    quota = ControlGroups().quota_cores()
    return affinity_cores() if quota is None else max(1, min(affinity_cores(), math.ceil(quota)))


def affinity_cores() -> int:
    """Cores that this process may run on: taskset, cpusets, Slurm."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
