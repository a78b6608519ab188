"""The compressed bytes of episodes, in memory of bounded size: fetched ahead, all cameras at once."""

from __future__ import annotations

import contextlib
import operator
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from millpond._amounts import parse_bytes
from millpond._datasets.episode_bytes import EpisodeBytes
from millpond._datasets.episode_decoder import EpisodeDecoder
from millpond._datasets.episode_loads import EpisodeCacheStatistics, EpisodeLoads, Fetch, Told
from millpond._datasets.episode_room import Key, Room
from millpond._datasets.episode_sources import source_of
from millpond.errors import UsageError

_OWN_STATE = ("_loads", "_source", "_cache", "_finalizer")


class ByteIndex(Protocol):
    """What an `EpisodeByteCache` asks of an index: millpond's own, or one of yours.

    What `lookup` and `file_lookup` give has these attributes, or is a tuple in this order. Since nothing in it says
    which frames are the episode's, decoders show all frames of the file, under its own indices; what is not in the
    slice is fetched when it is decoded.
    """

    @property
    def video_keys(self) -> Sequence[str]:
        """The cameras."""
        ...

    def lookup(self, episode: int, camera: str, /) -> Any:
        """(file_id, mdat_offset, mdat_length): where all bytes of an episode's packets are."""
        ...

    def file_lookup(self, file_id: int, /) -> Any:
        """(file_path, file_size, header_length): the path may be relative to the cache's `data_root`."""
        ...

    def custom_frame_mappings(self, episode: int, camera: str, /) -> str | None:
        """JSON for torchcodec's `VideoDecoder`; None where there is none. The cache itself does not ask for it."""
        ...


