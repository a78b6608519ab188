"""Limits of this process (ulimit), against what a loader takes."""

from __future__ import annotations

import math

from millpond._amounts import size_in_words
from millpond._doctor.findings import Finding, Plans, error, fine, warning

_DESCRIPTORS, _DESCRIPTORS_PER_WORKER = 64, 8
"""Of the program itself, and of a worker: its sockets, its pidfd, and what is under way to it."""
_EASY_DESCRIPTORS = 1024
"""Decoders that are kept open and requests to a store take hundreds."""
_PROCESSES, _PROCESSES_PER_WORKER = 32, 4
"""Threads count: those of decoders and requests too."""
_ADDRESSES_BYTES = 16 << 30
"""What torch and its libraries map, without using it."""


def open_files(soft: float, hard: float, workers: int) -> Finding:
    """RLIMIT_NOFILE."""
    subject, found = "open files", f"up to {_count(soft)} (ulimit -n), of {_count(hard)} that may be asked for"
    needed = _DESCRIPTORS + _DESCRIPTORS_PER_WORKER * workers
    wish = int(min(hard, 65536))
    remedy = f"ulimit -n {wish}" if hard > soft else "raise nofile in /etc/security/limits.conf, or docker --ulimit"
    if soft < needed:
        return error(subject, f"{found}; {workers} workers need {needed}", remedy)
    if soft < _EASY_DESCRIPTORS:
        return warning(subject, found, remedy)
    return fine(subject, found)


def processes(soft: float, used: int | None, group: tuple[int, int] | None, workers: int) -> Finding:
    """RLIMIT_NPROC of the user, and pids.max of the control group; threads count as processes do.

    Args:
        soft: The limit.
        used: Threads of this user; None: not known, or not limited (root).
        group: Limit and what is free, of the control group.
        workers: That are wanted.
    """
    subject, needed = "processes", _PROCESSES + _PROCESSES_PER_WORKER * workers
    told, left = [f"up to {_count(soft)} (ulimit -u)"], math.inf
    if used is not None and soft != math.inf:
        told, left = [f"{used} of {_count(soft)} (ulimit -u)"], soft - used
    if group is not None:
        told.append(f"{group[0] - group[1]} of {group[0]} (pids.max of the control group)")
        left = min(left, group[1])
    found = ", ".join(told)
    if left < needed:
        remedy = "ulimit -u, docker run --pids-limit, or fewer workers: num_workers="
        return error(subject, f"{found}; {workers} workers and their threads need {needed}", remedy)
    return fine(subject, found)


def address_space(soft: float, plans: Plans) -> Finding:
    """RLIMIT_AS: bounds what is mapped, not what is used."""
    if soft == math.inf:
        return fine("address space", "no limit (ulimit -v)")
    found = f"{size_in_words(int(soft))} (ulimit -v)"
    remedy = "ulimit -v unlimited: what is mapped is far more than what is used; limit memory by a control group"
    if soft < plans.memory_bytes:
        return error("address space", f"{found}, less than the budget", remedy)
    if soft < plans.memory_bytes + _ADDRESSES_BYTES:
        return warning("address space", found, remedy)
    return fine("address space", found)


def file_size(soft: float, plans: Plans) -> Finding:
    """RLIMIT_FSIZE: shared memory counts as a file."""
    if soft == math.inf:
        return fine("size of files", "no limit (ulimit -f)")
    found = f"{size_in_words(int(soft))} (ulimit -f)"
    if soft < plans.memory_bytes:
        return error("size of files", f"{found}; shared memory is a file, too", "ulimit -f unlimited")
    return fine("size of files", found)


def locked_memory(soft: float) -> Finding:
    """RLIMIT_MEMLOCK."""
    told = "no limit" if soft == math.inf else size_in_words(int(soft))
    return fine(
        "locked memory", f"{told} (ulimit -l); nothing here locks memory, and CUDA's pinned memory is not bound"
    )


def _count(limit: float) -> str:
    return "any number" if limit == math.inf else f"{int(limit):,}"
