"""What an open store has: the thread of its loop, its backend, and the work that runs there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from millpond._plan.requests import Piece, plan_requests
from millpond._sources.backends import Backend, BackendMaker
from millpond._sources.cached_ranges import CachedRanges
from millpond._sources.failures import TryFailed
from millpond._sources.fetch_errors import Fetch, error_of
from millpond._sources.fetching import Fetcher
from millpond._sources.limits import FetchLimits
from millpond._sources.loop_thread import LoopThread
from millpond._sources.statistics import FetchCounters
from millpond._urls import query_digest
from millpond._values import ByteRange, FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from millpond._sources.range_cache import RangeCache

_T = TypeVar("_T")


class Engine:
    """One opening of one store. Knows nothing of the store itself, so that a store that nobody has is collected.

    Args:
        maker: Of the backend.
        limits: Of fetches.
        counters: Of the store.
        cache: Of ranges, or None.
        wanted: The object that it is opened for, redacted: what errors name.

    Raises:
        FetchError, UnsupportedFormat: No backend can be made of this address.
    """

    def __init__(
        self,
        maker: BackendMaker,
        limits: FetchLimits,
        counters: FetchCounters,
        cache: RangeCache | None,
        wanted: str,
    ) -> None:
        self._address, self._limits = maker.address, limits
        try:
            self.backend = maker.make()
        except TryFailed as failure:
            raise error_of(Fetch(wanted, 0.0, limits.timeout_seconds), failure, 0.0) from None
        self.fetcher = Fetcher(self.backend, maker.address, limits, counters)
        self._cached = CachedRanges(cache, counters) if cache is not None else None
        backend, cached = self.backend, self._cached
        self._loop = LoopThread("millpond-fetch", lambda: _tear_down(backend, cached))

    @property
    def is_ours(self) -> bool:
        """Whether this process opened it; a forked child did not."""
        return self._loop.is_ours

    def begin(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run work in the loop; cancelling the future cancels it."""
        return self._loop.begin(work)

    def end(self) -> None:
        """Have what runs cancelled, threads and connections ended. Waits for nothing; in a forked child a no-op."""
        self._loop.end()

    def join(self) -> None:
        """Wait until that is done; a callback, which runs in the thread that does it, does not wait."""
        self._loop.join()

    async def range(
        self, key: str, wanted: ByteRange, identity: FileIdentity | None, started: float | None = None
    ) -> Buffer:
        """The bytes of one range, from the cache or the network; `started` as for `Fetcher.range`."""
        if not len(wanted):
            return b""
        if self._cached is None or identity is None:
            return (await self.fetcher.range(key, wanted, identity, started)).data
        name = self._cached_name(key)
        found = (await self._cached.find(name, identity, [wanted]))[0]
        if found is not None:
            return found
        data = (await self.fetcher.range(key, wanted, identity, started)).data
        self._cached.keep(name, identity, wanted, data)
        return data

    def _cached_name(self, key: str) -> str:
        return f"{self._address.name_of(key)}#{query_digest(self._address.url)}"

    def forget(self, key: str, wanted: ByteRange, identity: FileIdentity) -> None:
        """Drop a range from the cache."""
        if self._cached is not None:
            self._cached.forget(self._cached_name(key), identity, wanted)

    async def ranges(
        self, key: str, ranges: Sequence[ByteRange], identity: FileIdentity | None, max_concurrency: int
    ) -> list[bytes]:
        """The bytes of many ranges, under one deadline; what the cache has is not fetched."""
        if self._cached is None or identity is None:
            return await self._fetched(key, ranges, identity, max_concurrency)
        name = self._cached_name(key)
        found = await self._cached.find(name, identity, ranges)
        missing = [i for i in range(len(ranges)) if found[i] is None]
        got = await self._fetched(key, [ranges[i] for i in missing], identity, max_concurrency)
        for i, data in zip(missing, got, strict=True):
            found[i] = data
            self._cached.keep(name, identity, ranges[i], data)
        return [data for data in found if data is not None]

    async def _fetched(
        self, key: str, ranges: Sequence[ByteRange], identity: FileIdentity | None, max_concurrency: int
    ) -> list[bytes]:
        plan = plan_requests(ranges, self._limits.max_gap_bytes, self._limits.max_request_bytes)
        gate, started = asyncio.Semaphore(max_concurrency), asyncio.get_running_loop().time()

        async def one(request: ByteRange) -> memoryview:
            async with gate:
                return memoryview((await self.fetcher.range(key, request, identity, started)).data)

        tasks = [asyncio.ensure_future(one(request)) for request in plan.requests]
        try:
            got = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [_joined(got, pieces) for pieces in plan.pieces]


async def _tear_down(backend: Backend, cached: CachedRanges | None) -> None:
    await backend.settle()
    backend.close()
    if cached is not None:
        cached.end()


def _joined(got: Sequence[memoryview], pieces: Sequence[Piece]) -> bytes:
    if len(pieces) == 1:
        return bytes(got[pieces[0].request][pieces[0].start : pieces[0].stop])
    return b"".join(got[piece.request][piece.start : piece.stop] for piece in pieces)