class EpisodeByteCache:
    """Keeps the compressed bytes of episodes in memory, and decodes from there.

    `submit_prefetch` some episodes ahead, then, for each, `ensure_ready` and `get_decoder`. The cameras of an episode
    are fetched at the same time. `max_bytes` bounds what is there and what is on its way, together: what finds no room
    waits for it in order. Room is made by dropping what was used longest ago. What was submitted and not used yet is
    dropped only for an episode that somebody waits for. What is *leased* is never dropped: bytes of which a decoder
    that was given out still lives, and those of `with cache.lease(episode)`. So let go of an episode's decoders before
    you wait for others.

    Any thread may use it. A forked process cannot (it says so); a pickled copy starts empty.

    To change how bytes come or decode, override `_fetch_manifest_slice` and `_decoder_from_payload`.

    Args:
        index: An `EpisodeByteIndex`, or whatever has the methods of `ByteIndex`.
        max_bytes: A number or "2GiB".
        data_root: Path or URL that paths of the index are relative to. None: the index's own. Of a copy elsewhere files
            must have the size that the index knows; of the index's own place also the same time, or entity tag.
        max_prefetch_workers: Fetches at once.
        storage_options, token: For URLs, as for `LeRobotDataset`. None: those that the index was made with.
        fetch_timeout: Seconds that the bytes of one camera of an episode may take, all tries included.
        lease_timeout: Seconds that a call waits while all room is leased, before it raises ArenaFull. None: for ever.

    Raises:
        ValueError: A limit that is none.
    """

    def __init__(
        self,
        index: ByteIndex,
        max_bytes: int | str,
        data_root: str | os.PathLike[str] | None = None,
        max_prefetch_workers: int = 16,
        *,
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        fetch_timeout: float = 60.0,
        lease_timeout: float | None = 60.0,
    ) -> None:
        missing = [name for name in ("video_keys", "lookup", "file_lookup") if not hasattr(index, name)]
        if missing:
            raise TypeError(
                f"index must be an EpisodeByteIndex, or have its methods, not {type(index).__name__} (it has no "
                f"{', '.join(missing)}): EpisodeByteIndex.build(URL) makes one, EpisodeByteIndex.load(PATH) reads one"
            )
        self.index = index
        self.max_bytes = parse_bytes(max_bytes)
        self.max_prefetch_workers = operator.index(max_prefetch_workers)
        self.lease_timeout = lease_timeout
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes!r}")
        if self.max_prefetch_workers < 1:
            raise ValueError(f"max_prefetch_workers must be at least 1, not {max_prefetch_workers}")
        if lease_timeout is not None and lease_timeout < 0:
            raise ValueError(f"lease_timeout must not be negative, not {lease_timeout:g}")
        self.data_root = None if data_root is None else os.fspath(data_root)
        self._storage_options = storage_options
        self._token = token
        self._fetch_timeout = fetch_timeout
        self._begin()

    def _begin(self) -> None:
        """Start empty."""
        reference = weakref.ref(self)

        def fetch_of_owner() -> Fetch | None:
            owner = reference()
            return None if owner is None else owner._fetch_manifest_slice

        self._pid = os.getpid()
        self._loads = EpisodeLoads(Room(self.max_bytes, self.max_prefetch_workers), self.lease_timeout, fetch_of_owner)
        self._cache: OrderedDict[Key, tuple[Any, int]] = self._loads.room.entries
        self._source = source_of(self.index, self.data_root, self._storage_options, self._token, self._fetch_timeout)
        self._finalizer = weakref.finalize(self, self._loads.abandon)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OWN_STATE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.index!r}, max_bytes={self.max_bytes:,})"

    def __enter__(self) -> EpisodeByteCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stats(self) -> EpisodeCacheStatistics:
        """What was done so far."""
        self._require_own_process()
        return self._loads.statistics()

    @property
    def _bytes_used(self) -> int:
        return self._loads.room.bytes_used

    @_bytes_used.setter
    def _bytes_used(self, num_bytes: int) -> None:
        self._loads.room.bytes_used = num_bytes

    def submit_prefetch(self, episode: int) -> None:
        """Have all cameras of an episode fetched, as soon as there is room; returns at once.

        What is there, or on its way, is not fetched again; an episode that failed is tried again. Errors come out of
        `ensure_ready` and `get_decoder`.
        """
        self._require_own_process()
        keys = self._keys(episode)
        self._loads.submit(operator.index(episode), self._told(keys))

    def ensure_ready(self, episode: int) -> None:
        """Wait until the bytes of all cameras are there. What was dropped meanwhile is fetched again.

        Raises:
            KeyError: The episode was never submitted.
            Exception: What fetching or decoding it raised: the error of the first camera that has one.
            EpisodeTooLarge: (an ArenaFull, and a ValueError) It does not fit into `max_bytes`.
            ArenaFull: All room is leased, and has been for `lease_timeout`.
            ClosedError: The cache was closed.
        """
        self._require_own_process()
        if not self._loads.was_submitted(operator.index(episode)):
            raise KeyError(f"episode {episode} was never submitted: call submit_prefetch({episode}) first")
        keys = self._keys(episode)
        self._loads.wait_until_ready(keys, lambda: self._told(keys))

    def is_ready(self, episode: int) -> bool:
        """Whether the bytes of all cameras are there at this moment; never waits."""
        self._require_own_process()
        return self._loads.is_ready(self._keys(episode))

    def get_decoder(self, episode: int, camera: str) -> Any:
        """A decoder of one camera's frames; each call gives another, which one thread at a time may use.

        Waits for the bytes; those that nobody submitted are fetched now. They are kept as long as the decoder lives.

        Raises as `ensure_ready` does, where KeyError is for a camera that the index does not have.
        """
        if camera not in self.index.video_keys:
            raise KeyError(f"no camera {camera!r}; the index has {', '.join(self.index.video_keys) or 'none'}")
        return self._get_or_build_decoder(episode, camera)

    @contextlib.contextmanager
    def lease(self, episode: int) -> Iterator[None]:
        """Wait for the bytes of all cameras, as `ensure_ready` does, and keep them within the block.

        An episode that was never submitted is fetched now.
        """
        self._require_own_process()
        keys = self._keys(episode)
        self._loads.lease(keys, lambda: self._told(keys))
        try:
            yield
        finally:
            self._loads.bell.end_leases(*keys)

    def close(self) -> None:
        """Drop everything; whoever waits gets ClosedError. Requests are cancelled, and all threads have ended then.

        Idempotent. Decoders that were given out go on to work. A fetch of your own that goes on is waited for.
        """
        if os.getpid() != self._pid:
            return  # a forked process has none of the threads
        self._loads.close()
        self._source.close()
        self._loads.join()

    def _get_or_build_decoder(self, episode: int, camera: str) -> Any:
        """What `get_decoder` does."""
        self._require_own_process()
        key = operator.index(episode), camera
        payload, decoder = self._loads.take(key, lambda: self._told([key]))
        is_lease = False
        try:
            if decoder is None:
                decoder = self._decoder_from_payload(payload, *key)
            is_lease = self._is_lease(key, decoder)
        finally:
            del payload  # from now on it may be dropped
            if not is_lease:
                self._loads.bell.end_leases(key)
        return decoder

    def _is_lease(self, key: Key, decoder: object) -> bool:
        """Have the lease end with the decoder; False for one that cannot be referenced weakly, which is no lease."""
        try:
            finalizer = weakref.finalize(decoder, self._loads.bell.end_leases, key)
        except TypeError:
            return False
        finalizer.atexit = False
        return True

    def _fetch_manifest_slice(self, episode: int, camera: str) -> tuple[Any, int, Any]:
        """Fetch the bytes of one camera of an episode, in a thread of the cache.

        Returns:
            (payload, num_bytes, decoder): what is kept, how many bytes that is, and its first decoder, or None.
        """
        payload = self._source.fetch(episode, camera)
        EpisodeDecoder(payload, episode=episode, camera=camera).check()
        return payload, payload.num_bytes, self._decoder_from_payload(payload, episode, camera)

    def _decoder_from_payload(self, payload: Any, episode: int, camera: str) -> Any:
        """Make a decoder of what `_fetch_manifest_slice` gave."""
        assert isinstance(payload, EpisodeBytes)
        return EpisodeDecoder(payload, episode=episode, camera=camera)

    def _keys(self, episode: int) -> tuple[Key, ...]:
        number = operator.index(episode)
        return tuple((number, camera) for camera in self.index.video_keys)

    def _told(self, keys: Sequence[Key]) -> Told:
        """How many bytes each will take, as far as the index knows."""
        fetch: Any = self._fetch_manifest_slice
        is_ours = getattr(fetch, "__func__", None) is _OWN_FETCH
        told = {}
        for key in keys:
            try:
                told[key] = self._source.told_bytes(*key), is_ours
            except Exception:  # noqa: BLE001 - the fetch asks again, and tells what is wrong
                told[key] = 0, False
        return told

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(
                f"this episode cache was made in process {self._pid}, and this one, {os.getpid()}, was forked from it, "
                "without the threads that fetch: make a cache in each process, or start processes by spawn or "
                "forkserver (a pickled copy starts empty)"
            )


_OWN_FETCH = EpisodeByteCache._fetch_manifest_slice
"""As it is written here: whoever patches it, also on the class, brings what the index may not know the size of."""
