"""Files without a name: there as long as a block, gone with it, also after `kill -9` where the system allows it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import NamedTuple


class MemoryFile(NamedTuple):
    """An open file.

    Attributes:
        descriptor: For writing and reading.
        path: Under which it can be opened in this process, while the block lasts.
    """

    descriptor: int
    path: str


@contextlib.contextmanager
def memory_file(*, on_disk: bool = False) -> Iterator[MemoryFile]:
    """An empty file: a memfd, where there are any, else a temporary file.

    Args:
        on_disk: What goes into it may be larger than memory: a file of the temporary folder, without a name if it can
            be.
    """
    has_descriptor_paths = os.path.isdir("/proc/self/fd")
    if has_descriptor_paths and on_disk:
        with tempfile.TemporaryFile(prefix="millpond-media-", buffering=0) as file:
            yield MemoryFile(file.fileno(), f"/proc/self/fd/{file.fileno()}")
    elif has_descriptor_paths and hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("millpond-media", os.MFD_CLOEXEC)
        try:
            yield MemoryFile(descriptor, f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix="millpond-media-", buffering=0) as named:
            yield MemoryFile(named.fileno(), named.name)


def write_all(descriptor: int, data: bytes | memoryview, position: int | None = None) -> None:
    """Write all of it, where the descriptor stands or at a position."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.write(descriptor, rest) if position is None else os.pwrite(descriptor, rest, position)
        position = None if position is None else position + written
        rest = rest[written:]
