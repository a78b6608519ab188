"""The bytes of one video file, by ranges, from wherever they are."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Protocol

from millpond._media.container_backend import ContainerFrames
from millpond._media.media_path import MediaPath
from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange, FileIdentity
from millpond.errors import CorruptMedia, ObjectMissing


class FileBytes(Protocol):
    """Where the bytes of one version of a file come from. One thread at a time."""

    def read(self, wanted: ByteRange) -> bytes:
        """Those of the range that are there: fewer where the file ends before the range does."""
        ...

    def check_identity(self) -> None:
        """Raise CorruptMedia if the file is known to be another by now."""
        ...

    def whole(self) -> MediaPath:
        """Where all of the file can be opened, until `close`."""
        ...

    def close(self) -> None:
        """Give every descriptor back. Idempotent; a later call opens them again."""
        ...


def pread_range(descriptor: int, wanted: ByteRange) -> bytes:
    """The bytes of a range of an open file: fewer where it ends before the range does."""
    parts, position = [], wanted.start
    while position < wanted.stop:
        part = os.pread(descriptor, wanted.stop - position, position)
        if not part:
            break
        parts.append(part)
        position += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def require_identity(path: MediaPath, descriptor: int, expected: FileIdentity) -> None:
    """Raise CorruptMedia if an open file is no longer the one that a sample table was made from."""
    status = os.fstat(descriptor)
    found = FileIdentity(status.st_size, status.st_mtime_ns)
    if found.differs_from(expected):
        raise CorruptMedia(
            f"{path} changed after its sample table was made ({expected.size_bytes} bytes then, {found.size_bytes} "
            "now); open it again",
            path=path.label,
            expected=expected,
            found=found,
        )


class LocalBytes:
    """Bytes of a local file. The descriptor is opened at the first read.

    Args:
        path: The file.
        identity: What it must still be, as far as that says something.
    """

    def __init__(self, path: MediaPath, identity: FileIdentity) -> None:
        self._path = path
        self._identity = identity
        self._descriptor: int | None = None

    def read(self, wanted: ByteRange) -> bytes:
        """See `FileBytes`."""
        return pread_range(self._open(), wanted)

    def check_identity(self) -> None:
        """See `FileBytes`."""
        require_identity(self._path, self._open(), self._identity)

    def whole(self) -> MediaPath:
        """See `FileBytes`."""
        return self._path

    def close(self) -> None:
        """See `FileBytes`."""
        descriptor, self._descriptor = (
            self._descriptor,
            None,
        )  # first: a child that is forked amid it closes nothing twice
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self._path.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except FileNotFoundError:
                raise ObjectMissing(f"no file at {self._path}", path=self._path.label) from None
        return self._descriptor


class VideoFile:
    """One video file and its table. `close` gives back what reading has opened.

    One thread at a time. After `close` a read opens it again: a cache may close files that others still hold.

    Args:
        path: The file, or what errors call it where `contents` are given.
        table: Made from exactly this version of the file.
        contents: Its bytes; None: those of the local file at `path`.
    """

    def __init__(
        self, path: str | os.PathLike[str] | MediaPath, table: SampleTable, contents: FileBytes | None = None
    ) -> None:
        self.path = MediaPath.of(path)
        self.table = table
        self.preroll_gops = 0
        """GOPs of preroll that this stream was found to need; kept so that only the first run pays for finding out."""
        self.goes_on = False
        """Whether a thread that reads it in order keeps its decoder; not where it was planned which bytes are read."""
        self.last_frame: int | None = None
        """The last frame of the call before, which the next call may follow. A hint: threads may share the file."""
        self.calls_in_order = 0
        """How many calls followed one another so; at random two do in one of a million."""
        self.contents = LocalBytes(self.path, table.identity) if contents is None else contents
        self._container_frames: ContainerFrames | None = None

    @property
    def container_frames(self) -> ContainerFrames:
        """Frames through a container, for tables whose backend that is; open until `close`."""
        if self._container_frames is None:
            self._container_frames = ContainerFrames(self.contents.whole(), self.table)
        return self._container_frames

    def read(self, wanted: ByteRange) -> bytes:
        """Read a range; the file must still be the one that the table was made from.

        Raises:
            ObjectMissing: The file is gone.
            CorruptMedia: The file changed, or ends before the range does.
            FetchError, FetchTimeout: It lies in a store that does not give it.
        """
        # never ask for more than the file can have: a range from a bad table must not allocate
        readable = ByteRange(wanted.start, min(wanted.stop, self.table.identity.size_bytes))
        data = self.contents.read(readable) if readable.stop > readable.start else b""
        if len(data) < len(wanted):
            raise CorruptMedia(
                f"{self.path} ends at byte {wanted.start + len(data)}, but its table has a packet up to {wanted.stop}",
                path=self.path.label,
            )
        return data

    def check_identity(self) -> None:
        """Raise CorruptMedia if the file is known to be no longer the one that the table was made from."""
        self.contents.check_identity()

    def close(self) -> None:
        """Give every descriptor back. Idempotent."""
        self.close_container()
        self.contents.close()

    def close_container(self) -> None:
        """Give back what a table whose backend is a container has opened. Idempotent."""
        if self._container_frames is not None:
            self._container_frames.close()
            self._container_frames = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
