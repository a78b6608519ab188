"""A whole object by a backend, which lives in the loop's thread, for a reader in another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from millpond._sources.failures import Kind, TryFailed
from millpond._values import FileIdentity
from millpond.errors import ClosedError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from millpond._sources.engine import Engine

_T = TypeVar("_T")


class LoopParts:
    """One answer. See `millpond._sources.whole_reads.PartReader`.

    Args:
        engine: Of the store.
        wait: Gives what a future of the engine gives, or raises ClosedError.
        key: Of the object.
        start: The first byte wanted.
        identity: The version that it must be of, if a store can be told so; None takes what is there.
        stall_seconds: Without a byte, also before the first.

    Raises:
        TryFailed: It is not to be had.
    """

    def __init__(
        self,
        engine: Engine,
        wait: Callable[[Future[Any]], Any],
        key: str,
        start: int,
        identity: FileIdentity | None,
        stall_seconds: float,
    ) -> None:
        self._engine, self._wait, self._stall_seconds = engine, wait, stall_seconds
        self._parts = self._do(lambda: engine.backend.parts(key, start, identity))
        self.identity: FileIdentity | None = self._parts.identity
        self.size_bytes: int | None = self._parts.size_bytes

    def part(self) -> Buffer | None:
        """What has come, at least a byte; None at the end."""
        part: Buffer | None = self._do(self._parts.part)
        return part

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        with contextlib.suppress(ClosedError, TryFailed):
            self._do(self._parts.close)

    def _do(self, work: Callable[[], Awaitable[Any]]) -> Any:
        return self._wait(self._engine.begin(_in_time(work, self._stall_seconds)))


async def _in_time(work: Callable[[], Awaitable[_T]], limit_seconds: float) -> _T:
    try:
        async with asyncio.timeout(limit_seconds):
            return await work()
    except TimeoutError:
        raise TryFailed(Kind.AGAIN, "nothing came", silent_seconds=limit_seconds) from None
