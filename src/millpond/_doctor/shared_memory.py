"""Shared memory: a memfd holds the batches, which /dev/shm does not bound; where there is none, /dev/shm does."""

from __future__ import annotations

import os
from dataclasses import dataclass

from millpond._amounts import size_in_words
from millpond._doctor.findings import Finding, Plans, error, fine, warning

_NOT_HERE = "this system has none"


@dataclass(frozen=True, slots=True)
class Memfd:
    """What came of asking for one.

    Attributes:
        problem: Why there is none; "".
        bound_bytes: Of what it can hold, beside memory; None: nothing else bounds it.
    """

    problem: str = ""
    bound_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Shm:
    """/dev/shm."""

    total_bytes: int
    free_bytes: int
    is_writable: bool = True


def try_memfd() -> Memfd:
    """Make one, write to it, and look at what bounds it."""
    if not hasattr(os, "memfd_create"):
        return Memfd(_NOT_HERE)
    try:
        descriptor = os.memfd_create("millpond-doctor", os.MFD_CLOEXEC)
    except OSError as failure:
        return Memfd(f"memfd_create fails: {failure.strerror}")
    try:
        os.posix_fallocate(descriptor, 0, 1 << 20)
        status = os.fstatvfs(descriptor)
        return Memfd(bound_bytes=status.f_blocks * status.f_frsize or None)
    except OSError as failure:
        return Memfd(f"a memfd takes no memory: {failure.strerror}")
    finally:
        os.close(descriptor)


def look_at_shm(path: str = "/dev/shm") -> Shm | None:
    """Its size; None where there is none."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    return Shm(size, free, os.access(path, os.W_OK | os.X_OK))


def memfd(found: Memfd, plans: Plans) -> Finding:
    """Whether batches can lie in a memfd."""
    if found.problem == _NOT_HERE:
        return fine("memfd", f"{_NOT_HERE}; batches lie in POSIX shared memory")
    if found.problem:
        remedy = "allow memfd_create: sysctl vm.memfd_noexec=0, or the sandbox's seccomp profile"
        return warning("memfd", f"{found.problem}; batches would lie in /dev/shm", remedy)
    if found.bound_bytes is not None and found.bound_bytes < plans.memory_bytes:
        size = size_in_words(found.bound_bytes)
        return error("memfd", f"holds {size} here", f"lower memory= below {size}: this sandbox bounds shared memory")
    return fine("memfd", "works; memory and its control group bound it, /dev/shm does not")


def shm(found: Shm | None, plans: Plans, *, is_used: bool) -> Finding:
    """Whether /dev/shm is large enough, where it `is_used` for batches at all."""
    if found is None:
        remedy = "mount a tmpfs at /dev/shm"
        text = "there is none"
        return error("/dev/shm", text, remedy) if is_used else fine("/dev/shm", f"{text}; millpond does not need it")
    if not found.is_writable:
        text, remedy = "it cannot be written", "mount it read-write, with mode 1777"
        if is_used:
            return error("/dev/shm", f"{text}, and batches lie there", remedy)
        return warning("/dev/shm", f"{text}; torch's own DataLoader and multiprocessing's locks need it", remedy)
    text = f"{size_in_words(found.free_bytes)} of {size_in_words(found.total_bytes)} are free"
    if not is_used:
        return fine("/dev/shm", f"{text}; only torch's own DataLoader needs it")
    if found.free_bytes < plans.memory_bytes:
        size = size_in_words(plans.memory_bytes)
        remedy = f"docker run --shm-size, or an emptyDir of medium Memory at /dev/shm; or lower memory= from {size}"
        return error("/dev/shm", f"{text}, and batches lie there", remedy)
    return fine("/dev/shm", f"{text}, and batches lie there")
