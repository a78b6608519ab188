"""One object from its first byte to its last, in parts, for whoever reads it front to back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from millpond._sources.addresses import Address
from millpond._sources.backends import Backend, Parts
from millpond._sources.failures import Kind, TryFailed
from millpond._sources.fetch_errors import Fetch, error_of, too_slow
from millpond._sources.fetching import is_another
from millpond._sources.limits import FetchLimits
from millpond._sources.statistics import FetchCounters
from millpond._urls import shortened
from millpond._values import FileIdentity
from millpond.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")


class WholeRead:
    """One reading of one object, a part at a time, in the thread of a store's loop.

    A connection that breaks is followed by another one that goes on where the first broke off, if the version is known
    to be the same. A server that goes silent is given up at once: who reads a whole object says how long is too long.

    Args:
        backend, address, limits, counters: Of the store.
        key: Of the object.
        max_bytes: Of a larger one nothing more is read; None reads any.
        stall_seconds: Without a byte, also before the first.
        timeout_seconds: For all of it; None has no limit.

    Attributes:
        identity: The version, once the first part is there; None where the server says nothing of it.
    """

    def __init__(
        self,
        backend: Backend,
        address: Address,
        limits: FetchLimits,
        counters: FetchCounters,
        key: str,
        *,
        max_bytes: int | None,
        stall_seconds: float,
        timeout_seconds: float | None,
    ) -> None:
        self.identity: FileIdentity | None = None
        self._backend, self._key, self._max_tries = backend, key, limits.max_tries
        self._counters = counters
        self._max_bytes, self._stall_seconds = max_bytes, stall_seconds
        limit_seconds = float("inf") if timeout_seconds is None else timeout_seconds
        self._fetch = Fetch(address.name_of(key), asyncio.get_running_loop().time(), limit_seconds)
        self._parts: Parts | None = None
        self._num_bytes = 0

    async def part(self) -> Buffer | None:
        """What comes next; None at the end. The errors are those of `ObjectStore.read_whole`."""
        clock = asyncio.get_running_loop().time
        try:
            part = await self._some_try()
        except TryFailed as failure:
            if failure.silent_seconds is not None:
                raise too_slow(self._fetch, clock(), failure.silent_seconds) from None
            raise error_of(self._fetch, failure, clock()) from None
        if part is None:
            return None
        self._num_bytes += memoryview(part).nbytes
        self._counters.add(fetched=memoryview(part).nbytes)
        self._require_size(self._num_bytes)
        if clock() - self._fetch.started > self._fetch.limit_seconds:
            raise too_slow(self._fetch, clock(), what=f"{self._num_bytes:,} bytes came")
        return part

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.close()

    async def _some_try(self) -> Buffer | None:
        try:
            return await self._try()
        except TryFailed as failure:
            if not self._may_go_on(failure):
                raise
            first = failure
        from millpond._sources.retrying import retry

        return await retry(first, self._retry, self._max_tries - self._fetch.tries + 1)

    def _may_go_on(self, failure: TryFailed) -> bool:
        is_known = self.identity is not None and bool(self.identity.etag or self.identity.mtime_ns)
        passes = failure.kind is Kind.AGAIN and failure.silent_seconds is None
        return passes and self._fetch.tries < self._max_tries and (self._num_bytes == 0 or is_known)

    async def _retry(self) -> Buffer | None:
        self._counters.add(retries=1)
        return await self._try()

    async def _try(self) -> Buffer | None:
        try:
            if self._parts is None:
                await self._open()
            assert self._parts is not None
            part = await self._in_time(self._parts.part())
            size_bytes = self._parts.size_bytes
            if part is None and size_bytes is not None and self._num_bytes < size_bytes:
                raise TryFailed(Kind.AGAIN, "")
            return part
        except TryFailed as failure:
            size_bytes = self._parts.size_bytes if self._parts is not None else None
            if failure.kind is Kind.AGAIN and size_bytes is not None and failure.silent_seconds is None:
                failure.reason = f"{self._num_bytes:,} of {size_bytes:,} bytes came before the connection closed"
            self._fetch.last = failure
            await self.close()
            raise

    async def _open(self) -> None:
        self._fetch.tries += 1
        self._counters.add(requests=1)
        parts = await self._in_time(self._backend.parts(self._key, self._num_bytes, self.identity))
        self._parts = parts
        if self.identity is None or self._num_bytes == 0:
            self.identity = parts.identity
        elif parts.identity is None or is_another(self.identity, parts.identity):
            self._fetch.identity = self.identity
            raise TryFailed(Kind.CHANGED, "another version is there", found=parts.identity)
        self._require_size(parts.size_bytes or 0)

    async def _in_time(self, work: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._stall_seconds):
                return await work
        except TimeoutError:
            raise TryFailed(Kind.AGAIN, "nothing came", silent_seconds=self._stall_seconds) from None

    def _require_size(self, size_bytes: int) -> None:
        if self._max_bytes is not None and size_bytes > self._max_bytes:
            raise DataError(
                f"{shortened(self._fetch.name)!r} has at least {size_bytes:,} bytes, more than the "
                f"{self._max_bytes:,} that are fetched into memory; download it and give its path",
                path=self._fetch.name,
                size_bytes=size_bytes,
                limit_bytes=self._max_bytes,
            )
