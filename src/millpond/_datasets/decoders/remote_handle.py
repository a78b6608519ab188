"""Open videos behind URLs: read by ranges, and never fetched whole if their container can be cut.

Opening one takes a request, for its first bytes and its version, and one more where its index is not among those and no
sidecar has its sample table. All that is read later must be of that version.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import ExitStack
from dataclasses import replace

from millpond._datasets.cut_short import table_by_header
from millpond._datasets.decoders.handles import Handle
from millpond._datasets.decoders.read_ahead import BLOCK_BYTES, ReadAhead
from millpond._datasets.media_by_url import MAX_BYTES
from millpond._datasets.remote_files import fetched_whole
from millpond._datasets.url_stores import UrlStores
from millpond._media.demux import PacketRulesDoNotFit
from millpond._media.index import build_sample_table, keep_table, once_kept
from millpond._media.media_path import MediaPath
from millpond._media.sidecars import FileVersion, SidecarStore
from millpond._plan.sample_table import SampleTable
from millpond._sources.fetch_errors import forked
from millpond._urls import query_digest
from millpond._values import ByteRange, no_progress
from millpond.errors import CorruptMedia, DataError

_logger = logging.getLogger("millpond")

_BEGIN_BYTES = 64 << 10
"""Fetched first: all of a small clip, or the index of a longer one that has it in front. A matter of 10 ms."""


def open_url(
    url: str, stores: UrlStores, sidecars: SidecarStore, *, stream_index: int | None = None
) -> tuple[RemoteHandle, SampleTable]:
    """Open a video by URL. Where that fails nothing stays open.

    Args:
        url: Any that `ObjectStore` reads. No message, and no name of a sidecar, holds a secret of it.
        stores: Gives the store that it lies in, each time that it is read.
        sidecars: Where its sample table is looked for, and kept.
        stream_index: Which stream; None takes the first video stream that is no cover picture.

    Raises:
        ObjectMissing: The store has no such object.
        CorruptMedia: No video in it, or it is cut short, or it changed while it was opened.
        FetchError, FetchTimeout: It is not to be had, or not by ranges.
        DataError: It must be read whole, and is too large for that; or the URL is no address.
        UnsupportedFormat: No such scheme, or what reads it is not installed.
        TypeError, ValueError: Options that are not known, or do not fit.
        UsageError: In a process that was forked from one that had fetched.
    """
    objects, key = stores.place_of(url)
    begin, identity = objects.begin(key, _BEGIN_BYTES)
    version = FileVersion(objects.name_of(key), identity)
    contents = RemoteContents(url, stores, version, begin)
    try:
        table = _table_of(contents, SidecarStore(sidecars.folder, query_digest(url)), begin, stream_index)
    except BaseException:
        contents.close()
        raise
    return RemoteHandle(contents), table


class RemoteHandle(Handle):
    """See `Handle`. It holds no descriptor, but what was read last.

    Args:
        contents: Owned from now on.
    """

    def __init__(self, contents: RemoteContents) -> None:
        identity = contents.version.identity
        super().__init__(
            contents, contents.path, identity, is_local=False, nbytes=min(identity.size_bytes, 2 * BLOCK_BYTES)
        )
        self._remote = contents

    def is_stale(self) -> bool:
        """Whether a read has found another object there. Nothing is asked of the store."""
        return self._remote.has_changed


class RemoteContents:
    """The bytes of one version of an object. Any thread, several at once; not for a forked child. See `FileBytes`.

    Args:
        url: Of the object.
        stores: Gives its store, anew for each read: no more of them stay open than `UrlStores` keeps.
        version: That all bytes must be of.
        begin: Its first bytes.

    Attributes:
        path: What errors call it.
        has_changed: A read has found another version there.
    """

    def __init__(self, url: str, stores: UrlStores, version: FileVersion, begin: bytes) -> None:
        self.path = MediaPath(version.name, version.name)
        self.version = version
        self.has_changed = False
        self._url = url
        self._stores = stores
        self._pid = os.getpid()
        self._held = ReadAhead(version.identity.size_bytes, begin)
        self._lock = threading.Lock()
        self._opened = ExitStack()
        self._whole: MediaPath | None = None

    def __repr__(self) -> str:
        return f"RemoteContents({self.path})"

    def fetch(self, wanted: ByteRange) -> bytes:
        """Exactly these bytes, by a request of its own. Raises what `ObjectStore.read` does."""
        self._require_own_process()
        objects, key = self._stores.place_of(self._url)
        try:
            # a long one takes several requests at once
            (data,) = objects.read_ranges(key, [wanted], identity=self.version.identity)
        except CorruptMedia:
            self.has_changed = True
            raise
        return data

    def read(self, wanted: ByteRange) -> bytes:
        """See `FileBytes`. Raises what `ObjectStore.read` does."""
        self._require_own_process()
        return self._held.read(wanted, self.fetch)

    def check_identity(self) -> None:
        """Nothing: every answer of the store is held against the identity."""

    def whole(self) -> MediaPath:
        """See `FileBytes`. A file in the temporary folder, without a name where that can be; fetched once.

        Raises:
            DataError: It has more than `MAX_BYTES`; else what `ObjectStore.read` raises.
        """
        self._require_own_process()
        with self._lock:
            if self._whole is None:
                self._require_size()
                objects, key = self._stores.place_of(self._url)
                with ExitStack() as stack:
                    self._whole = fetched_whole(objects, key, self.version, stack, no_progress)
                    self._opened = stack.pop_all()
            return self._whole

    def close(self) -> None:
        """Let go of what is held, and of the file of `whole`. Idempotent; a later call has them again."""
        opened, self._opened, self._whole = self._opened, ExitStack(), None
        self._held.clear()
        opened.close()

    def _require_size(self) -> None:
        size_bytes = self.version.identity.size_bytes
        if size_bytes > MAX_BYTES:
            raise DataError(
                f"{self.path} can be read only as a whole, and has {size_bytes:,} bytes, more than the {MAX_BYTES:,} "
                "that are fetched; download it and give its path, or write it as an MP4 that can be cut",
                path=self.path.label,
                size_bytes=size_bytes,
                limit_bytes=MAX_BYTES,
            )

    def _require_own_process(self) -> None:
        if self._pid != os.getpid():
            raise forked(self.path.label)  # and locks may be held by threads that are not here


def _table_of(contents: RemoteContents, sidecars: SidecarStore, begin: bytes, stream_index: int | None) -> SampleTable:
    version = contents.version

    def make() -> SampleTable:
        table = _made_table(contents, begin, stream_index)
        keep_table(version, sidecars, table, stream_index)
        return table

    return once_kept(version, sidecars, make, stream_index)


def _made_table(contents: RemoteContents, begin: bytes, stream_index: int | None) -> SampleTable:
    version = contents.version
    try:
        table, cut_short = table_by_header(
            lambda start, stop: contents.fetch(ByteRange(start, stop)),
            version.identity,
            version.name,
            begin,
            stream_index,
        )
        if cut_short is not None:
            raise cut_short
    except PacketRulesDoNotFit as reason:
        size = version.identity.size_bytes
        _logger.warning("all %d bytes of %r are fetched to index it: %s", size, version.name, str(reason))
        table = replace(build_sample_table(contents.whole(), stream_index=stream_index), identity=version.identity)
        if table.backend == "packets":
            contents.close()  # from now on ranges do
    return table
