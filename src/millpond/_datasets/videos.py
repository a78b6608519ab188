"""Where a reader of one camera has its open videos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from millpond._datasets.fetched import Fetched
from millpond._datasets.open_files import OpenFiles
from millpond._datasets.sources import CameraSource
from millpond._media.sidecars import SidecarStore
from millpond._media.video_file import VideoFile


class Videos(Protocol):
    """The videos of one camera, opened as they are needed, and bounded in number.

    Attributes:
        fetched: Bytes of them that were fetched for the reader in this thread.
    """

    @property
    def fetched(self) -> Fetched: ...

    def lease(self, file: int) -> AbstractContextManager[VideoFile]:
        """One of them, for this thread alone where that matters; it stays open while the block runs.

        Raises:
            DataError: It does not open, or is another than when the dataset was opened.
        """
        ...

    def close(self) -> None:
        """Close those that are this reader's alone. Idempotent; they are opened again as needed."""
        ...


class OwnVideos:
    """See `Videos`: those of one reader. One thread at a time.

    Args:
        source: Where they are.
        store: Sidecars of sample tables.
        max_open_files: Open at once.
    """

    def __init__(self, source: CameraSource, store: SidecarStore, max_open_files: int) -> None:
        self._source = source
        self._store = store
        self._open: OpenFiles[int, VideoFile] = OpenFiles(max_open_files)
        self.fetched = Fetched()

    @contextmanager
    def lease(self, file: int) -> Iterator[VideoFile]:
        """See `Videos`."""
        yield self._open.get(file, lambda: open_video(self._source, self._store, file, self.fetched))

    def close(self) -> None:
        """See `Videos`."""
        self._open.close()


def open_video(source: CameraSource, store: SidecarStore, file: int, fetched: Fetched) -> VideoFile:
    """A camera's video with its sample table.

    Raises:
        DataError: It does not open, or is another than when the dataset was opened.
    """
    version = source.version(file)
    table, _ = source.files.load_table(version.name, store, version.identity, fetched.progress)
    return source.files.open_video(version.name, table, fetched, file)
