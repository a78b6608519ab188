"""Open decoders, a bounded number of them: the least recently used goes first, and its descriptor with it."""

from __future__ import annotations

import contextlib
import copy
import operator
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from millpond._amounts import parse_bytes
from millpond._datasets.decoders.handles import Handle
from millpond._datasets.decoders.opening import (
    DecoderBackend,
    DecoderKey,
    Entry,
    open_decoder,
    out_of_descriptors,
    resolved,
)
from millpond._datasets.decoders.stream_decoder import StreamDecoder
from millpond._datasets.media_by_url import UrlAccess
from millpond._datasets.url_stores import UrlStores
from millpond._datasets.writable_store import store_in
from millpond._media.heap import HeapTrimmer
from millpond.errors import ClosedError, ObjectMissing, UnsupportedFormat


class _Unset(Enum):
    FROM_ENVIRONMENT = "what MILLPOND_VIDEO_DECODER_CACHE_SIZE says"


FROM_ENVIRONMENT: Final = _Unset.FROM_ENVIRONMENT


_NO_OPTIONS = (None, None, "bilinear", None)
"""Backend, size, interpolation and stream, where a path alone was given."""


@dataclass(frozen=True, slots=True)
class DecoderCacheStatistics:
    """What a cache did so far.

    Attributes:
        hits: Decoders asked for that were there.
        misses: Decoders asked for that had to be opened, those that did not open included.
        evictions: Decoders that made room for others.
        open: Handles that are open now: those kept, and those evicted that are still in use.
        nbytes: About how much memory the decoders kept hold.
    """

    hits: int
    misses: int
    evictions: int
    open: int
    nbytes: int


