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
from millpond._sources.shared_blocks import SharedBlocks
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
        cached = CachedRanges(cache) if cache is not None else None
        self._shared = SharedBlocks(cached, limits, counters) if cached is not None else None
        backend = self.backend
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
        if identity is not None and (got := await self._from_blocks(key, [wanted], identity, 1, started)) is not None:
            return got[0]
        return (await self.fetcher.range(key, wanted, identity, started)).data

    async def _from_blocks(
        self,
        key: str,
        ranges: Sequence[ByteRange],
        identity: FileIdentity,
        max_concurrency: int,
        started: float | None = None,
    ) -> list[Buffer] | None:
        """Ranges by way of the disk cache; None where there is none, or it does not help."""
        if self._shared is None:
            return None
        began = asyncio.get_running_loop().time() if started is None else started

        async def fetch(requests: Sequence[ByteRange]) -> Sequence[Buffer]:
            return await self._requests(key, requests, identity, max_concurrency, began)

        return await self._shared.read(self._cached_name(key), identity, ranges, fetch, began)

    def _cached_name(self, key: str) -> str:
        return f"{self._address.name_of(key)}#{query_digest(self._address.url)}"

    def forget(self, key: str, wanted: ByteRange, identity: FileIdentity) -> None:
        """Drop a range from the cache."""
        if self._shared is not None:
            self._shared.forget(self._cached_name(key), identity, wanted)

    async def ranges(
        self, key: str, ranges: Sequence[ByteRange], identity: FileIdentity | None, max_concurrency: int
    ) -> list[bytes]:
        """The bytes of many ranges, under one deadline; what the cache has is not fetched."""
        got = None if identity is None else await self._from_blocks(key, ranges, identity, max_concurrency)
        if got is not None:
            return [bytes(data) for data in got]
        plan = plan_requests(ranges, self._limits.max_gap_bytes, self._limits.max_request_bytes)
        started = asyncio.get_running_loop().time()
        answers = await self._requests(key, plan.requests, identity, max_concurrency, started)
        views = [memoryview(data) for data in answers]
        return [_joined(views, pieces) for pieces in plan.pieces]

    async def _requests(
        self,
        key: str,
        requests: Sequence[ByteRange],
        identity: FileIdentity | None,
        max_concurrency: int,
        started: float,
    ) -> list[Buffer]:
        gate = asyncio.Semaphore(max_concurrency)

        async def one(request: ByteRange) -> Buffer:
            async with gate:
                return (await self.fetcher.range(key, request, identity, started)).data

        tasks = [asyncio.ensure_future(one(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


async def _tear_down(backend: Backend, cached: CachedRanges | None) -> None:
    await backend.settle()
    backend.close()
    if cached is not None:
        cached.end()


def _joined(got: Sequence[memoryview], pieces: Sequence[Piece]) -> bytes:
    if len(pieces) == 1:
        return bytes(got[pieces[0].request][pieces[0].start : pieces[0].stop])
    return b"".join(got[piece.request][piece.start : piece.stop] for piece in pieces)
