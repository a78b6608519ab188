"""Ranges of objects that were fetched, on a disk of this machine: the next epoch, or the next run, need not fetch them.

A range is a file of its own, named by a digest of everything that makes its bytes what they are: the object's name
(which holds no secret), its version, and the range. So nothing that changed is ever found, and readers need no lock: a
file comes into its place whole, by a rename, and one that does not hold what it should is dropped.

Writers take turns by a lock on one file of the folder, which also holds the sum of all sizes. It is raised before a
range comes into its place and lowered after one has gone, so a process that is killed in between leaves a sum that is
too large, never one that is too small; the next count of the folder sets it right. What was being written lies in one
place, where the next writer begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millpond._locks import Claim, lock_soon, unlock
from millpond._values import ByteRange, FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

_logger = logging.getLogger("millpond")

_LOCK, _CLAIMS, _WRITING, _SUFFIX = "lock", "claims", "writing", ".range"
_HEAD = struct.Struct("<8sIQ")  # what it is, CRC-32 of the bytes, how many
_SUM = struct.Struct("<8sQ")  # what it is, bytes of all ranges; its CRC-32 follows
_CRC = struct.Struct("<I")
_IS_RANGE, _IS_SUM = b"mprange1", b"mpsum__1"
_KEPT_SHARE = 0.9
"""When room is made, this share stays: a count of the folder, a second for 300,000 ranges, then serves many writes."""
_LOCK_SECONDS = 2.0
"""A write takes a millisecond. A writer that was stopped amid one keeps others from writing, but not from going on."""


@dataclass(frozen=True, slots=True)
class _Kept:
    used_ns: int
    size_bytes: int
    path: str


class RangeCache:
    """A folder of ranges, bounded; those not used for longest go first. Any thread, and several processes at once.

    A disk that is full or cannot be written is told once; what is there is still read. Picklable: a name and a bound.

    Args:
        folder: Made when something is first kept. Nothing else belongs there.
        max_bytes: Of all files in it together, at any moment: ranges, and the sum of their sizes.

    Attributes:
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        self.folder, self.max_bytes = Path(folder), max_bytes
        self._max_range_bytes = max_bytes - _SUM.size - _CRC.size
        self._cannot_write = False
        self._was_counted = False
        self._is_locked_out = False
        self._has_refused = False

    def __reduce__(self) -> tuple[type[RangeCache], tuple[Path, int]]:
        return type(self), (self.folder, self.max_bytes)

    def __repr__(self) -> str:
        return f"RangeCache({str(self.folder)!r}, {self.max_bytes})"

    @property
    def is_full(self) -> bool:
        """Whether ranges had to go to make room for others, or some cannot be kept."""
        return self._has_refused or self._is_locked_out

    def find(self, name: str, identity: FileIdentity, wanted: ByteRange) -> bytes | None:
        """The bytes of a range that was kept; None if it was not, or no longer is whole.

        Args:
            name: Of the object, without secrets, and of no other.
            identity: Its version. One that does not tell versions apart is never found.
            wanted: Exactly this range, not a part of another one.
        """
        if not tells_versions_apart(identity):
            return None
        path = self._path_of(name, identity, wanted)
        try:
            with open(path, "rb", buffering=0) as file:
                head, data = file.read(_HEAD.size), file.readall()
        except OSError:
            return None
        if head != _HEAD.pack(_IS_RANGE, zlib.crc32(data), len(wanted)) or len(data) != len(wanted):
            self._drop(path)
            return None
        with contextlib.suppress(OSError):  # somebody made room, or the disk is not to be written
            os.utime(path)
        return data

    def keep(self, name: str, identity: FileIdentity, parts: Sequence[tuple[ByteRange, Buffer]]) -> None:
        """Keep the bytes of some ranges; without a word where that cannot be, except for the first time.

        Args:
            name, identity: As `find` will be asked.
            parts: Ranges as it will be asked for, and all bytes of each.
        """
        if self._cannot_write or not tells_versions_apart(identity):
            return
        try:
            with self._locked() as lock:
                self._is_locked_out = lock is None
                if lock is not None:
                    for wanted, data in parts:
                        self._keep(lock, self._path_of(name, identity, wanted), data)
        except OSError as error:
            self._cannot_write = self._has_refused = True
            _logger.warning(
                "cannot keep ranges in %s (%s): what is not there yet is fetched each time",
                self.folder,
                os.strerror(error.errno) if error.errno else type(error).__name__,
            )

    def _keep(self, lock: int, path: str, data: Buffer) -> None:
        num_bytes = memoryview(data).nbytes
        if _HEAD.size + num_bytes > self._max_range_bytes:
            self._has_refused = True
        elif not os.path.exists(path):
            self._write(lock, path, _HEAD.pack(_IS_RANGE, zlib.crc32(data), num_bytes), data)

    def claim(self) -> Claim:
        """Nothing yet, of numbers that all who use the folder share: who fetches a range tells others so by them.

        Where nothing can be kept, nobody is to wait for what another one fetches.
        """
        return Claim(None if self._cannot_write else self.folder / _CLAIMS)

    def forget(self, name: str, identity: FileIdentity, wanted: ByteRange) -> None:
        """Drop a range: what was kept turned out not to be what the object holds."""
        self._drop(self._path_of(name, identity, wanted))

    def _path_of(self, name: str, identity: FileIdentity, wanted: ByteRange) -> str:
        words = (name, identity.size_bytes, identity.mtime_ns, identity.etag, wanted.start, wanted.stop)
        digest = hashlib.sha256(repr(words).encode("utf-8", "surrogatepass")).hexdigest()[:40]
        return f"{self.folder}/{digest[:2]}/{digest[2:]}{_SUFFIX}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int | None]:
        """Be the only writer; gives the descriptor of the file that holds the sum, None where it is not to be had."""
        descriptor = self._open_lock()
        try:
            # who waited in vain once does not wait again for each range
            yield descriptor if lock_soon(descriptor, 0.0 if self._is_locked_out else _LOCK_SECONDS) else None
        finally:
            unlock(descriptor)
            os.close(descriptor)

    def _open_lock(self) -> int:
        name, flags = f"{self.folder}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o666)
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(name, flags, 0o666)

    def _write(self, lock: int, path: str, head: bytes, data: Buffer) -> None:
        size_bytes = len(head) + memoryview(data).nbytes
        total_bytes = self._room_for(lock, size_bytes)
        writing = f"{self.folder}/{_WRITING}"
        try:
            with open(writing, "wb", buffering=0) as file:
                for part in (head, data):
                    rest = memoryview(part).cast("B")
                    while rest:
                        rest = rest[file.write(rest) :]
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _set_sum(lock, total_bytes + size_bytes)
            os.replace(writing, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(writing)  # a disk that is full has that back
            raise

    def _room_for(self, lock: int, size_bytes: int) -> int:
        """Drop what was not used for longest, if need be; gives the bytes that are there."""
        total_bytes = _get_sum(lock) if self._was_counted else None
        if total_bytes is not None and total_bytes + size_bytes <= self._max_range_bytes:
            return total_bytes
        kept = self._count()
        self._was_counted = True
        total_bytes = sum(one.size_bytes for one in kept)
        if total_bytes + size_bytes > self._max_range_bytes:
            self._has_refused = True
            goal = min(int(self._max_range_bytes * _KEPT_SHARE), self._max_range_bytes - size_bytes)
            for one in sorted(kept, key=lambda one: one.used_ns):
                if total_bytes <= goal:
                    break
                with contextlib.suppress(OSError):  # a reader dropped it
                    os.unlink(one.path)
                total_bytes -= one.size_bytes
        _set_sum(lock, total_bytes)
        return total_bytes

    def _count(self) -> list[_Kept]:
        """The ranges that are in the folder. What a killed writer left goes."""
        kept = []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / _WRITING)
        with os.scandir(self.folder) as folders:
            for folder in folders:
                if len(folder.name) != 2 or not folder.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(folder.path) as entries:
                    for entry in entries:
                        if not entry.name.endswith(_SUFFIX) or not entry.is_file(follow_symlinks=False):
                            continue
                        with contextlib.suppress(FileNotFoundError):  # a reader dropped it
                            status = entry.stat(follow_symlinks=False)
                            kept.append(_Kept(status.st_mtime_ns, status.st_size, entry.path))
        return kept

    def _drop(self, path: str) -> None:
        """A file that is torn, or of somebody else: it was counted, so whoever counts next counts less."""
        with contextlib.suppress(OSError):
            os.unlink(path)


def tells_versions_apart(identity: FileIdentity) -> bool:
    """Whether another version would have another identity."""
    return bool(identity.etag or identity.mtime_ns)


def _get_sum(lock: int) -> int | None:
    """None where it is not there, or torn."""
    found = os.pread(lock, _SUM.size + _CRC.size, 0)
    words, crc = found[: _SUM.size], found[_SUM.size :]
    if crc != _CRC.pack(zlib.crc32(words)) or not words.startswith(_IS_SUM):
        return None
    return int(_SUM.unpack(words)[1])


def _set_sum(lock: int, total_bytes: int) -> None:
    words = _SUM.pack(_IS_SUM, total_bytes)
    os.pwrite(lock, words + _CRC.pack(zlib.crc32(words)), 0)
