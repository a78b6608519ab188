"""Objects below one URL: ranges, whole objects, versions and names, with tries, hedges and one deadline a fetch."""

from __future__ import annotations

import builtins
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from millpond._sources.addresses import Address
from millpond._sources.backends import BackendMaker
from millpond._sources.fetch_errors import forked
from millpond._sources.limits import FETCH_LIMITS, FetchLimits
from millpond._sources.statistics import FetchCounters, FetchStatistics
from millpond._values import ByteRange, FileIdentity
from millpond.errors import ClosedError, UnsupportedFormat

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from millpond._sources.engine import Engine
    from millpond._sources.range_cache import RangeCache
    from millpond._sources.whole_reads import PartReader

_T = TypeVar("_T")
_PROGRESS_SECONDS = 0.25
"""While a fetch is under way it is told so often that it is: its own deadline ends it, not a limit of stalling."""


class ObjectStore:
    """Objects below one URL. Any thread may use it, and several at once.

    It begins one thread and its connections at the first request. `close` ends them at once; used again, it opens
    again, unless it was closed for good. One that is collected is closed: what was in flight is cancelled. A pickled
    copy has connections and counts of its own; it carries the options, secrets among them. In a forked child one that
    was used before the fork raises `UsageError`.

    Args:
        url: s3://, gs://, az:// (abfs://), http(s)://, file://, a local path, or any URL that fsspec reads. For a
            folder or bucket, keys are what follows behind "/"; for one object the key is "".
        storage_options: fsspec's names, or obstore's own. Unknown ones are a ValueError that lists the known.
        token: A bearer token for http(s), gs and az, the user's token for hf://, a session token for s3.
        limits: Of time, tries, and sizes of requests.
        cache: Where ranges of known versions are looked for first, and kept.

    Attributes:
        url: Redacted, without "/" at its end.
    """

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        limits: FetchLimits = FETCH_LIMITS,
        cache: RangeCache | None = None,
    ) -> None:
        self._arguments = (url, dict(storage_options or {}), token, limits, cache)
        self._address = Address.of(url)
        self._maker = BackendMaker.of(self._address, storage_options, token, limits)
        self._limits = limits
        self._cache = cache
        self._counters = FetchCounters()
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._is_closed_for_good = False
        self.url = self._address.name

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._arguments

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def can_list(self) -> bool:
        """Whether `list` works: servers of plain HTTP do not say what they have."""
        return self._address.kind != "http"

    @property
    def statistics(self) -> FetchStatistics:
        """Counts since this object was made."""
        return self._counters.snapshot()

    def name_of(self, key: str) -> str:
        """What errors, logs and sidecars call an object; "" is the URL itself. No secret is in it."""
        return self._address.name_of(key)

    def identity(self, key: str, *, progress: Callable[[], None] | None = None) -> FileIdentity:
        """The version of an object that is there: by a HEAD, or a GET of one byte where HEAD is refused.

        Args:
            key: Of the object.
            progress: See `read`.

        Raises:
            ObjectMissing: No such object.
            FetchError, FetchTimeout, UnsupportedFormat: See `read`.
        """
        found: FileIdentity = self._wait(self._begin(lambda engine: engine.fetcher.identity(key), key), progress)
        return found

    def begin(
        self, key: str, num_bytes: int, *, progress: Callable[[], None] | None = None
    ) -> tuple[bytes, FileIdentity]:
        """The first bytes of an object, fewer where it has fewer, and its version, in one GET.

        Args:
            key: Of the object.
            num_bytes: At least 1.
            progress: See `read`.

        Raises:
            ObjectMissing: No such object.
            FetchError, FetchTimeout, UnsupportedFormat: See `read`.
        """
        if num_bytes < 1:
            raise ValueError(f"num_bytes must be at least 1, not {num_bytes}")
        answer = self._wait(self._begin(lambda engine: engine.fetcher.begin(key, num_bytes), key), progress)
        return bytes(answer.data), answer.identity

    def read(
        self,
        key: str,
        wanted: ByteRange,
        *,
        identity: FileIdentity | None = None,
        progress: Callable[[], None] | None = None,
    ) -> bytes:
        """Read one range.

        Args:
            key: Of the object.
            wanted: Exactly these bytes.
            identity: The version that they must be of; None takes what is there.
            progress: Called several times a second while the fetch is under way.

        Raises:
            ObjectMissing: No such object.
            CorruptMedia: Another version is there now: the error names both.
            FetchError: Refused, or failing after every try. Facts: path, tries, status.
            FetchTimeout: The deadline passed.
            DataError: The range is not in the object.
            UnsupportedFormat: Nothing reads such URLs, or a package for them is missing.
            UsageError: In a forked child.
            ClosedError: The store was closed meanwhile.
        """
        return bytes(self._wait(self.submit(key, wanted, identity=identity), progress))

    def read_and_identify(self, key: str, wanted: ByteRange) -> tuple[bytes, FileIdentity]:
        """Read one range of whatever version is there, and say which that is, in one GET. Raises what `read` does."""
        _require_range(wanted)
        answer = self._wait(self._begin(lambda engine: engine.fetcher.range(key, wanted, None), key))
        return bytes(answer.data), answer.identity

    def submit(
        self, key: str, wanted: ByteRange, *, identity: FileIdentity | None = None, started: float | None = None
    ) -> Future[Buffer]:
        """Begin to read one range; the future gives a read-only buffer, or the errors of `read`.

        Args:
            key, wanted, identity: See `read`.
            started: When its time began to run, by time.monotonic(); None is now. Several may so have one deadline.

        Cancelling the future cancels the request. Its callbacks run in the store's own thread and must be quick.
        Dropping the store cancels it, too.
        """
        _require_range(wanted)
        return self._begin(lambda engine: engine.range(key, wanted, identity, started), key)

    def forget(self, key: str, wanted: ByteRange, *, identity: FileIdentity) -> None:
        """Drop from the cache what `submit` brought, since it is not what the object should hold; nothing if closed."""
        with self._lock:
            engine = self._engine
        if engine is not None and engine.is_ours:
            engine.forget(key, wanted, identity)

    def read_ranges(
        self,
        key: str,
        ranges: Sequence[ByteRange],
        *,
        identity: FileIdentity | None = None,
        max_concurrency: int = 16,
        progress: Callable[[], None] | None = None,
    ) -> list[bytes]:
        """Read many ranges of one object in as few requests as pay off.

        Args:
            key: Of the object.
            ranges: Any order, overlaps allowed, empty ones too.
            identity: See `read`.
            max_concurrency: Requests at a time.
            progress: See `read`.

        Returns:
            The bytes of each range, in the order given.

        Raises:
            FetchTimeout: The deadline, one for all requests, passed; nothing partial is returned.
            ObjectMissing, CorruptMedia, FetchError, DataError, UnsupportedFormat, UsageError, ClosedError: See `read`.
        """
        for wanted in ranges:
            _require_range(wanted)
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        begun = self._begin(lambda engine: engine.ranges(key, ranges, identity, max_concurrency), key)
        return self._wait(begun, progress)

    def read_whole(
        self,
        key: str,
        take: Callable[[Buffer], object],
        *,
        max_bytes: int | None,
        stall_seconds: float,
        timeout_seconds: float | None = None,
        progress: Callable[[], None] | None = None,
    ) -> FileIdentity | None:
        """Read an object from its first byte to its last. Works with servers that know no ranges.

        Over HTTP the caller's thread reads it, and no other is begun; `close` does not end that.

        Args:
            key: Of the object.
            take: Called with each part, in the caller's thread; the part is valid until it returns.
            max_bytes: Of a larger object nothing more is read. None reads any.
            stall_seconds: Without a byte, also before the first.
            timeout_seconds: For all of it. None: however long it takes.
            progress: Called before each try, and per part.

        Returns:
            The version that was read; None where the server says nothing of it.

        Raises:
            ObjectMissing: No such object.
            DataError: It is larger than `max_bytes`. Facts: path, size_bytes, limit_bytes.
            FetchTimeout: A limit of time passed.
            CorruptMedia: It changed while it was read.
            FetchError, UnsupportedFormat, UsageError, ClosedError: See `read`.
        """
        from millpond._sources.whole_reads import WholeRead

        whole = WholeRead(
            lambda start, identity: self._parts(key, start, identity, stall_seconds),
            self.name_of(key),
            self._counters,
            max_tries=self._limits.max_tries,
            max_bytes=max_bytes,
            timeout_seconds=timeout_seconds,
            progress=progress,
        )
        try:
            while (part := whole.part()) is not None:
                take(part)
        finally:
            whole.close()
        return whole.identity

    def _parts(self, key: str, start: int, identity: FileIdentity | None, stall_seconds: float) -> PartReader:
        access = self._maker.access
        if self._address.kind == "http" and access is not None and not access.has_own_client:
            from millpond._sources.http_parts import HttpParts  # ssl takes 20 ms

            headers = access.client["default_headers"]
            return HttpParts(self._address.http_url(key), headers, start, identity, stall_seconds)
        from millpond._sources.loop_parts import LoopParts

        return LoopParts(self._open(key), self._wait, key, start, identity, stall_seconds)

    def list(self, prefix: str = "") -> builtins.list[str]:
        """The keys below a folder of the store, sorted; "" is all of it. None where there is no such folder.

        Raises:
            UnsupportedFormat: The store cannot list.
            FetchError, FetchTimeout: See `read`.
        """
        if not self.can_list:
            raise UnsupportedFormat(f"{self.url!r} cannot be listed: servers of plain HTTP do not say what they have")
        return self._wait(self._begin(lambda engine: engine.fetcher.keys(prefix)))

    def close(self, *, for_good: bool = False) -> None:
        """End the thread and the connections at once; what is in flight is cancelled. Idempotent.

        Args:
            for_good: Any later use raises ClosedError: also that of a thread that is just about to make a request,
                which otherwise would open the store again, and wait.
        """
        with self._lock:
            self._is_closed_for_good |= for_good
            engine, finalizer, self._engine, self._finalizer = self._engine, self._finalizer, None, None
        if engine is not None and finalizer is not None:
            finalizer()
            engine.join()

    def reopen(self) -> None:
        """Take back that it was closed for good: whoever must not make a request any more has ended."""
        with self._lock:
            self._is_closed_for_good = False

    def _begin(self, work: Callable[[Engine], Any], key: str = "") -> Future[Any]:
        engine = self._open(key)
        return engine.begin(work(engine))

    def _open(self, key: str = "") -> Engine:
        with self._lock:
            if self._is_closed_for_good:
                raise ClosedError(f"{self.url!r} is closed")
            engine = self._engine
            if engine is None:
                from millpond._sources.engine import Engine  # asyncio takes 40 ms that whoever never fetches is spared

                name = self.name_of(key)
                engine = self._engine = Engine(self._maker, self._limits, self._counters, self._cache, name)
                self._finalizer = weakref.finalize(self, engine.end)
            elif not engine.is_ours:
                raise forked(self.name_of(key))
            return engine

    def _wait(self, future: Future[_T], progress: Callable[[], None] | None = None) -> _T:
        try:
            while progress is not None and wait([future], _PROGRESS_SECONDS).not_done:
                progress()
            return future.result()
        except CancelledError:
            raise ClosedError(f"{self.url!r} was closed while a fetch was under way") from None
        finally:
            future.cancel()  # an interrupt leaves no request behind


def _require_range(wanted: ByteRange) -> None:
    if not 0 <= wanted.start <= wanted.stop:
        raise ValueError(f"bytes {wanted.start} to {wanted.stop} are no range")


def _rebuild(
    url: str, options: dict[str, Any], token: str | None, limits: FetchLimits, cache: RangeCache | None
) -> ObjectStore:
    return ObjectStore(url, storage_options=options, token=token, limits=limits, cache=cache)
