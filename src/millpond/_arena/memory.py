"""The memory behind the arena: mapped once by every process, gone with the last of them.

Ownership. The training process creates it and hands its descriptor to workers, which map it. It has no name that could
be left behind, even after `kill -9`: on Linux it is a memfd, which /dev/shm does not limit; elsewhere, or when asked
for, POSIX shared memory that is unlinked as soon as it is open. A mapping lives until `close` was called and the last
view is gone, whichever is later.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets

from millpond._cgroups import ControlGroups
from millpond.errors import ArenaFull

MADV_POPULATE_WRITE = 23
"""Linux 5.14; the mmap module has no name for it yet."""


class ArenaMemory:
    """A fixed piece of shared memory, mapped here.

    Args:
        descriptor: Of the memory; owned from now on.
        size_bytes: Of the mapping.

    Attributes:
        descriptor: What another process maps it with.
        size_bytes: Of the mapping.
        buffer: The whole of it, writable.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self.descriptor = descriptor
        self.size_bytes = size_bytes
        self._mapping = mmap.mmap(descriptor, size_bytes)
        self._populated_bytes = 0
        self.buffer = memoryview(self._mapping)
        self._closed = False

    def populate(self, size_bytes: int) -> None:
        """Map the pages of the next so many bytes, until all are mapped.

        A fault for each page costs twice as much, 0.4 s per GiB and process. All at once, 0.2 s per GiB, would keep a
        worker that follows another from its first task.
        """
        start = self._populated_bytes
        if start >= self.size_bytes:
            return
        self._populated_bytes = min(start + size_bytes, self.size_bytes)
        # Older kernels say EINVAL, and there they come one by one.
        with contextlib.suppress(OSError):
            self._mapping.madvise(MADV_POPULATE_WRITE, start, self._populated_bytes - start)

    @classmethod
    def create(cls, size_bytes: int, *, posix: bool = False) -> ArenaMemory:
        """Make it, with all of its pages.

        Args:
            size_bytes: Of the memory.
            posix: POSIX shared memory also where there is a memfd.

        Raises:
            ArenaFull: The machine, or the container, has not so much memory free. The kernel would not say so: it would
                hand out pages until it kills somebody.
        """
        free = available_bytes()
        if size_bytes > free:
            raise ArenaFull(
                f"the arena needs {size_bytes >> 20} MiB, and {free >> 20} MiB are free here; lower memory=",
                wanted_bytes=size_bytes,
                free_bytes=free,
                holders={},
            )
        memfd = hasattr(os, "memfd_create") and not posix
        descriptor = os.memfd_create("millpond-arena", os.MFD_CLOEXEC) if memfd else _open_posix()
        try:
            _reserve(descriptor, size_bytes)
            memory = cls(descriptor, size_bytes)
            memory.populate(size_bytes)
        except BaseException:
            os.close(descriptor)
            raise
        if hasattr(mmap, "MADV_DONTFORK"):
            # A forked child that reads a batch whose slot was given to another would see other samples' pixels: it
            # shall crash instead. Workers are forked by the zygote, and map for themselves.
            memory._mapping.madvise(mmap.MADV_DONTFORK)
        return memory

    def close(self) -> None:
        """Let go of it. Idempotent; views stay valid until they are gone."""
        if self._closed:
            return
        self._closed = True
        os.close(self.descriptor)
        with contextlib.suppress(BufferError):  # someone still holds a view: the mapping ends with the last
            self.buffer.release()
            self._mapping.close()


def available_bytes() -> int:
    """Memory that may be taken without swapping, as machine and control groups see it."""
    import psutil  # here, since workers never ask

    free = int(psutil.virtual_memory().available)
    return min([free, *(limit.free_bytes for limit in ControlGroups().memory_limits() if limit.kills)])


def _reserve(descriptor: int, size_bytes: int) -> None:
    if not hasattr(os, "posix_fallocate"):
        os.ftruncate(descriptor, size_bytes)
        return
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Pages that are not there would be a SIGBUS later, in whoever touches them first.
        raise ArenaFull(
            f"shared memory here does not hold the arena of {size_bytes >> 20} MiB; lower memory=, or enlarge /dev/shm",
            wanted_bytes=size_bytes,
            free_bytes=0,
            holders={},
        ) from error


def _open_posix() -> int:
    import _posixshmem  # type: ignore[import-not-found] # multiprocessing.shared_memory stands on it, but starts a process to track names

    name = f"/millpond-{secrets.token_hex(8)}"
    descriptor: int = _posixshmem.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    _posixshmem.shm_unlink(name)
    return descriptor