class VideoDecoderCache:
    """Keeps decoders of videos open, and no more than so many. Any thread; a copy in another process starts empty.

    A decoder holds a sample table and one descriptor, no codec context: those are made for a call. It is closed as soon
    as it is evicted; a decoder that must outlast that, since other threads use the cache, is held by `lease`.

    Args:
        max_size: Most decoders that are kept, at least 1; None: no bound. Left out, it is 100, or what
            MILLPOND_VIDEO_DECODER_CACHE_SIZE says: a number, or "none", "unbounded", "-1" or nothing for no bound.
            Where the process may not have as many files open, fewer are kept.
        max_bytes: Most memory of those that are kept, a number or "1GiB"; the one that was asked for last stays in any
            case. None: no bound.
        backend: "pyav", the packet decoder; "torchcodec", where it is installed; "auto" is "pyav", so that the pictures
            are the same wherever it runs.
        storage_options: How URLs are reached; see `LeRobotDataset`.
        token: For URLs.
        cache_dir: Where sample tables are kept; None takes MILLPOND_CACHE_DIR.

    Raises:
        ValueError: A bound that is none; the environment's is named.
        UnsupportedFormat: "torchcodec" is asked for and not installed.
    """

    def __init__(
        self,
        max_size: int | _Unset | None = FROM_ENVIRONMENT,
        max_bytes: int | str | None = None,
        backend: DecoderBackend = "auto",
        *,
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        self.max_size = _size_of_environment() if max_size is FROM_ENVIRONMENT else _checked_size(max_size)
        self.max_bytes = None if max_bytes is None else _checked_bytes(max_bytes)
        self.backend = resolved(backend)
        if cache_dir == "beside":
            raise ValueError('cache_dir="beside" is for the folder of a dataset: give a folder, or None')
        self._access = UrlAccess(storage_options, token)
        self._cache_dir = cache_dir
        self._store = store_in(cache_dir, Path())
        self._start_empty()
        _caches.add(self)

    def _start_empty(self) -> None:
        self._lock = threading.RLock()  # what is collected amid a call may drop its own
        self._cache: OrderedDict[Hashable, Entry] = OrderedDict()
        self._opening: dict[Hashable, Future[Entry]] = {}
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._urls = UrlStores(self._access)
        self._hits = self._misses = self._evictions = self._nbytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        access = self._access
        return _made_again, (
            type(self),
            (self.max_size, self.max_bytes, self.backend),
            {"storage_options": access.storage_options, "token": access.token, "cache_dir": self._cache_dir},
        )

    def __repr__(self) -> str:
        return f"VideoDecoderCache({self.size()} decoders, max_size={self.max_size}, backend={self.backend!r})"

    def __len__(self) -> int:
        return self.size()

    def __bool__(self) -> bool:
        return True  # an empty cache is a cache

    def __contains__(self, path: object) -> bool:
        """Whether a decoder as `get_decoder(path)` gives it is kept."""
        if not isinstance(path, str | os.PathLike):
            return False
        try:
            place = self._place(path, _NO_OPTIONS)
        except (TypeError, ValueError, UnsupportedFormat, ObjectMissing):  # a file of another machine, say
            return False
        with self._lock:
            return place in self._cache

    def size(self) -> int:
        """How many decoders are kept."""
        with self._lock:
            return len(self._cache)

    def get_decoder(
        self,
        path: str | os.PathLike[str],
        *,
        backend: DecoderBackend | None = None,
        image_size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        stream_index: int | None = None,
    ) -> StreamDecoder:
        """The decoder of a video: the one that is kept, or one that is opened now, and then kept.

        It works until it is evicted, which another thread may bring about at any time: see `lease`.

        Args:
            path: A path, or a URL.
            backend: Another one than the cache's.
            image_size: (height, width) that pictures are resized to; None keeps theirs.
            interpolation: For that: "bilinear", "area" or "bicubic".
            stream_index: Which stream of the file; None takes the first video stream that is no cover picture.

        Raises:
            TypeError, ValueError: Not what is asked for; bytes, an open file and "" name no video.
            ObjectMissing: Nothing there.
            CorruptMedia: No video in it, or it is cut short.
            FetchTimeout, DataError: It cannot be read.
            UnsupportedFormat: A URL of a scheme that is not known; a backend that is not installed.
        """
        with self.lease(
            path, backend=backend, image_size=image_size, interpolation=interpolation, stream_index=stream_index
        ) as decoder:
            return decoder

    @contextlib.contextmanager
    def lease(
        self,
        path: str | os.PathLike[str],
        *,
        backend: DecoderBackend | None = None,
        image_size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        stream_index: int | None = None,
    ) -> Iterator[StreamDecoder]:
        """The decoder of a video, which stays open for as long as the block. See `get_decoder`."""
        options = backend, image_size, interpolation, stream_index

        def open_it() -> Entry:
            return open_decoder(self._key(path, *options), self._store, self._urls)

        entry = self._acquire(self._place(path, options), open_it)
        try:
            yield entry.decoder
        finally:
            entry.file_handle.end_use()

    @contextlib.contextmanager
    def lease_entry(self, key: Hashable, open_it: Callable[[], Entry]) -> Iterator[Entry]:
        """For datasets: what is kept under a key, or what `open_it` opens; it stays open for as long as the block."""
        entry = self._acquire(key, open_it)
        try:
            yield entry
        finally:
            entry.file_handle.end_use()

    def clear(self) -> None:
        """Close every decoder: at once, or when its lease ends. The cache can be used again."""
        self.drop(lambda key: True)
        self._urls.release()  # a decoder that is leased still reads

    def drop(self, is_chosen: Callable[[Hashable], bool]) -> None:
        """For datasets: close the decoders under some keys.

        Finalizers may call this: it can come amid a call of the same thread.
        """
        with self._lock:
            for key in list(self._cache):
                if is_chosen(key):
                    self._remove(key)

    def statistics(self) -> DecoderCacheStatistics:
        """What it did so far."""
        with self._lock:
            still_open = sum(not handle.closed for handle in self._handles)
            return DecoderCacheStatistics(self._hits, self._misses, self._evictions, still_open, self._nbytes)

    def _place(self, path: str | os.PathLike[str], options: tuple[Any, ...]) -> Hashable:
        """Where a decoder is kept: under its path alone, if nothing else was asked for."""
        if options == _NO_OPTIONS and isinstance(path, str) and path in self._cache:
            return path  # it is absolute, since it is there
        key = self._key(path, *options)
        return key.source if key == DecoderKey(key.source, self.backend) else key

    def _key(
        self,
        path: str | os.PathLike[str],
        backend: DecoderBackend | None,
        image_size: tuple[int, int] | None,
        interpolation: str,
        stream_index: int | None,
    ) -> DecoderKey:
        return DecoderKey.of(path, backend or self.backend, image_size, interpolation, stream_index)

    def _acquire(self, key: Hashable, open_it: Callable[[], Entry]) -> Entry:
        """An entry with one use counted. One thread opens it, others that want it wait for that one."""
        while True:
            with self._lock:
                entry = self._cache.get(key)
                if entry is not None and entry.file_handle.closed:  # by the user
                    self._remove(key)
                    entry = None
                if entry is not None:
                    entry.file_handle.begin_use()
                    self._cache.move_to_end(key)
                    self._hits += 1
                else:
                    opened = self._opening.get(key)
                    if opened is None:
                        mine = self._opening[key] = Future()
                        self._misses += 1
            if entry is not None:
                if not entry.file_handle.is_stale():
                    return entry
                self._forget_stale(key, entry)
            elif opened is None:
                return self._open(key, open_it, mine)
            else:
                with contextlib.suppress(ClosedError):  # evicted before this thread came to it
                    if (shared := _result(opened)) is not None:
                        shared.file_handle.begin_use()
                        with self._lock:
                            self._hits += 1
                        return shared

    def _open(self, key: Hashable, open_it: Callable[[], Entry], mine: Future[Entry]) -> Entry:
        try:
            _heap.trim_if_grown()
            entry = self._opened(open_it)
            entry.file_handle.begin_use()
            with self._lock:
                self._cache[key] = entry
                self._nbytes += entry.decoder.nbytes
                self._handles.add(entry.file_handle)
                while len(self._cache) > 1 and self._is_over():
                    self._evict_oldest()
            mine.set_result(entry)
        except Exception as error:
            mine.set_exception(_twin(error))  # the error itself holds this frame, and would hold itself
            raise
        finally:
            mine.cancel()  # nothing happens where there is a result; of an interrupt no other thread need know
            with self._lock:
                self._opening.pop(key, None)
        return entry

    def _opened(self, open_it: Callable[[], Entry]) -> Entry:
        """Where descriptors run out before the bound is reached, half of the decoders make room."""
        try:
            return open_it()
        except OSError as error:
            if not out_of_descriptors(error):
                raise
            with self._lock:
                half = (len(self._cache) + 1) // 2
                for _ in range(half):
                    self._evict_oldest()
            if not half:
                raise
        return open_it()

    def _is_over(self) -> bool:
        return (self.max_size is not None and len(self._cache) > self.max_size) or (
            self.max_bytes is not None and self._nbytes > self.max_bytes
        )

    def _evict_oldest(self) -> None:
        try:
            entry = self._cache.popitem(last=False)[1]
        except KeyError:  # a finalizer came before, and dropped the last one
            return
        self._let_go(entry)
        self._evictions += 1

    def _remove(self, key: Hashable) -> None:
        entry = self._cache.pop(key, None)
        if entry is not None:  # else a finalizer came before
            self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        self._nbytes -= entry.decoder.nbytes
        entry.file_handle.close()

    def _forget_stale(self, key: Hashable, entry: Entry) -> None:
        """Another file lies there now: let go of the use that was counted, and of what is kept."""
        with self._lock:
            if self._cache.get(key) is entry:
                self._remove(key)
            self._hits -= 1
        entry.file_handle.end_use()


def require_cache(cache: Any, name: str = "cache") -> None:
    """TypeError that names the argument, for what is neither a cache nor None."""
    if not isinstance(cache, VideoDecoderCache | None):
        given = "the class itself: call it" if cache is VideoDecoderCache else type(cache).__name__
        raise TypeError(f"{name} must be a millpond.VideoDecoderCache or None, not {given}")


def default_cache() -> VideoDecoderCache:
    """The cache of this process, for whoever names none."""
    global _default
    with _default_lock:
        if _default is None:
            _default = VideoDecoderCache()
        return _default


_default: VideoDecoderCache | None = None
_default_lock = threading.Lock()
_caches: weakref.WeakSet[VideoDecoderCache] = weakref.WeakSet()
_heap = HeapTrimmer()
"""Of the process: what a cache opens and lets go of lies on it among all that others have."""
_inherited: list[object] = []
"""What the parent had, in a forked child: it may have been amid a call of another thread, and is left alone."""


def _forget_after_fork() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for cache in list(_caches):
        _inherited.append((cache._cache, cache._urls))
        cache._start_empty()


os.register_at_fork(after_in_child=_forget_after_fork)


def _result(opened: Future[Entry]) -> Entry | None:
    """What another thread has opened; None where it was interrupted."""
    try:
        error = opened.exception()
    except CancelledError:
        return None
    if error is not None:
        raise _twin(error)  # several threads may wait, and each adds its own traceback
    return opened.result()


def _twin(error: BaseException) -> BaseException:
    """The same error without its traceback."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - classes that are made of other arguments than they keep
        twin = type(error).__new__(type(error), *error.args)
        vars(twin).update(vars(error))
    twin.__cause__ = error.__cause__
    return twin


def _made_again(cls: type[VideoDecoderCache], arguments: tuple[Any, ...], access: dict[str, Any]) -> VideoDecoderCache:
    return cls(*arguments, **access)


def _checked_size(size: Any) -> int | None:
    if size is None:
        return None
    with contextlib.suppress(TypeError):
        if not isinstance(size, bool) and (number := operator.index(size)) >= 1:
            return number
    raise ValueError(f"max_size must be a number of decoders, at least 1, or None for no bound, not {size!r}")


def _checked_bytes(size: int | str) -> int:
    try:
        found = parse_bytes(size)
    except (TypeError, ValueError) as error:
        raise type(error)(f"max_bytes: {error}") from None
    if found < 1:
        raise ValueError(f"max_bytes must be at least 1, or None for no bound, not {size!r}")
    return found


def _size_of_environment() -> int | None:
    from pydantic import ValidationError  # 0.1 s that whoever gives a number need not wait for

    from millpond.settings import DecoderCacheSettings

    try:
        return DecoderCacheSettings().video_decoder_cache_size
    except ValidationError as error:
        given = error.errors()[0]["input"]
        raise ValueError(
            "MILLPOND_VIDEO_DECODER_CACHE_SIZE must be a number of decoders, at least 1, or none, unbounded, -1 or "
            f"nothing for no bound, not {given!r}"
        ) from None
