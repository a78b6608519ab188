"""Ranges of files below paths or URLs: of a local disk, or of object stores that are opened when first needed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from millpond._datasets.dataset_files import DatasetFiles
from millpond._datasets.opening import open_files
from millpond._media.media_path import MediaPath
from millpond._media.video_file import LocalBytes
from millpond._urls import redacted, scheme_of
from millpond._values import ByteRange, FileIdentity
from millpond.errors import ClosedError, CorruptMedia, DataError

if TYPE_CHECKING:
    from millpond._sources.object_store import ObjectStore

Take = Callable[[bytes | memoryview], None]

_REQUEST_BYTES = 8 << 20
_REQUESTS = 8
"""Of one read, at once."""

_LOCAL_STEP_BYTES = 1 << 20
_STEP_BYTES = 8 << 20
"""Of a whole file in a store: a request for each MiB, at once."""


def is_local(location: str) -> bool:
    """Whether it is a place of this machine."""
    return scheme_of(location) in (None, "file")


def step_of(location: str) -> int:
    """How many bytes of a file that is read whole are in memory beside where they go."""
    return _LOCAL_STEP_BYTES if is_local(location) else _STEP_BYTES


def split_place(place: str) -> tuple[str, str]:
    """What a file lies below, and its name there; a URL with a query is its own, and the name is empty."""
    if scheme_of(place) is None:
        folder, name = os.path.split(os.path.abspath(place))
        return folder, name
    if "?" in place or "#" in place:
        return place, ""
    folder, _, name = place.rstrip("/").rpartition("/")
    return folder, name


class Fetcher:
    """Reads files by ranges. Any thread; after `close` every read raises ClosedError.

    Args:
        storage_options, token: For URLs.
        timeout_seconds: For each read, all of its tries.
    """

    def __init__(self, storage_options: Mapping[str, Any] | None, token: str | None, timeout_seconds: float) -> None:
        self._access = {"storage_options": storage_options, "token": token, "fetch_timeout": timeout_seconds}
        self._opened: dict[str, DatasetFiles] = {}
        self._identities: dict[tuple[str, str], FileIdentity] = {}
        self._lock = threading.Lock()
        self._closed = False

    def name_of(self, location: str, key: str) -> str:
        """What errors call a file."""
        files = self._files(location)
        return files.place_of(key) if key else files.root

    def identity(self, location: str, key: str, size_bytes: int) -> FileIdentity:
        """The version of a file that was there when it was first asked for; of this size. Raises as `read` does."""
        found = self._identities.get((location, key))
        if found is None:
            with self._reading(location, key) as (files, name):
                found = self._identities.setdefault((location, key), files.version(name).identity)
        expected = FileIdentity(size_bytes, 0)
        if found.differs_from(expected):
            raise _changed(self.name_of(location, key), expected, found)
        return found

    def read(
        self,
        location: str,
        key: str,
        ranges: Sequence[ByteRange],
        identity: FileIdentity,
        started: float | None = None,
    ) -> list[tuple[int, memoryview]]:
        """Read ranges of a file.

        Args:
            location: Path or URL.
            key: The file below it.
            ranges: Exactly these. Long ones of a store are fetched in parts, several at once.
            identity: The version that the file must be.
            started: When its time began to run; None is now.

        Returns:
            Where each part begins, and its bytes, ascending. They are as they came: nothing is copied together, so that
            never more is in memory than was asked for.

        Raises:
            ObjectMissing, FetchError, FetchTimeout: It cannot be had.
            CorruptMedia: It is another version, or ends before a range does.
            ClosedError: Closed, perhaps meanwhile.
        """
        with self._reading(location, key) as (files, name):
            if files.is_remote:
                ranges = _split(ranges)
                parts = _read_remote(_objects(files), key, ranges, identity, started or time.monotonic())
            else:
                parts = _read_local(name, ranges, identity)
        for wanted, part in zip(ranges, parts, strict=True):
            if len(part) != len(wanted):
                raise CorruptMedia(
                    f"'{name}' ends at byte {wanted.start + len(part)}, but bytes up to {wanted.stop} are wanted",
                    path=name,
                )
        return [(wanted.start, part) for wanted, part in zip(ranges, parts, strict=True)]

    def read_one(self, location: str, key: str, wanted: ByteRange, identity: FileIdentity) -> bytes:
        """Read one range in one piece. Raises as `read` does."""
        return b"".join(part for _, part in self.read(location, key, [wanted], identity))

    def read_whole(self, location: str, key: str, take: Take, identity: FileIdentity) -> None:
        """Read all of a file, part by part. Raises as `read` does."""
        started, size_bytes, step_bytes = time.monotonic(), identity.size_bytes, step_of(location)
        for start in range(0, size_bytes, step_bytes):
            stop = min(start + step_bytes, size_bytes)
            wanted = [ByteRange(at, min(at + _LOCAL_STEP_BYTES, stop)) for at in range(start, stop, _LOCAL_STEP_BYTES)]
            for _, part in self.read(location, key, wanted, identity, started):
                take(part)

    def close(self) -> None:
        """End all connections at once, and what is under way. Idempotent."""
        with self._lock:
            self._closed = True
            opened = list(self._opened.values())
        for files in opened:
            files.close(for_good=True)

    @contextlib.contextmanager
    def _reading(self, location: str, key: str) -> Iterator[tuple[DatasetFiles, str]]:
        """The files, and what errors call the file."""
        files = self._files(location)
        name = files.place_of(key) if key else files.root
        try:
            yield files, name
        except CorruptMedia as error:
            if "expected" not in error.facts:
                raise
            raise _changed(name, error.expected, error.facts.get("found")) from None

    def _files(self, location: str) -> DatasetFiles:
        with self._lock:
            if self._closed:
                raise ClosedError(f"what fetched from {redacted(location)!r} is closed")
            files = self._opened.get(location)
            if files is None:
                access: dict[str, Any] = {} if is_local(location) else self._access
                files, _ = open_files(location, **access)
                self._opened[location] = files
            return files


def _objects(files: DatasetFiles) -> ObjectStore:
    from millpond._datasets.remote_files import RemoteFiles  # who reads local files alone need not wait for its imports

    assert isinstance(files, RemoteFiles)
    return files.objects


def _split(ranges: Sequence[ByteRange]) -> list[ByteRange]:
    """The same bytes in ranges that one request fetches."""
    return [
        ByteRange(start, min(start + _REQUEST_BYTES, wanted.stop))
        for wanted in ranges
        for start in range(wanted.start, wanted.stop, _REQUEST_BYTES)
    ]


def _read_remote(
    objects: ObjectStore, key: str, ranges: Sequence[ByteRange], identity: FileIdentity, started: float
) -> list[memoryview]:
    waiting: deque[Future[Any]] = deque()
    parts: list[memoryview] = []
    try:
        for wanted in ranges:
            waiting.append(objects.submit(key, wanted, identity=identity, started=started))
            if len(waiting) == _REQUESTS:
                parts.append(memoryview(waiting.popleft().result()))
        while waiting:
            parts.append(memoryview(waiting.popleft().result()))
    except CancelledError:
        raise ClosedError(f"'{objects.url}' was closed while a fetch was under way") from None
    finally:
        for future in waiting:
            future.cancel()
    return parts


def _read_local(path: str, ranges: Sequence[ByteRange], identity: FileIdentity) -> list[memoryview]:
    file = LocalBytes(MediaPath.of(path), identity)
    try:
        file.check_identity()
        return [memoryview(file.read(wanted)) for wanted in ranges]
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}", path=path) from None
    finally:
        file.close()


def _changed(name: str, expected: object, found: object) -> CorruptMedia:
    return CorruptMedia(
        f"'{name}' changed since it was indexed ({_told(expected)} then, {_told(found)} now); build the index again",
        path=name,
        expected=expected,
        found=found,
    )


def _told(identity: Any) -> str:
    if not isinstance(identity, FileIdentity):
        return "another version"
    version = f", version {identity.etag}" if identity.etag else ""
    written = f", written at {identity.mtime_ns} ns" if identity.mtime_ns else ""
    return f"{identity.size_bytes:,} bytes{version}{written}"
