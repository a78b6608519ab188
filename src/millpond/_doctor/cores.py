"""Cores as the scheduler gives them, against the workers that are wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping

from millpond._doctor.findings import Finding, Plans, fine, warning


def cores(
    installed: int, usable: int, quota: float | None, plans: Plans, environment: Mapping[str, str] | None = None
) -> Finding:
    """Whether there are as many workers as they can use.

    Args:
        installed: In the machine.
        usable: By affinity (taskset, cpusets, Slurm).
        quota: Of CPU time, in cores (docker run --cpus, resources.limits.cpu); None: no limit.
        plans: What is wanted.
        environment: Of this process: what Slurm says of it.
    """
    default = max(1, math.ceil(min(usable, quota or math.inf)))
    wanted = default if plans.num_workers is None else plans.num_workers
    given = [f"{usable} of {installed} by affinity", "no quota" if quota is None else f"a quota of {quota:g}"]
    slurm = (environment or {}).get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdecimal():
        given.append(f"{slurm} by SLURM_CPUS_PER_TASK")
    bounds = [float(usable), quota or math.inf, float(slurm) if slurm.isdecimal() else math.inf]
    share = min(bounds)
    found = f"{', '.join(given)}; {wanted} workers"
    if plans.num_workers is None:
        found += ", one per core"
    if wanted > max(1, math.ceil(share)):
        return warning("cores", found, f"workers would wait for each other: num_workers={max(1, math.floor(share))}")
    return fine("cores", found)
