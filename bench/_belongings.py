"""What a process has at one moment: memory, memory that it shares, descriptors, threads, and processes below it."""

from __future__ import annotations

import gc
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from millpond._observe.memory import process_memory, tree_pids

# One per process and for its life: of millpond, and of the standard library's multiprocessing.
STANDING = {
    "zygote": "millpond._workers.zygote_process",
    "forkserver": "multiprocessing.forkserver",
    "resource tracker": "multiprocessing.resource_tracker",
}


def belongings() -> dict[str, int]:
    """Of this process and everything below it; bytes where the name says so.

    The collector runs in between: what it finds counts as here, and memory is looked at both before and after it. A
    full collection also empties CPython's free lists, which else grow by some blocks a job, up to thousands of them.
    """
    own = os.getpid()
    pids = tree_pids(own)
    below = Counter(role_of(pid) for pid in pids if pid != own)
    kinds = Counter(_kind(target) for target in _targets(own))
    counts = {
        "shared_bytes": shared_bytes(pids),
        "dev_shm_bytes": dev_shm_bytes(),
        "descriptors": sum(kinds.values()),
        "pipes": kinds["pipe"],
        "sockets": kinds["socket"],
        "shared_descriptors": kinds["shared"],
        "threads": len(os.listdir(f"/proc/{own}/task")),
        "processes": below["worker"],
        "standing_processes": sum(below.values()) - below["worker"],
        "rss_before_collection_bytes": process_memory(own).rss_bytes,
    }
    garbage = gc.collect()
    memory = process_memory(own)
    # Of the PSS the heaps alone: a page of a library counts for less while others on this machine have it mapped, too.
    heaps = sum(process_memory(pid).pss_anon_bytes for pid in tree_pids(own))
    sizes = {"rss_bytes": memory.rss_bytes, "pss_bytes": memory.pss_bytes, "heaps_of_all_bytes": heaps}
    return {**counts, "garbage_objects": garbage, **sizes}


def role_of(pid: int) -> str:
    """A name of STANDING, "worker", or "" for a process that has just ended."""
    with suppress(OSError, psutil.Error):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        name = psutil.Process(pid).name()
        for role, sign in STANDING.items():
            # A worker has its zygote's or forkserver's command line, and another parent than us.
            if (sign in arguments or name.endswith(role)) and psutil.Process(pid).ppid() == os.getpid():
                return role
        return "worker"
    return ""


def shared_bytes(pids: list[int]) -> int:
    """Memory in files without a name, or in /dev/shm, that any of the processes has open or mapped; each file once."""
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        for number in _descriptors(pid):
            path = f"/proc/{pid}/fd/{number}"
            with suppress(OSError):
                if _kind(os.readlink(path)) == "shared":
                    facts = os.stat(path)
                    found[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
        for device, inode, pss in _shared_mappings(pid):
            known = found.get((device, inode))
            if known is None:
                found[device, inode] = pss
    return sum(found.values())


def dev_shm_bytes() -> int:
    """What all processes of this machine have in /dev/shm, files that were unlinked included."""
    with suppress(OSError):
        facts = os.statvfs("/dev/shm")
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize
    return 0


def _descriptors(pid: int) -> list[str]:
    with suppress(OSError):
        return os.listdir(f"/proc/{pid}/fd")
    return []


def _targets(pid: int) -> list[str]:
    """What descriptors are of; the one that this very look takes is left out."""
    found = []
    for number in _descriptors(pid):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def _kind(target: str) -> str:
    if target.startswith(("/memfd:", "/dev/shm/")):
        return "shared"
    return target.partition(":")[0]


def _shared_mappings(pid: int) -> list[tuple[int, int, int]]:
    """(device, inode, resident bytes) of shared files that are mapped."""
    found: dict[tuple[int, int], int] = {}
    key: tuple[int, int] | None = None
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
            first = line.split(None, 1)[0]
            if not first.endswith(":"):
                parts = line.split(None, 5)
                key = None
                if len(parts) == 6 and _kind(parts[5]) == "shared":
                    major, minor = (int(number, 16) for number in parts[3].split(":"))
                    key = (os.makedev(major, minor), int(parts[4]))
            elif key is not None and first == "Rss:":
                found[key] = found.get(key, 0) + (int(line.split()[1]) << 10)
    return [(*key, resident) for key, resident in found.items()]
