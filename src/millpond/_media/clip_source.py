"""One clip, from a path or bytes, opened as a file: so everything behind it reads files and nothing else.

What is no regular file goes to a memfd: anonymous memory that has a path in /proc while its descriptor is open, so
nothing is written to a disk and nothing can be left behind. Where there is no memfd it is a temporary file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from millpond._media.index import build_sample_table, load_sample_table
from millpond._media.media_path import MediaPath, name_of_bytes
from millpond._media.memory_file import memory_file, write_all
from millpond._media.sidecars import FileVersion, SidecarStore
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond._urls import path_of_file_url, redacted, scheme_of
from millpond._values import no_progress
from millpond.errors import CorruptMedia, DataError, ObjectMissing, UnsupportedFormat

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | MediaPath
"""A path, the whole file as bytes, or what is local already. Whoever has a URL fetches it first, to a `memory_file`."""

Progress = Callable[[], None]

_CHUNK_BYTES = 1 << 20
MAX_STREAM_BYTES = 2 << 30
"""Of a pipe or device: it is read to its end into memory, and may have none."""


@dataclass(frozen=True, slots=True)
class Clip:
    """An open clip: `decode_frames(clip.file, ...)` decodes, `decode_audio(clip.path, ...)` is its sound.

    Attributes:
        path: Where it can be opened while the clip is open, and what errors call it.
        file: Its bytes and its sample table.
    """

    path: MediaPath
    file: VideoFile

    @property
    def table(self) -> SampleTable:
        """The sample table of its first video stream."""
        return self.file.table

    @property
    def version(self) -> FileVersion:
        """Which the sample table was made from."""
        return FileVersion(os.path.abspath(self.path.path), self.table.identity)


@contextlib.contextmanager
def open_clip(source: Source, *, store: SidecarStore | None = None, progress: Progress = no_progress) -> Iterator[Clip]:
    """Open a clip for one read; whatever was opened for it is gone when the block ends.

    Args:
        source: A path, or the whole file as bytes.
        store: For a path to a regular file: where its sample table is looked for and kept. Without one nothing is
            written.
        progress: Called per part of a pipe, and per packet or frame where the file must be read as a whole.

    Raises:
        ObjectMissing: Nothing there.
        UnsupportedFormat: A URL.
        CorruptMedia: No video in it, or it is cut short.
        DataError: It cannot be read.
    """
    with local_media(source, kind="video", progress=progress) as path:
        if store is None or path.is_copy:
            table = build_sample_table(path, progress)
        else:
            table = load_sample_table(path, store, progress=progress)
        with VideoFile(path, table) as file:
            yield Clip(path, file)


@contextlib.contextmanager
def local_media(source: Source, *, kind: str = "media", progress: Progress = no_progress) -> Iterator[MediaPath]:
    """Give a path to a regular file, or to memory, with what `source` names; valid within the block.

    Args:
        source: See `open_clip`. A pipe or device is read to its end.
        kind: What errors call bytes: "1,024 bytes of `kind`".
        progress: Called per part of a pipe.
    """
    if isinstance(source, MediaPath) and source.is_copy:
        yield source
    elif isinstance(source, bytes | bytearray | memoryview):
        name = name_of_bytes(memoryview(source).nbytes, kind)
        with _memory_file(lambda take: take(memoryview(source).cast("B"))) as path:
            yield MediaPath(path, name, is_copy=True, is_named=False)
    elif isinstance(source, str) and scheme_of(source) not in (None, "file"):
        raise UnsupportedFormat(
            f"{MediaPath(source, redacted(source))} is a URL, and must be fetched before it is read"
        )
    else:
        with _local_file(source, progress) as file:
            yield file


def read_media(source: Source, *, kind: str = "media", progress: Progress = no_progress) -> bytes:
    """The bytes of what `source` names, for media that are read at once."""
    return read_named_media(source, kind=kind, progress=progress)[0]


def read_named_media(
    source: Source, *, kind: str = "media", progress: Progress = no_progress
) -> tuple[bytes, MediaPath | str]:
    """The bytes of what `source` names, and what errors call it."""
    if isinstance(source, bytes):
        return source, name_of_bytes(len(source), kind)
    with local_media(source, kind=kind, progress=progress) as path, open(path.path, "rb") as file:
        return file.read(), path


@contextlib.contextmanager
def _local_file(source: str | os.PathLike[str] | MediaPath, progress: Progress) -> Iterator[MediaPath]:
    is_url = isinstance(source, str) and scheme_of(source) == "file"
    path = MediaPath.of(path_of_file_url(str(source)) if is_url else source)
    try:
        descriptor = os.open(path.path, os.O_RDONLY | os.O_CLOEXEC)  # of a pipe it waits until someone writes to it
    except (FileNotFoundError, NotADirectoryError):
        raise ObjectMissing(f"no file at {path}", path=path.label) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", path=path.label) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise CorruptMedia(f"{path} is a folder, not a file", path=path.label)
        if not stat.S_ISREG(mode):
            with _memory_file(lambda take: _read_stream(path, descriptor, take, progress)) as copy:
                yield MediaPath(copy, path.label, is_copy=True)
            return
    finally:
        os.close(descriptor)
    yield path


def _read_stream(path: MediaPath, descriptor: int, take: Callable[[bytes], object], progress: Progress) -> None:
    taken_bytes = 0
    while part := os.read(descriptor, _CHUNK_BYTES):
        taken_bytes += len(part)
        if taken_bytes > MAX_STREAM_BYTES:
            raise DataError(
                f"{path} is no regular file, and has not ended after {MAX_STREAM_BYTES:,} bytes; give a file",
                path=path.label,
                limit_bytes=MAX_STREAM_BYTES,
            )
        take(part)
        progress()


@contextlib.contextmanager
def _memory_file(fill: Callable[[Callable[[bytes | memoryview], None]], object]) -> Iterator[str]:
    """A path to memory that `fill` writes to, with what it is given; gone when the block ends."""
    with memory_file() as file:
        fill(lambda part: write_all(file.descriptor, part))
        yield file.path
