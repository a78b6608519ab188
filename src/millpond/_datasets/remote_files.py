"""The files of a dataset in an object store: nothing is fetched whole that can be read by ranges."""

from __future__ import annotations

import io
import logging
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO, cast

import numpy as np

from millpond._datasets.base import Progress
from millpond._datasets.cut_short import table_by_header
from millpond._datasets.dataset_files import changed
from millpond._datasets.fetched import Fetched
from millpond._media.demux import PacketRulesDoNotFit
from millpond._media.header_copy import BEGIN_BYTES
from millpond._media.index import build_sample_table, keep_table, kept_table, once_kept
from millpond._media.media_path import MediaPath
from millpond._media.memory_file import memory_file, write_all
from millpond._media.read_position import ReadPosition
from millpond._media.sidecars import FileVersion, SidecarStore
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond._sources.object_store import ObjectStore
from millpond._values import ByteRange, FileIdentity, no_progress
from millpond.errors import DataError, ObjectMissing

_logger = logging.getLogger("millpond")

_WHOLE_BYTES, _PIECE_BYTES = 32 << 20, 4 << 20
"""Of a file that must be fetched whole: at a time, and by one request."""

_SMALL_BYTES = 1 << 20
"""A smaller file takes one request."""

_FOOTER_KIND = "footer1"
_FOOTER_BYTES = 64 << 10
"""The end of a parquet file that pyarrow reads first; footers of LeRobot's data take a few kB."""

_WHOLE_PARQUET_BYTES = 256 << 10
"""Up to so many a parquet file is its footer: metadata of LeRobot's, whose footers take 70 kB of 150."""


class RemoteFiles:
    """See `DatasetFiles`.

    Args:
        objects: Below the root.
        threads: How many files are opened at once: most of the time is waiting.
    """

    is_remote = True

    def __init__(self, objects: ObjectStore, threads: int = 32) -> None:
        self.objects = objects
        self.threads = threads
        self.root = objects.url

    def key_of(self, place: str) -> str:
        """What the store calls it."""
        address, mark, rest = self.root.partition("?")  # of a redacted query, "..." is left, behind the key
        return place.removesuffix(mark + rest).removeprefix(address).lstrip("/")

    def place_of(self, name: str) -> str:
        """See `DatasetFiles`."""
        return self.objects.name_of(name)

    def exists(self, place: str) -> bool:
        """See `DatasetFiles`."""
        try:
            self.version(place)
        except ObjectMissing:
            return False
        return True

    def version(self, place: str) -> FileVersion:
        """See `DatasetFiles`."""
        return FileVersion(place, self.objects.identity(self.key_of(place)))

    def read(self, place: str) -> bytes:
        """See `DatasetFiles`."""
        key = self.key_of(place)
        begin, identity = self.objects.begin(key, _SMALL_BYTES)
        rest = ByteRange(len(begin), identity.size_bytes)
        return begin + self.objects.read(key, rest, identity=identity) if len(rest) else begin

    def open(
        self, version: FileVersion, store: SidecarStore, fetched: Fetched | None = None, file: int = 0
    ) -> BinaryIO:
        """See `DatasetFiles`."""
        contents = RemoteBytes(self, version, fetched or Fetched(), file)
        size = version.identity.size_bytes
        start = 0 if size <= _WHOLE_PARQUET_BYTES else size - _FOOTER_BYTES

        def find() -> bytes | None:
            kept = store.load(version, _FOOTER_KIND)
            return None if kept is None else kept.arrays["footer"].tobytes()

        def make() -> bytes:
            footer = contents.read(ByteRange(start, size))
            try:
                store.save(version, _FOOTER_KIND, {"footer": np.frombuffer(footer, np.uint8)}, {})
            except OSError as error:
                store.warn_once("footers of parquet files", error)
            return footer

        footer = store.once(version, _FOOTER_KIND, find, make, contents.progress)
        return cast(BinaryIO, RangedFile(contents, size, footer))

    def below(self, name: str, suffix: str) -> list[str]:
        """See `DatasetFiles`; where a store cannot list, LeRobot's names are asked for, until none is there."""
        if self.objects.can_list:
            keys = self.objects.list(name)
            return [self.place_of(key) for key in sorted(keys) if key.endswith(suffix) and _depth(key, name) == 2]
        found: list[str] = []
        chunk = file = 0
        while True:
            place = self.place_of(f"{name}/chunk-{chunk:03d}/file-{file:03d}{suffix}")
            if self.exists(place):
                found.append(place)
                file += 1
            elif file:
                chunk, file = chunk + 1, 0
            else:
                return found

    def load_table(
        self,
        place: str,
        store: SidecarStore,
        expected: FileIdentity | None = None,
        progress: Progress = no_progress,
    ) -> tuple[SampleTable, DataError | None]:
        """See `DatasetFiles`."""
        if expected is not None and (table := kept_table(FileVersion(place, expected), store)) is not None:
            return table, None
        key = self.key_of(place)
        begin, identity = self.objects.begin(key, BEGIN_BYTES, progress=progress)
        if expected is not None and identity != expected:
            raise changed(place, expected, identity)
        version = FileVersion(place, identity)
        cut_short: DataError | None = None

        def make() -> SampleTable:
            nonlocal cut_short
            table, cut_short = self._make_table(version, begin, progress)
            if cut_short is None:
                keep_table(version, store, table)
            return table

        return once_kept(version, store, make, progress=progress), cut_short

    def _make_table(
        self, version: FileVersion, begin: bytes, progress: Progress
    ) -> tuple[SampleTable, DataError | None]:
        key, place, identity = self.key_of(version.name), version.name, version.identity

        def read(start: int, stop: int) -> bytes:
            return self.objects.read(key, ByteRange(start, stop), identity=identity, progress=progress)

        try:
            return table_by_header(read, identity, place, begin)
        except PacketRulesDoNotFit as reason:
            _logger.warning("all %d bytes of %r are fetched to index it: %s", identity.size_bytes, place, str(reason))
            return self._table_of_whole(version, progress), None

    def _table_of_whole(self, version: FileVersion, progress: Progress) -> SampleTable:
        with ExitStack() as stack:
            table = build_sample_table(
                fetched_whole(self.objects, self.key_of(version.name), version, stack, progress), progress
            )
        return replace(table, identity=version.identity)

    def open_video(self, place: str, table: SampleTable, fetched: Fetched, file: int) -> VideoFile:
        """See `DatasetFiles`."""
        return VideoFile(
            MediaPath(place, place), table, RemoteBytes(self, FileVersion(place, table.identity), fetched, file)
        )

    def close(self, *, for_good: bool = False) -> None:
        """See `DatasetFiles`."""
        self.objects.close(for_good=for_good)

    def reopen(self) -> None:
        """See `DatasetFiles`."""
        self.objects.reopen()


