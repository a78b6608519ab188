"""A file that another process appends to."""

from __future__ import annotations

import os

_PART_BYTES = 1 << 20


class GrowingFile:
    """Reads what was appended since the last time; the file need not be there yet.

    Args:
        path: Its name.
        from_end: Whether what is there now was read before.
    """

    def __init__(self, path: str, *, from_end: bool = False) -> None:
        self._path = path
        self._offset = os.path.getsize(path) if from_end and os.path.exists(path) else 0
        self._descriptor = -1

    def read_on(self) -> bytes:
        """What is new, up to 1 MiB of it; empty where nothing is."""
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return b""
        data = os.pread(self._descriptor, _PART_BYTES, self._offset)
        self._offset += len(data)
        return data

    def close(self) -> None:
        """Let go of it; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
