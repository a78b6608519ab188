"""S3, GCS, Azure and HTTP by obstore."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from millpond._sources.addresses import Address, joined
from millpond._sources.backends import Answer, Parts
from millpond._sources.credentials import provider_of
from millpond._sources.failures import Kind, TryFailed
from millpond._sources.limits import FetchLimits
from millpond._sources.obstore_failures import failure_of
from millpond._sources.storage_options import Access
from millpond._values import FileIdentity
from millpond.errors import MillpondError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")
_CONNECT_SECONDS = 10.0
_SETTLE_SECONDS = 1.0
_NO_LIMIT = timedelta(days=1)  # a request as a whole is limited by its fetch's deadline
_USER_AGENT = "millpond"

_pid_of_runtime: int | None = None


def _require_own_runtime() -> None:
    """obstore's threads stay behind in a fork: requests of the child would wait for ever."""
    global _pid_of_runtime
    if _pid_of_runtime is None:
        _pid_of_runtime = os.getpid()
    elif _pid_of_runtime != os.getpid():
        raise TryFailed(Kind.FORKED, "this process was forked from one that had fetched")


class ObstoreBackend:
    """Requests through one client with its own connections. obstore's own tries are off: they know no deadline."""

    def __init__(self, address: Address, access: Access, limits: FetchLimits) -> None:
        _require_own_runtime()
        self._limits = limits
        client = {
            "user_agent": _USER_AGENT,
            "timeout": _NO_LIMIT,
            "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, limits.stall_seconds)),
            "read_timeout": timedelta(seconds=limits.stall_seconds),
            **access.client,
        }
        shared: dict[str, Any] = {"client_options": client, "retry_config": {"max_retries": 0}}
        self._prefix = ""
        self._cancelled: list[weakref.ref[Any]] = []
        self._itself: HTTPStore | None = None
        try:
            if address.kind == "http":
                self._store: Any = self._http_stores(address, shared)
            else:
                self._store = self._bucket(address, access, shared)
        except MillpondError:
            raise
        except Exception as error:  # noqa: BLE001 - ValueError and obstore's own; their texts may hold secrets
            raise TryFailed(Kind.REFUSED, _refusal(error)) from None

    def _http_stores(self, address: Address, shared: dict[str, Any]) -> HTTPStore:
        url = address.http_url()
        path, mark, query = url.partition("?")
        self._itself = HTTPStore(url, **shared)
        return HTTPStore(f"{path.rstrip('/')}{mark}{query}", **shared) if path.endswith("/") else self._itself

    def _bucket(self, address: Address, access: Access, shared: dict[str, Any]) -> S3Store | GCSStore | AzureStore:
        bucket, self._prefix = address.bucket_and_prefix()
        if address.kind == "s3":
            return S3Store(bucket, config=access.config, credential_provider=provider_of(access), **shared)  # type: ignore[arg-type]
        if address.kind == "gs":
            return GCSStore(bucket, config=access.config, **shared)  # type: ignore[arg-type]
        return AzureStore(bucket, config=access.config, **shared)  # type: ignore[arg-type]

    async def get(self, key: str, start: int, stop: int, identity: FileIdentity | None) -> Answer:
        """See `Backend`."""
        options: dict[str, Any] = {"range": (start, stop)}
        if identity is not None and identity.has_strong_etag:
            options["if_match"] = identity.etag
        try:
            result = await self.wait(self._get(key, options))
            return Answer(await self.wait(result.bytes_async()), _identity(result.meta))
        except Exception as error:  # noqa: BLE001 - obstore's, and builtin ones
            raise failure_of(error, self._limits.stall_seconds) from None

    async def head(self, key: str) -> FileIdentity:
        """See `Backend`."""
        try:
            return _identity(await self.wait(obstore.head_async(self._of(key), joined(self._prefix, key))))
        except Exception as error:  # noqa: BLE001
            raise failure_of(error, self._limits.stall_seconds) from None

    async def parts(self, key: str, start: int, identity: FileIdentity | None) -> Parts:
        """See `Backend`."""
        options: dict[str, Any] = {"range": {"offset": start}} if start else {}
        if identity is not None and identity.has_strong_etag:
            options["if_match"] = identity.etag
        try:
            return ObstoreParts(self, await self.wait(self._get(key, options)), self._limits.stall_seconds)
        except Exception as error:  # noqa: BLE001
            raise failure_of(error, self._limits.stall_seconds) from None

    async def keys(self, prefix: str) -> list[str]:
        """See `Backend`."""
        folder = joined(self._prefix, prefix.strip("/"))
        cut = len(self._prefix) + 1 if self._prefix else 0
        try:
            found = [meta["path"] async for metas in obstore.list(self._store, folder or None) for meta in metas]
        except Exception as error:  # noqa: BLE001
            raise failure_of(error, self._limits.stall_seconds) from None
        return [path[cut:] for path in found if not path.endswith("/")]

    def close(self) -> None:
        """Connections go with the last reference to the client; requests in flight hold one."""
        self._store = self._itself = None

    async def settle(self) -> None:
        """See `Backend`. A request that was cancelled is over when its future is gone: obstore's threads hold that."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _SETTLE_SECONDS
        while any(request() is not None for request in self._cancelled) and clock() < deadline:
            await asyncio.sleep(1e-4)

    async def wait(self, request: Awaitable[_T]) -> _T:
        """Wait for a request, and remember it if it is cancelled meanwhile."""
        try:
            return await request
        except asyncio.CancelledError:
            alive = [earlier for earlier in self._cancelled if earlier() is not None]
            self._cancelled = [*alive, weakref.ref(request)]
            raise
        finally:
            del request

    def _get(self, key: str, options: dict[str, Any]) -> Awaitable[obstore.GetResult]:
        return obstore.get_async(self._of(key), joined(self._prefix, key), options=options)  # type: ignore[arg-type]

    def _of(self, key: str) -> Any:
        return self._itself if self._itself is not None and not key else self._store


class ObstoreParts:
    """The body of one answer. See `Parts`."""

    def __init__(self, backend: ObstoreBackend, result: obstore.GetResult, stall_seconds: float) -> None:
        self._backend = backend
        self.identity: FileIdentity | None = _identity(result.meta)
        self.size_bytes: int | None = self.identity.size_bytes
        self._stall_seconds = stall_seconds
        self._stream: Any = aiter(result.stream(min_chunk_size=_LEAST_PART_BYTES))

    async def part(self) -> Buffer | None:
        """See `Parts`."""
        try:
            part: Buffer = await self._backend.wait(anext(self._stream))
            return part
        except StopAsyncIteration:
            return None
        except Exception as error:  # noqa: BLE001
            raise failure_of(error, self._stall_seconds) from None

    async def close(self) -> None:
        """The connection goes with the stream."""
        self._stream = None


_LEAST_PART_BYTES = 1
"""Whatever has come is a part: what a slow server sends is seen before a limit of stalling passes, and what came before
a connection broke is not lost. From a fast one they are hundreds of kilobytes."""


def _identity(meta: Any) -> FileIdentity:
    """Of what an answer's headers say; obstore says 1970 where there was no Last-Modified."""
    etag = meta["e_tag"] or ""
    modified_ns = 0 if etag else int(meta["last_modified"].timestamp()) * 10**9
    return FileIdentity(int(meta["size"]), modified_ns, etag)


def _refusal(error: Exception) -> str:
    if type(error).__name__ == "UnknownConfigurationKeyError":
        return "obstore does not know an option of storage_options"
    return "it is no valid address, or an option of storage_options has no valid value"
