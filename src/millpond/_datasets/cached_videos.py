"""Videos of a dataset in a `VideoDecoderCache`: one bound for all that a process has open, whoever opened it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from millpond._datasets.decoders.cache import VideoDecoderCache
from millpond._datasets.decoders.handles import Handle
from millpond._datasets.decoders.opening import Entry
from millpond._datasets.decoders.pyav_decoder import PyAVDecoder
from millpond._datasets.fetched import Fetched
from millpond._datasets.sources import CameraSource
from millpond._datasets.videos import open_video
from millpond._media.sidecars import SidecarStore
from millpond._media.video_file import VideoFile


class VideoOfDataset(NamedTuple):
    """Under what a cache keeps a video of a dataset.

    Attributes:
        path: Its place.
        owner: Stands for the dataset: what was opened for it is read with its rights, and closed when it is.
    """

    path: str
    owner: object


class CachedVideos:
    """See `Videos`: those of a dataset, for the readers of all its threads.

    Args:
        source: Where they are.
        store: Sidecars of sample tables.
        cache: Where they are open.
        owner: See `VideoOfDataset`.
    """

    def __init__(self, source: CameraSource, store: SidecarStore, cache: VideoDecoderCache, owner: object) -> None:
        self._source = source
        self._store = store
        self._cache = cache
        self._owner = owner
        self.fetched = Fetched()

    @contextmanager
    def lease(self, file: int) -> Iterator[VideoFile]:
        """See `Videos`."""
        key = VideoOfDataset(self._source.paths[file], self._owner)
        with self._cache.lease_entry(key, lambda: self._open(file)) as entry:
            assert isinstance(entry.decoder, PyAVDecoder)
            video = entry.decoder.video
            with entry.decoder.lock:
                try:
                    yield video
                finally:
                    video.close_container()  # see PyAVDecoder

    def close(self) -> None:
        """See `Videos`: none is a reader's alone."""

    def _open(self, file: int) -> Entry:
        video = open_video(self._source, self._store, file, self.fetched)
        try:
            video.check_identity()  # with that a local file is open, before several threads read it
            is_local = not self._source.files.is_remote
            handle = Handle(video.contents, video.path, video.table.identity, is_local=is_local)
            decoder = PyAVDecoder(video.table, handle)
            decoder.video.goes_on = is_local  # else just what was planned is fetched
            return Entry(decoder, handle)
        except BaseException:
            video.close()
            raise


def close_videos(cache: VideoDecoderCache, owner: object) -> None:
    """Close all that was opened for one owner."""

    def is_theirs(key: Hashable) -> bool:
        return isinstance(key, VideoOfDataset) and key.owner is owner

    cache.drop(is_theirs)
