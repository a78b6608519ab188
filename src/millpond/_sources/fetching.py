"""One fetch: its tries, its hedge, its deadline, and the checks of what came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from millpond._sources.addresses import Address
from millpond._sources.backends import Answer, Backend
from millpond._sources.failures import Kind, TryFailed
from millpond._sources.fetch_errors import Fetch, error_of, too_slow
from millpond._sources.hedging import Pace
from millpond._sources.limits import FetchLimits
from millpond._sources.statistics import FetchCounters
from millpond._values import ByteRange, FileIdentity

_T = TypeVar("_T")
_logger = logging.getLogger("millpond")

_TOLD_TRIES = 4
"""After so many, in a second or two, whoever waits is told: not of each request of a store that fails now and then."""


class Fetcher:
    """Fetches from one backend, in the thread of its loop. Knows nothing of the store that uses it."""

    def __init__(self, backend: Backend, address: Address, limits: FetchLimits, counters: FetchCounters) -> None:
        self.backend = backend
        self._address = address
        self._limits = limits
        self._counters = counters
        self._pace = Pace(limits.hedge_seconds)
        self._told_until = 0.0

    async def range(
        self, key: str, wanted: ByteRange, identity: FileIdentity | None, started: float | None = None
    ) -> Answer:
        """Fetch exactly these bytes of this version; the errors are those of `ObjectStore.read`.

        Args:
            started: On the loop's clock: when the deadline began to run; None is now.
        """
        return await self._fetch(key, lambda: self._hedged(key, wanted, identity), wanted, identity, started)

    async def begin(self, key: str, num_bytes: int) -> Answer:
        """Fetch the first bytes, fewer where the object has fewer, and learn its version."""

        async def first() -> Answer:
            try:
                return await self._request(key, ByteRange(0, num_bytes), None, whole=False)
            except TryFailed as failure:  # an empty object has no first byte, and some servers no range of it
                if failure.kind not in (Kind.BEYOND, Kind.UNRANGED) or (found := await self._head(key)).size_bytes:
                    raise
                return Answer(b"", found)

        return await self._fetch(key, first)

    async def identity(self, key: str) -> FileIdentity:
        """Learn the version, by a HEAD, or by a GET of one byte where HEAD is refused."""
        return await self._fetch(key, lambda: self._head(key))

    async def keys(self, prefix: str) -> list[str]:
        """List the keys below a folder; none where there is no such folder."""

        async def listed() -> list[str]:
            self._counters.add(requests=1)
            try:
                return sorted(await self.backend.keys(prefix))
            except TryFailed as failure:
                if failure.kind is not Kind.MISSING:
                    raise
                return []

        return await self._fetch(prefix, listed)

    async def _fetch(
        self,
        key: str,
        work: Callable[[], Awaitable[_T]],
        wanted: ByteRange | None = None,
        identity: FileIdentity | None = None,
        started: float | None = None,
    ) -> _T:
        loop = asyncio.get_running_loop()
        limit_seconds = self._limits.timeout_seconds
        fetch = Fetch(
            self._address.name_of(key), loop.time() if started is None else started, limit_seconds, wanted, identity
        )
        try:
            async with asyncio.timeout_at(fetch.started + limit_seconds):
                try:
                    return await self._try(fetch, work)
                except TryFailed as failure:
                    if failure.kind is not Kind.AGAIN or self._limits.max_tries == 1:
                        raise
                    first = failure
                from millpond._sources.retrying import retry  # most processes never need tenacity

                return await retry(first, lambda: self._retry(fetch, work), self._limits.max_tries)
        except TimeoutError:
            raise too_slow(fetch, loop.time()) from None
        except TryFailed as failure:
            if failure.kind in (Kind.CHANGED, Kind.BEYOND) and failure.found is None:
                failure.found = await self._found(key, fetch.started + limit_seconds)
            if failure.kind is Kind.BEYOND and identity and failure.found and failure.found.differs_from(identity):
                failure.kind = Kind.CHANGED
            raise error_of(fetch, failure, loop.time()) from None

    async def _try(self, fetch: Fetch, work: Callable[[], Awaitable[_T]]) -> _T:
        fetch.tries += 1
        try:
            return await work()
        except TryFailed as failure:
            fetch.last = failure
            raise

    async def _retry(self, fetch: Fetch, work: Callable[[], Awaitable[_T]]) -> _T:
        self._counters.add(retries=1)
        now = asyncio.get_running_loop().time()
        if fetch.tries == _TOLD_TRIES and fetch.last is not None and now >= self._told_until:
            self._told_until = now + _TOLD_SECONDS
            _logger.warning(
                "%s: %s, %d times; this, and what else fails, is tried on for up to %g s",
                fetch.what,
                fetch.last.reason,
                fetch.tries,
                fetch.limit_seconds,
            )
        return await self._try(fetch, work)

    async def _hedged(self, key: str, wanted: ByteRange, identity: FileIdentity | None) -> Answer:
        """One request, and a second one beside it where it is slow: the first whole answer wins."""
        pending = {_begun(self._request(key, wanted, identity))}
        try:
            done, _ = await asyncio.wait(pending, timeout=self._pace.hedge_after(len(wanted)))
            if not done and self._pace.try_hedge():
                self._counters.add(hedges=1)
                pending.add(_begun(self._request(key, wanted, identity)))
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                came = [request for request in done if request.exception() is None]
                if came or not pending:
                    return (came or [*done])[0].result()
        finally:
            for request in pending:
                request.cancel()

    async def _request(
        self, key: str, wanted: ByteRange, identity: FileIdentity | None, *, whole: bool = True
    ) -> Answer:
        clock = asyncio.get_running_loop().time
        self._counters.add(requests=1)
        started = clock()
        answer = await self.backend.get(key, wanted.start, wanted.stop, identity)
        num_bytes = answer.num_bytes
        _check(answer, num_bytes, wanted if whole else _first(wanted, answer), identity)
        self._pace.took(num_bytes, clock() - started)
        self._counters.add(fetched=num_bytes)
        return answer

    async def _head(self, key: str) -> FileIdentity:
        self._counters.add(requests=1)
        try:
            return await self.backend.head(key)
        except TryFailed as failure:
            if failure.kind is not Kind.REFUSED:
                raise
            head_failed = failure
        try:
            self._counters.add(requests=1)
            return (await self.backend.get(key, 0, 1, None)).identity
        except TryFailed as failure:
            raise (head_failed if failure.kind is Kind.REFUSED else failure) from None

    async def _found(self, key: str, deadline: float) -> FileIdentity | None:
        """The version that is there now, for an error to name; None if that is not to be had soon."""
        soon = asyncio.get_running_loop().time() + self._limits.stall_seconds
        try:
            async with asyncio.timeout_at(min(soon, deadline)):
                return await self._head(key)
        except (TryFailed, TimeoutError):
            return None


_TOLD_SECONDS = 30.0
"""Of a store that is away for so long one request is told of, not all."""


def _begun(request: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
    """A task of which nobody need look at the error: of two requests one may fail unheard."""
    task = asyncio.ensure_future(request)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def _check(answer: Answer, num_bytes: int, wanted: ByteRange, identity: FileIdentity | None) -> None:
    found = answer.identity
    if identity is not None and found.differs_from(identity):
        raise TryFailed(Kind.CHANGED, "another version is there", found=found)
    if num_bytes == len(wanted):
        return
    if wanted.stop > found.size_bytes:
        raise TryFailed(Kind.BEYOND, "the range is not in it", found=found)
    raise TryFailed(Kind.AGAIN, f"{num_bytes:,} of {len(wanted):,} bytes came")


def _first(wanted: ByteRange, answer: Answer) -> ByteRange:
    return ByteRange(wanted.start, min(wanted.stop, answer.identity.size_bytes))
