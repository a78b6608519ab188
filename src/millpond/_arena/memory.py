"""The memory behind the arena: mapped once by every process, gone with the last of them.

Ownership. The training process creates it; a worker attaches to a descriptor that it was handed. On Linux it is a
memfd: it has no name, so nothing can be left behind even after `kill -9`, and it is not limited by /dev/shm. Elsewhere,
or when asked for, it is `multiprocessing.shared_memory`, which has a name: the creator unlinks it on close.
The mapping lives until `close` was called and the last view is gone, whichever is later.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from multiprocessing import resource_tracker, shared_memory

from millpond import settings

MADV_POPULATE_WRITE = 23
"""Linux 5.14; the mmap module has no name for it yet."""

_HAS_MEMFD = hasattr(os, "memfd_create")


class ArenaMemory:
    """A fixed piece of shared memory.

    Attributes:
        buffer: The whole of it, writable.
        handle: What a worker attaches with: a descriptor's number (memfd), or the name (shared memory).
    """

    def __init__(self, buffer: memoryview, handle: int | str, owner: mmap.mmap | shared_memory.SharedMemory) -> None:
        self.buffer = buffer
        self.handle = handle
        self._owner = owner
        self._creator_pid = os.getpid()
        self._closed = False

    @classmethod
    def create(cls, size_bytes: int) -> ArenaMemory:
        """Make and prefault it; OSError where the machine has not so much memory."""
        if _HAS_MEMFD and not settings.current().shared_memory:
            descriptor = os.memfd_create("millpond-arena", os.MFD_CLOEXEC)
            try:
                os.posix_fallocate(descriptor, 0, size_bytes)
                mapping = mmap.mmap(descriptor, size_bytes)
            except BaseException:
                os.close(descriptor)
                raise
            _populate(mapping)
            return cls(memoryview(mapping), descriptor, mapping)
        shared = shared_memory.SharedMemory(create=True, size=size_bytes)
        return cls(shared.buf[:size_bytes], shared.name, shared)

    @classmethod
    def attach(cls, handle: int | str, size_bytes: int) -> ArenaMemory:
        """Map it in a worker. The pages are there already; mapping them at once saves a fault per page and process."""
        if isinstance(handle, int):
            mapping = mmap.mmap(handle, size_bytes)
            _populate(mapping)
            return cls(memoryview(mapping), handle, mapping)
        # Before 3.13 attaching registers with the tracker, which would unlink the creator's memory when we end.
        if sys.version_info >= (3, 13):
            shared = shared_memory.SharedMemory(name=handle, track=False)
        else:
            shared = shared_memory.SharedMemory(name=handle)
            resource_tracker.unregister(f"/{shared.name}", "shared_memory")
        return cls(shared.buf[:size_bytes], handle, shared)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a worker must be handed to attach."""
        return (self.handle,) if isinstance(self.handle, int) else ()

    def close(self) -> None:
        """Let go of it. Idempotent; views stay valid until they are gone."""
        if self._closed:
            return
        self._closed = True
        if isinstance(self.handle, int):
            os.close(self.handle)
        elif os.getpid() == self._creator_pid and isinstance(self._owner, shared_memory.SharedMemory):
            self._owner.unlink()
        self.buffer.release()
        with contextlib.suppress(BufferError):  # someone still holds a view: the mapping ends with it
            self._owner.close()


def _populate(mapping: mmap.mmap) -> None:
    # Older kernels say EINVAL: then pages come one by one, when they are first written.
    with contextlib.suppress(OSError):
        mapping.madvise(MADV_POPULATE_WRITE)
