"""Memory of machine and control group against the budget of a loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millpond._amounts import size_in_words
from millpond._cgroups import MemoryLimit
from millpond._doctor.findings import Finding, Plans, error, fine, warning

_COMFORT = 0.8
"""A budget above this share of what is free leaves too little for the program itself: model, torch, files' cache."""
_STRICT = 2
"""Of vm.overcommit_memory: no more than CommitLimit is promised."""


def machine_memory(total_bytes: int, available_bytes: int, plans: Plans) -> Finding:
    """What the machine has, and has free."""
    subject, budget = "memory", size_in_words(plans.memory_bytes)
    found = f"{size_in_words(available_bytes)} of {size_in_words(total_bytes)} are free, for a budget of {budget}"
    if plans.memory_bytes > available_bytes:
        return error(subject, found, "lower memory= (--memory here), or end what takes the rest")
    if plans.memory_bytes > available_bytes * _COMFORT:
        return warning(subject, found, "the program needs memory besides: lower memory= (--memory here)")
    return fine(subject, found)


def group_memory(limits: Sequence[MemoryLimit], plans: Plans, *, kills_whole_group: bool = False) -> Finding:
    """What the control group allows; `limits` with the least room first."""
    subject = "cgroup memory"
    if not limits:
        return fine(subject, "no limit")
    tightest = limits[0]
    found = (
        f"{size_in_words(tightest.free_bytes)} are free of {tightest.name} {size_in_words(tightest.limit_bytes)}, for "
        f"a budget of {size_in_words(plans.memory_bytes)}"
    )
    if kills_whole_group:
        found += "; memory.oom.group is set: for want of memory all processes of the container are killed together"
    more = "lower memory= (--memory here), or ask the scheduler for more (docker run --memory, resources.limits, --mem)"
    if plans.memory_bytes > tightest.free_bytes:
        end = "a run would be killed" if tightest.kills else "a run would be slowed down to a crawl"
        return (error if tightest.kills else warning)(subject, found, f"{end}: {more}")
    if plans.memory_bytes > tightest.free_bytes * _COMFORT:
        return warning(subject, found, f"the program needs memory besides: {more}")
    return fine(subject, found)


def kills_for_memory(count: int | None) -> Finding:
    """Processes of the group that were killed so far."""
    subject = "killed for want of memory"
    if not count:
        return fine(subject, "nothing so far" if count == 0 else "not counted here")
    return warning(
        subject,
        f"{count} processes of this control group so far",
        "lower memory= or num_workers=, or ask the scheduler for more memory; `dmesg` names those that were killed",
    )


def overcommit(mode: int | None, meminfo: Mapping[str, int], plans: Plans) -> Finding:
    """Whether the kernel promises more than it has; `meminfo` in bytes."""
    subject = "overcommit"
    if mode is None:
        return fine(subject, "not told here")
    if mode != _STRICT:
        return fine(subject, f"vm.overcommit_memory is {mode}: processes may fork, whatever they hold")
    left = meminfo.get("CommitLimit", 0) - meminfo.get("Committed_AS", 0)
    found = f"vm.overcommit_memory is {mode}, and {size_in_words(max(0, left))} may still be promised"
    if left < plans.memory_bytes:
        return error(subject, found, "sysctl vm.overcommit_memory=0, or raise vm.overcommit_ratio, or lower memory=")
    return fine(subject, found)


def swap(total_bytes: int, used_bytes: int) -> Finding:
    """Whether memory has run out before."""
    if not total_bytes:
        return fine("swap", "none")
    found = f"{size_in_words(used_bytes)} of {size_in_words(total_bytes)} are in use"
    if used_bytes > total_bytes // 2:
        return warning("swap", found, "batches that are swapped out come at the speed of the disk: lower memory=")
    return fine("swap", found)


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found
