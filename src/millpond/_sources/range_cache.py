"""Ranges of objects that were fetched, kept on this machine's disk: bounded, for many processes, worthless once lost.

One file holds one range of one version of one object: its name carries digests of the object's name and version, and
the range. It is written under another name and put in place at once, and it carries its CRC-32, so that what a crash, a
full disk or a stranger left is not taken for data. The sum of all sizes stands in a file of its own, which is changed
under a lock, before a range is put in place: after a crash it says too much, and never too little. Where it comes to
the limit, the folder is looked through, the ranges that were not used for longest go, and the sum is right again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond._values import ByteRange, FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

_logger = logging.getLogger("millpond")

_HEAD = struct.Struct("<8sI")  # what it is, and the CRC-32 of the range
_MAGIC = b"mprange1"
_SUFFIX = ".range"
_WRITING, _WRITING_SECONDS = ".writing-", 3600.0
_LOCK, _TOTAL = "lock", "total"
_KEPT_SHARE = 0.9
"""Of the limit, when something must go: looking through a folder of 10,000 files takes 20 ms."""

_numbers = itertools.count()


class RangeCache:
    """A folder of ranges. Any thread, any number of processes; picklable.

    Args:
        folder: Made when the first range is kept. Nothing else may lie there.
        max_bytes: Of all ranges together.

    Raises:
        ValueError: `max_bytes` is less than 1.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ValueError(f"a cache of {max_bytes} bytes keeps nothing: give at least 1, or no cache")
        self.folder, self.max_bytes = Path(folder), max_bytes
        self._is_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.max_bytes)

    def find(self, name: str, identity: FileIdentity, wanted: ByteRange) -> bytes | None:
        """The bytes of a range of a version of an object, if they are kept, and whole; they count as used now."""
        path = self._path_of(name, identity, wanted)
        try:
            with open(path, "rb", buffering=0) as file:
                content = file.read()
        except OSError:
            return None
        magic, crc = _HEAD.unpack_from(content) if len(content) >= _HEAD.size else (b"", 0)
        data = content[_HEAD.size :]
        if magic != _MAGIC or len(data) != len(wanted) or zlib.crc32(data) != crc:
            with contextlib.suppress(OSError):
                os.unlink(path)
            return None
        with contextlib.suppress(OSError):  # another process has dropped it meanwhile, or the folder is read-only
            os.utime(path)
        return data

    def keep(self, name: str, identity: FileIdentity, wanted: ByteRange, data: Buffer) -> None:
        """Keep the bytes of a range; where the disk does not take them they are not kept, and that is said once."""
        size = _HEAD.size + len(wanted)
        path = self._path_of(name, identity, wanted)
        if self._is_off or size > self.max_bytes or path.exists():
            return
        temporary = self.folder / f"{_WRITING}{os.getpid()}-{next(_numbers)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb", buffering=0) as file:
                for part in (_HEAD.pack(_MAGIC, zlib.crc32(data)), data):
                    _write_all(file.fileno(), part)
            with self._locked():
                self._make_room(size)
                os.replace(temporary, path)
        except OSError as error:
            self._is_off = True
            _logger.warning(
                "ranges are not kept in '%s' any more: %s; they are fetched each time", self.folder, str(error)
            )
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def _path_of(self, name: str, identity: FileIdentity, wanted: ByteRange) -> Path:
        version = f"{identity.size_bytes} {identity.mtime_ns} {identity.etag}"
        return self.folder / f"{_digest(name)}-{_digest(version)}-{wanted.start:x}-{wanted.stop:x}{_SUFFIX}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone in the folder, among threads and processes; a lock of a process that dies is gone with it."""
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_room(self, size: int) -> None:
        """Count `size` bytes in, after others have gone if need be. Under the lock."""
        total = self._total()
        if total is None or total + size > self.max_bytes:
            total = self._drop(self.max_bytes - size)
        (self.folder / _TOTAL).write_text(str(total + size))

    def _total(self) -> int | None:
        try:
            return int((self.folder / _TOTAL).read_text())
        except (OSError, ValueError):  # there is none yet, or it is torn
            return None

    def _drop(self, most_bytes: int) -> int:
        """Drop what was not used for longest, and what writers left that were killed; the bytes that stay."""
        found: list[tuple[int, int, str]] = []
        oldest = time.time() - _WRITING_SECONDS
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # torn, and dropped by who looked for it
                    status = entry.stat()
                    if entry.name.endswith(_SUFFIX):
                        found.append((status.st_mtime_ns, status.st_size, entry.path))
                    elif entry.name.startswith(_WRITING) and status.st_mtime < oldest:
                        os.unlink(entry)
        total = sum(size for _, size, _ in found)
        if total <= most_bytes:
            return total
        for _, size, path in sorted(found):
            if total <= min(most_bytes, _KEPT_SHARE * self.max_bytes):
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
        return total


def _write_all(descriptor: int, data: Buffer) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]
