"""The bytes of one video file, by ranges."""

from __future__ import annotations

import os
from types import TracebackType

from millpond._media.container_backend import ContainerFrames
from millpond._media.media_path import MediaPath
from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange, FileIdentity
from millpond.errors import CorruptMedia, ObjectMissing


class VideoFile:
    """One video file and its table. The descriptor is opened at the first read; `close` gives it back.

    One thread at a time. After `close` a read opens it again: a cache may close files that others still hold.

    Args:
        path: The file.
        table: Made from exactly this version of the file.
    """

    def __init__(self, path: str | os.PathLike[str] | MediaPath, table: SampleTable) -> None:
        self.path = MediaPath.of(path)
        self.table = table
        self.preroll_gops = 0
        """GOPs of preroll that this stream was found to need; kept so that only the first run pays for finding out."""
        self._descriptor: int | None = None
        self._container_frames: ContainerFrames | None = None

    @property
    def container_frames(self) -> ContainerFrames:
        """Frames through a container, for tables whose backend that is; open until `close`."""
        if self._container_frames is None:
            self._container_frames = ContainerFrames(self.path, self.table)
        return self._container_frames

    @property
    def is_open(self) -> bool:
        """Whether a descriptor is held."""
        return self._descriptor is not None

    def read(self, wanted: ByteRange) -> bytes:
        """Read a range; the file must still be the one that the table was made from.

        Raises:
            ObjectMissing: The file is gone.
            CorruptMedia: The file changed, or ends before the range does.
        """
        descriptor = self._open()
        # never ask for more than the file can have: a range from a bad table must not allocate
        readable_stop = min(wanted.stop, self.table.identity.size_bytes)
        parts, position = [], wanted.start
        while position < wanted.stop:
            part = os.pread(descriptor, max(readable_stop - position, 0), position)
            if not part:
                raise CorruptMedia(
                    f"{self.path} ends at byte {position}, but its table has a packet up to {wanted.stop}",
                    path=self.path.label,
                )
            parts.append(part)
            position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check_identity(self) -> None:
        """Raise CorruptMedia if the file is no longer the one that the table was made from."""
        self._require_same(os.fstat(self._open()))

    def close(self) -> None:
        """Give every descriptor back. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._container_frames is not None:
            self._container_frames.close()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self.path.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except FileNotFoundError:
                raise ObjectMissing(f"no file at {self.path}", path=self.path.label) from None
        return self._descriptor

    def _require_same(self, status: os.stat_result) -> None:
        found, expected = FileIdentity(status.st_size, status.st_mtime_ns), self.table.identity
        if found != expected:
            raise CorruptMedia(
                f"{self.path} changed after its sample table was made ({expected.size_bytes} bytes then, "
                f"{found.size_bytes} now); open the dataset again",
                path=self.path.label,
                expected=expected,
                found=found,
            )
