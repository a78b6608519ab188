"""The files of a dataset, wherever it lies; here those on a local disk, in `remote_files` those in a store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from millpond._datasets.base import Progress
from millpond._datasets.cut_short import load_table
from millpond._datasets.fetched import Fetched
from millpond._media.sidecars import FileVersion, SidecarStore, version_of
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond._values import FileIdentity, no_progress
from millpond.errors import CorruptMedia, DataError, ObjectMissing


class DatasetFiles(Protocol):
    """Access to the files below the root of a dataset; picklable. Any thread.

    A *place* is the name by which a file is known everywhere: an absolute path, or a URL without secrets.

    Attributes:
        root: The place of the dataset.
        is_remote: Whether bytes come over a network.
        threads: How many files are opened at once.
    """

    @property
    def root(self) -> str: ...
    @property
    def is_remote(self) -> bool: ...
    @property
    def threads(self) -> int: ...

    def place_of(self, name: str) -> str:
        """The place of a file that is named relative to the root, with slashes."""
        ...

    def exists(self, place: str) -> bool:
        """Whether there is a file."""
        ...

    def version(self, place: str) -> FileVersion:
        """Its present version; ObjectMissing where there is none."""
        ...

    def read(self, place: str) -> bytes:
        """All of a small file; ObjectMissing where there is none."""
        ...

    def open(
        self, version: FileVersion, store: SidecarStore, fetched: Fetched | None = None, file: int = 0
    ) -> BinaryIO:
        """Open a parquet file, to be read by ranges.

        Args:
            version: Which must still be there.
            store: Where its footer may be kept.
            fetched: Bytes that were fetched already.
            file: The number by which `fetched` knows it.
        """
        ...

    def below(self, name: str, suffix: str) -> list[str]:
        """The places of the files in the folders of a folder, `name/*/*suffix`, ascending."""
        ...

    def load_table(
        self,
        place: str,
        store: SidecarStore,
        expected: FileIdentity | None = None,
        progress: Progress = no_progress,
    ) -> tuple[SampleTable, DataError | None]:
        """The sample table of a video, and the error that says that it was cut short.

        Args:
            place: Of the video.
            store: Where the table is looked for and kept.
            expected: The version that it must be, where one is known.
            progress: Called while it is made.

        Raises:
            DataError: It has none, or is another version by now.
        """
        ...

    def open_video(self, place: str, table: SampleTable, fetched: Fetched, file: int) -> VideoFile:
        """A video that is read by ranges, of which some may have been fetched already, under the number `file`."""
        ...

    def close(self, *, for_good: bool = False) -> None:
        """End connections. Idempotent; used again, it opens them again, or, closed for good, raises ClosedError."""
        ...

    def reopen(self) -> None:
        """Take back that it was closed for good, once all who were using it have ended."""
        ...


def changed(place: str, expected: FileIdentity, found: FileIdentity) -> CorruptMedia:
    """What to raise where a file is another than when the dataset was opened."""
    return CorruptMedia(
        f"'{place}' changed since the dataset was opened; open the dataset again",
        path=place,
        expected=expected,
        found=found,
    )


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """See `DatasetFiles`; `root` is an absolute path."""

    root: str
    is_remote: bool = False
    threads: int = 8
    """Most of opening a file is system calls and FFmpeg, both without the GIL."""

    def place_of(self, name: str) -> str:
        """See `DatasetFiles`."""
        return os.path.join(self.root, *name.split("/"))

    def exists(self, place: str) -> bool:
        """See `DatasetFiles`."""
        return os.path.exists(place)

    def version(self, place: str) -> FileVersion:
        """See `DatasetFiles`."""
        return version_of(place)

    def read(self, place: str) -> bytes:
        """See `DatasetFiles`."""
        try:
            with open(place, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(f"no file at '{place}'", path=place) from None

    def open(
        self, version: FileVersion, store: SidecarStore, fetched: Fetched | None = None, file: int = 0
    ) -> BinaryIO:
        """See `DatasetFiles`."""
        found = version_of(version.name).identity
        if found == version.identity:
            opened = open(version.name, "rb", buffering=0)  # noqa: SIM115 - it is for the caller
            status = os.fstat(opened.fileno())  # the name may have become another file's just now
            found = FileIdentity(status.st_size, status.st_mtime_ns)
            if found == version.identity:
                return opened
            opened.close()
        raise changed(version.name, version.identity, found)

    def below(self, name: str, suffix: str) -> list[str]:
        """See `DatasetFiles`."""
        folder = self.place_of(name)
        try:
            folders = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(file.path for inner in folders for file in os.scandir(inner) if file.name.endswith(suffix))

    def load_table(
        self,
        place: str,
        store: SidecarStore,
        expected: FileIdentity | None = None,
        progress: Progress = no_progress,
    ) -> tuple[SampleTable, DataError | None]:
        """See `DatasetFiles`."""
        table, cut_short = load_table(place, store, progress)
        if expected is not None and table.identity != expected:
            raise changed(place, expected, table.identity)
        return table, cut_short

    def open_video(self, place: str, table: SampleTable, fetched: Fetched, file: int) -> VideoFile:
        """See `DatasetFiles`."""
        return VideoFile(place, table)

    def close(self, *, for_good: bool = False) -> None:
        """See `DatasetFiles`; there are none, so that it can be used still."""

    def reopen(self) -> None:
        """See `DatasetFiles`."""