def fetched_whole(
    objects: ObjectStore, key: str, version: FileVersion, stack: ExitStack, progress: Progress
) -> MediaPath:
    """All of an object, in a temporary file that goes with the stack; some MiB at a time, by several requests at once.

    Args:
        objects: Where it lies.
        key: What that calls it.
        version: That it must be.
        stack: Ends the file.
        progress: Called while it is fetched.
    """
    file = stack.enter_context(memory_file(on_disk=True))
    size = version.identity.size_bytes
    for start in range(0, size, _WHOLE_BYTES):
        block = range(start, min(start + _WHOLE_BYTES, size), _PIECE_BYTES)
        pieces = [ByteRange(at, min(at + _PIECE_BYTES, size)) for at in block]
        for data in objects.read_ranges(key, pieces, identity=version.identity, progress=progress):
            write_all(file.descriptor, data)
    return MediaPath(file.path, version.name, is_copy=True)


class RemoteBytes:
    """Bytes of one file in a store: those that were fetched for the task, and others by a request of their own.

    Args:
        files: Where it lies.
        version: Which.
        fetched: What is there already, and where requests are counted.
        file: The number by which `fetched` knows it.
    """

    def __init__(self, files: RemoteFiles, version: FileVersion, fetched: Fetched, file: int) -> None:
        self._files = files
        self._version = version
        self._fetched = fetched
        self._file = file
        self._opened = ExitStack()
        self._whole: MediaPath | None = None

    def read(self, wanted: ByteRange) -> bytes:
        """See `FileBytes`."""
        found = self._fetched.find(self._file, wanted)
        if found is not None:
            return found
        self._fetched.counters["late_requests"] += 1
        self._fetched.counters["late_bytes"] += len(wanted)
        (data,) = self._files.objects.read_ranges(  # a long one by several requests
            self._files.key_of(self._version.name),
            [wanted],
            identity=self._version.identity,
            progress=self._fetched.progress,
        )
        return data

    def progress(self) -> None:
        """Say that the task goes on."""
        self._fetched.progress()

    def read_many(self, wanted: Sequence[ByteRange]) -> list[bytes]:
        """Several ranges at once, by requests of their own."""
        return self._files.objects.read_ranges(
            self._files.key_of(self._version.name),
            wanted,
            identity=self._version.identity,
            progress=self._fetched.progress,
        )

    def check_identity(self) -> None:
        """Nothing: every answer of the store is held against the identity."""

    def whole(self) -> MediaPath:
        """See `FileBytes`."""
        if self._whole is None:
            self._whole = fetched_whole(
                self._files.objects,
                self._files.key_of(self._version.name),
                self._version,
                self._opened,
                self._fetched.progress,
            )
        return self._whole

    def close(self) -> None:
        """See `FileBytes`."""
        self._whole = None
        self._opened.close()


class RangedFile(ReadPosition, io.RawIOBase):
    """A file object over a file in a store, for pyarrow: what is held costs nothing, anything else a request.

    Args:
        contents: Of the file.
        size_bytes: Of the file.
        footer: Its last bytes.
    """

    def __init__(self, contents: RemoteBytes, size_bytes: int, footer: bytes) -> None:
        self._contents = contents
        self._size = size_bytes
        self._footer_start = size_bytes - len(footer)
        self._footer = footer
        self._held: list[tuple[int, bytes]] = []

    def hold(self, ranges: Sequence[ByteRange]) -> None:
        """See `Holding`."""
        self._held = []
        wanted = sorted({one for one in ranges if one.start < self._footer_start})
        self._held = list(zip((one.start for one in wanted), self._contents.read_many(wanted), strict=True))

    def read(self, size: int = -1) -> bytes:
        """All that was asked for, up to the end of the file."""
        stop = self._size if size < 0 else min(self._position + size, self._size)
        wanted = ByteRange(self._position, max(stop, self._position))
        self._position = wanted.stop
        if not len(wanted):
            return b""
        if wanted.start >= self._footer_start:
            return self._footer[wanted.start - self._footer_start : wanted.stop - self._footer_start]
        at = bisect_right(self._held, wanted.start, key=lambda one: one[0]) - 1
        if at >= 0 and wanted.stop <= self._held[at][0] + len(self._held[at][1]):
            start, data = self._held[at]
            return data[wanted.start - start : wanted.stop - start]
        return self._contents.read(wanted)


def _depth(key: str, folder: str) -> int:
    return key.removeprefix(folder).strip("/").count("/") + 1
