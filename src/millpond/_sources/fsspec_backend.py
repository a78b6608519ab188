"""Every scheme that obstore does not read, through fsspec: its blocking calls, in threads of our own.

Its file systems say nothing of the version that a range is of, so that is asked for before the first range of an
object, and again once that answer is old.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from millpond._sources.addresses import Address
from millpond._sources.backends import Answer
from millpond._sources.failures import Kind, TryFailed, failed_with_status
from millpond._sources.limits import FetchLimits
from millpond._sources.threads import DaemonThreads
from millpond._values import FileIdentity

_T = TypeVar("_T")
_THREADS = 16
_PART_BYTES = 1 << 20
_IDENTITY_SECONDS = 30.0
_PACKAGES = {"hf": "millpond[hub]", "ssh": "paramiko", "sftp": "paramiko", "hdfs": "pyarrow", "smb": "smbprotocol",
             "dropbox": "dropboxdrivefs", "gdrive": "gdrivefs", "oss": "ossfs", "webdav": "webdav4"}  # fmt: skip


class FsspecBackend:
    """One file system instance of its own, used from a few threads."""

    def __init__(self, address: Address, options: Mapping[str, Any], limits: FetchLimits) -> None:
        self._files, self._root = _file_system(address, options)
        self._threads = DaemonThreads(_THREADS, "millpond-fsspec")
        self._seen: dict[str, tuple[FileIdentity, float]] = {}

    async def get(self, key: str, start: int, stop: int, identity: FileIdentity | None) -> Answer:
        """See `Backend`."""
        return await self._do(lambda: self._read(key, start, stop))

    async def head(self, key: str) -> FileIdentity:
        """See `Backend`."""
        return await self._do(lambda: self._look(key, 0.0))

    async def parts(self, key: str, start: int, identity: FileIdentity | None) -> FsspecParts:
        """See `Backend`."""
        found = await self.head(key)
        return FsspecParts(self, await self._do(lambda: self._open(key, start)), found)

    async def keys(self, prefix: str) -> list[str]:
        """See `Backend`."""
        return await self._do(lambda: self._find(prefix.strip("/")))

    async def settle(self) -> None:
        """See `Backend`. Threads of Python's own are no danger."""

    def close(self) -> None:
        """Threads end after what they do: a call of fsspec is not to be interrupted."""
        self._threads.end()

    async def _do(self, work: Callable[[], _T]) -> _T:
        try:
            return await self._threads.run(work)
        except TryFailed:
            raise
        except Exception as error:  # noqa: BLE001 - every file system raises errors of its own
            raise _failure_of(error) from None

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}" if key else self._root

    def _read(self, key: str, start: int, stop: int) -> Answer:
        identity = self._look(key, _IDENTITY_SECONDS)
        stop = min(stop, identity.size_bytes)
        if start >= stop:
            return Answer(b"", identity)
        return Answer(self._files.cat_file(self._path(key), start=start, end=stop), identity)

    def _look(self, key: str, age_seconds: float) -> FileIdentity:
        seen = self._seen.get(key)
        now = time.monotonic()
        if seen is None or now - seen[1] >= age_seconds:
            self._files.invalidate_cache()
            seen = self._seen[key] = (_identity(self._files.info(self._path(key))), now)
        return seen[0]

    def _open(self, key: str, start: int) -> Any:
        file = self._files.open(self._path(key), "rb", cache_type="readahead", block_size=_PART_BYTES)
        file.seek(start)
        return file

    def _find(self, prefix: str) -> list[str]:
        self._files.invalidate_cache()
        root = self._files._strip_protocol(self._root).rstrip("/")
        cut = len(root) + 1 if root else 0
        return [path[cut:].lstrip("/") for path in self._files.find(self._path(prefix))]


class FsspecParts:
    """An open file of fsspec. See `Parts`."""

    def __init__(self, backend: FsspecBackend, file: Any, identity: FileIdentity) -> None:
        self.identity: FileIdentity | None = identity
        self.size_bytes: int | None = identity.size_bytes
        self._backend, self._file = backend, file

    async def part(self) -> bytes | None:
        """See `Parts`."""
        return await self._backend._do(lambda: self._file.read(_PART_BYTES)) or None

    async def close(self) -> None:
        """Closes the file."""
        await self._backend._do(self._file.close)


def _file_system(address: Address, options: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        import fsspec
        from fsspec.core import url_to_fs

        fsspec.get_filesystem_class(address.kind)
    except (ImportError, ValueError) as error:
        # fsspec's own text says which package reads the scheme
        package = _PACKAGES.get(address.kind, f"fsspec and its package for {address.kind}")
        raise TryFailed(
            Kind.UNREADABLE, f"URLs with {address.kind}:// are read through fsspec ({error}); install {package}"
        ) from None
    try:
        files, root = url_to_fs(address.url, skip_instance_cache=True, **options)
    except Exception as error:  # noqa: BLE001 - every file system raises errors of its own
        raise TryFailed(
            Kind.REFUSED, f"its file system cannot be made with these storage_options ({type(error).__name__})"
        ) from None
    return files, root


def _identity(info: Mapping[str, Any]) -> FileIdentity:
    if info.get("type") == "directory":
        raise TryFailed(Kind.REFUSED, "it is a folder")
    size = info.get("size")
    if size is None:
        raise TryFailed(Kind.UNSIZED, "its size is not known")
    tags = (info.get(name) for name in ("ETag", "etag", "e_tag", "blob_id", "sha256", "md5Hash"))
    etag = next((tag for tag in tags if isinstance(tag, str) and tag), "")
    times = (info.get(name) for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"))
    return FileIdentity(int(size), 0 if etag else next(filter(None, map(_nanoseconds, times)), 0), etag)


def _nanoseconds(moment: Any) -> int:
    if isinstance(moment, datetime):
        return int(moment.timestamp() * 1e6) * 1000
    return int(moment * 1e6) * 1000 if isinstance(moment, int | float) else 0


def _failure_of(error: Exception) -> TryFailed:
    response = getattr(error, "response", None)
    for status in (
        getattr(error, "status", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
    ):
        if isinstance(status, int) and 400 <= status < 600:
            return failed_with_status(status)
    if isinstance(error, FileNotFoundError):
        return TryFailed(Kind.MISSING, "no such object")
    if isinstance(error, ImportError):
        return TryFailed(Kind.UNREADABLE, "a package that its file system needs is not installed")
    if isinstance(error, PermissionError):
        return TryFailed(Kind.REFUSED, "permission denied")
    if isinstance(error, IsADirectoryError):
        return TryFailed(Kind.REFUSED, "it is a folder")
    if isinstance(error, OSError):
        words = os.strerror(error.errno) if error.errno else f"the request failed ({type(error).__name__})"
        return TryFailed(Kind.AGAIN, words)
    is_network = type(error).__module__.partition(".")[0] in ("aiohttp", "requests", "urllib3", "httpx", "botocore")
    return TryFailed(Kind.AGAIN if is_network else Kind.REFUSED, f"the request failed ({type(error).__name__})")
