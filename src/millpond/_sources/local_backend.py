"""Files of this machine, by the calls of the operating system: identities are those that sidecars know."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from millpond._sources.addresses import Address, joined
from millpond._sources.backends import Answer
from millpond._sources.failures import Kind, TryFailed
from millpond._sources.threads import DaemonThreads
from millpond._values import FileIdentity

_T = TypeVar("_T")
_THREADS = 8
_PART_BYTES = 1 << 20


class LocalBackend:
    """Files below a folder, or one file. Reads in threads of its own: a network's file system may take its time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._threads = DaemonThreads(_THREADS, "millpond-file")

    async def get(self, key: str, start: int, stop: int, identity: FileIdentity | None) -> Answer:
        """See `Backend`."""
        return await self._do(lambda: self._read(key, start, stop))

    async def head(self, key: str) -> FileIdentity:
        """See `Backend`."""
        return await self._do(lambda: _identity(os.stat(self._address.local_path(key))))

    async def parts(self, key: str, start: int, identity: FileIdentity | None) -> LocalParts:
        """See `Backend`."""
        return LocalParts(self, key, start, await self.head(key))

    async def keys(self, prefix: str) -> list[str]:
        """See `Backend`."""
        return await self._do(lambda: self._walk(prefix.strip("/")))

    async def settle(self) -> None:
        """See `Backend`. Threads of Python's own are no danger."""

    def close(self) -> None:
        """End the threads."""
        self._threads.end()

    async def _do(self, work: Callable[[], _T]) -> _T:
        try:
            return await self._threads.run(work)
        except (FileNotFoundError, NotADirectoryError):
            raise TryFailed(Kind.MISSING, "no such file") from None
        except (OSError, ValueError) as error:
            words = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is no path"
            raise TryFailed(Kind.REFUSED, words) from None

    def _read(self, key: str, start: int, stop: int) -> Answer:
        descriptor = os.open(self._address.local_path(key), os.O_RDONLY | os.O_CLOEXEC)
        try:
            identity = _identity(os.fstat(descriptor))
            parts = []
            while start < stop and (part := os.pread(descriptor, stop - start, start)):
                parts.append(part)
                start += len(part)
            return Answer(parts[0] if len(parts) == 1 else b"".join(parts), identity)
        finally:
            os.close(descriptor)

    def _walk(self, prefix: str) -> list[str]:
        root = Path(self._address.local_path(""))
        folder = root / prefix
        return [
            joined(prefix, (Path(place) / name).relative_to(folder).as_posix())
            for place, _, names in os.walk(folder)
            for name in names
        ]


class LocalParts:
    """A file read in parts. See `Parts`."""

    def __init__(self, backend: LocalBackend, key: str, start: int, identity: FileIdentity) -> None:
        self.identity: FileIdentity | None = identity
        self.size_bytes: int | None = identity.size_bytes
        self._backend, self._key, self._start = backend, key, start

    async def part(self) -> bytes | None:
        """See `Parts`."""
        answer = await self._backend.get(self._key, self._start, self._start + _PART_BYTES, None)
        if answer.identity != self.identity:
            raise TryFailed(Kind.CHANGED, "it was written to", found=answer.identity)
        self._start += answer.num_bytes
        return bytes(answer.data) or None

    async def close(self) -> None:
        """Nothing is held."""


def _identity(status: os.stat_result) -> FileIdentity:
    if stat.S_ISDIR(status.st_mode):
        raise TryFailed(Kind.REFUSED, "it is a folder")
    return FileIdentity(status.st_size, status.st_mtime_ns)
