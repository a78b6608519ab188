"""How the bytes of an episode are had, with millpond's own index and with one of the user's."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from millpond._datasets.episode_bytes import EpisodeBytes
from millpond._datasets.episode_fetcher import Fetcher, split_place, step_of
from millpond._datasets.episode_index import EpisodeByteIndex
from millpond._media.demux import PacketRulesDoNotFit
from millpond._media.index import build_header_table
from millpond._media.media_path import MediaPath
from millpond._media.memory_file import memory_file, write_all
from millpond._plan.sample_table import SampleTable
from millpond._urls import path_of_file_url, query_digest, redacted, scheme_of
from millpond._values import ByteRange, FileIdentity
from millpond.errors import CorruptMedia, DataError, UnsupportedFormat


class EpisodeSource(Protocol):
    """Where the bytes of one camera of an episode come from. Any thread."""

    def told_bytes(self, episode: int, camera: str) -> int:
        """How many bytes `fetch` brings."""
        ...

    def fetch(self, episode: int, camera: str) -> EpisodeBytes:
        """Bring them."""
        ...

    def close(self) -> None:
        """End what is under way; `fetch` raises ClosedError from then on. Idempotent."""
        ...


def source_of(
    index: Any,
    data_root: str | None,
    storage_options: Mapping[str, Any] | None,
    token: str | None,
    timeout_seconds: float,
) -> EpisodeSource:
    """What fits an index.

    Args:
        index: An `EpisodeByteIndex`, or whatever has the methods of `ByteIndex`.
        data_root: Path or URL that its paths are relative to. None: its own.
        storage_options, token: For URLs; those that an `EpisodeByteIndex` was made with if both are None.
        timeout_seconds: For each fetch, all of its tries.
    """
    if isinstance(index, EpisodeByteIndex):
        return IndexedSource(index, data_root, Fetcher(*index.access(storage_options, token), timeout_seconds))
    return ForeignSource(index, data_root, Fetcher(storage_options, token, timeout_seconds))


class IndexedSource:
    """See `EpisodeSource`; for millpond's own index: exactly the packets, wherever the header of their file is."""

    def __init__(self, index: EpisodeByteIndex, data_root: str | None, fetcher: Fetcher) -> None:
        self._index = index
        self._data_root = data_root
        self._fetcher = fetcher

    def told_bytes(self, episode: int, camera: str) -> int:
        """See `EpisodeSource`."""
        num_bytes = self._index.num_bytes(episode, camera)
        if self._index.sample_table(episode, camera).backend != "container":
            return num_bytes
        location = self._data_root or self._index.whereabouts(episode, camera)[0]
        return num_bytes + min(num_bytes, step_of(location))  # what is under way is not yet where it goes

    def fetch(self, episode: int, camera: str) -> EpisodeBytes:
        """See `EpisodeSource`."""
        table, frames = self._index.sample_table(episode, camera), self._index.frames(episode, camera)
        started = time.monotonic()
        own_location, key, place = self._index.whereabouts(episode, camera)
        location, identity = own_location, table.identity
        if self._data_root is not None:
            location = self._data_root
            if not _is_same_place(location, own_location):  # a copy has another time, or tag, and the same size
                identity = self._fetcher.identity(location, key, identity.size_bytes)
        path = MediaPath(place, place)
        if table.backend == "container":
            return EpisodeBytes.of_whole(
                path, table, frames, lambda take: self._fetcher.read_whole(location, key, take, identity)
            )
        ranges = self._index.byte_ranges(episode, camera)
        parts = self._fetcher.read(location, key, ranges, identity, started)

        def late(wanted: ByteRange) -> bytes:
            return self._fetcher.read_one(location, key, wanted, identity)

        return EpisodeBytes(path, table, frames, parts, late)

    def close(self) -> None:
        """See `EpisodeSource`."""
        self._fetcher.close()


class ForeignSource:
    """See `EpisodeSource`; for an index that only tells of a header at the start of a file, and of a slice of it.

    Nothing says which frames of the file are the episode's, so that decoders show all frames of the file, under its own
    indices; what is not in the slice is fetched when it is decoded.
    """

    def __init__(self, index: Any, data_root: str | None, fetcher: Fetcher) -> None:
        self._index = index
        self._data_root = data_root
        self._fetcher = fetcher

    def told_bytes(self, episode: int, camera: str) -> int:
        """See `EpisodeSource`."""
        _, slice_, header_stop, _ = self._told(episode, camera)
        return header_stop + len(slice_)

    def fetch(self, episode: int, camera: str) -> EpisodeBytes:
        """See `EpisodeSource`."""
        started = time.monotonic()
        place, slice_, header_stop, size_bytes = self._told(episode, camera)
        location, key = split_place(place)
        identity = self._fetcher.identity(location, key, size_bytes)
        parts = self._fetcher.read(location, key, [ByteRange(0, header_stop), slice_], identity, started)
        path = MediaPath(place, redacted(place) if scheme_of(place) else place)
        table = _table_of(path, size_bytes, header_stop, parts)

        def late(wanted: ByteRange) -> bytes:
            return self._fetcher.read_one(location, key, wanted, identity)

        return EpisodeBytes(path, table, np.arange(table.num_frames), parts, late)

    def close(self) -> None:
        """See `EpisodeSource`."""
        self._fetcher.close()

    def _told(self, episode: int, camera: str) -> tuple[str, ByteRange, int, int]:
        """Path, slice, length of the header, and size of the file, as the index tells."""
        names = ("file_id", "mdat_offset", "mdat_length")
        file_id, start, length = _fields(self._index.lookup(episode, camera), names)
        path, size_bytes, header_length = _fields(
            self._index.file_lookup(file_id), ("file_path", "file_size", "header_length")
        )
        place = str(path)
        if self._data_root is not None and scheme_of(place) is None and not place.startswith("/"):
            place = f"{self._data_root.rstrip('/')}/{place}"
        return place, ByteRange(int(start), int(start) + int(length)), int(header_length), int(size_bytes)


def _is_same_place(location: str, other: str) -> bool:
    """Whether two locations are one, whoever asks; where that is not sure they are two."""
    return _place(location) == _place(other)


def _place(location: str) -> tuple[str, str]:
    scheme = scheme_of(location)
    if scheme in (None, "file"):
        return "", os.path.realpath(path_of_file_url(location) if scheme else location)
    if scheme in ("http", "https"):
        return query_digest(location), redacted(location).rstrip("/")
    return "", location.rstrip("/")


def _fields(value: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Attributes, or the items of a tuple."""
    if all(hasattr(value, name) for name in names):
        return tuple(getattr(value, name) for name in names)
    return tuple(value)


def _table_of(
    path: MediaPath, size_bytes: int, header_stop: int, parts: Sequence[tuple[int, memoryview]]
) -> SampleTable:
    """The sample table, from a sparse file in memory that has the size of the real one."""
    with memory_file() as copy:
        for start, part in parts:
            if start < header_stop:  # media are not looked at
                write_all(copy.descriptor, part, start)
        os.ftruncate(copy.descriptor, size_bytes)
        try:
            table = build_header_table(MediaPath(copy.path, path.label, is_copy=True))
        except PacketRulesDoNotFit as reason:
            raise UnsupportedFormat(
                f"{path} cannot be decoded from a part of it: {reason}; use millpond.EpisodeByteIndex", path=path.label
            ) from None
        except CorruptMedia as error:
            raise DataError(
                f"{error} (the header was taken to be the first {header_stop:,} bytes, as the index says)",
                path=path.label,
            ) from error
    return replace(table, identity=FileIdentity(size_bytes, 0))
