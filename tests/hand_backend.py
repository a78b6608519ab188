"""A backend whose requests the test answers by hand, and a clock that moves when everybody waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from millpond._sources.addresses import Address
from millpond._sources.backends import Answer, Parts
from millpond._sources.failures import TryFailed
from millpond._sources.fetching import Fetcher
from millpond._sources.limits import FetchLimits
from millpond._sources.statistics import FetchCounters
from millpond._values import FileIdentity

IDENTITY = FileIdentity(10_000, 0, '"a"')
DATA = bytes(range(250)) * 40

_T = TypeVar("_T")


class HandBackend:
    """Keeps every request waiting.

    Attributes:
        gets, heads: The requests that came, in order: futures that the test gives results or errors.
        on_get, on_head: Called with each; may answer at once.
    """

    def __init__(self) -> None:
        self.gets: list[asyncio.Future[Answer]] = []
        self.heads: list[asyncio.Future[FileIdentity]] = []
        self.on_get: Callable[[asyncio.Future[Answer]], object] = lambda get: None
        self.on_head: Callable[[asyncio.Future[FileIdentity]], object] = lambda head: None
        self._came = asyncio.Event()

    async def get(self, key: str, start: int, stop: int, identity: FileIdentity | None) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.gets.append(future)
        self._came.set()
        self.on_get(future)
        return await future

    async def head(self, key: str) -> FileIdentity:
        future: asyncio.Future[FileIdentity] = asyncio.get_running_loop().create_future()
        self.heads.append(future)
        self.on_head(future)
        return await future

    async def parts(self, key: str, start: int, identity: FileIdentity | None) -> Parts:
        raise AssertionError("these tests fetch ranges")

    async def keys(self, prefix: str) -> list[str]:
        raise AssertionError("these tests fetch ranges")

    async def settle(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def until(self, num_gets: int) -> None:
        """Wait for so many GETs."""
        while len(self.gets) < num_gets:
            self._came.clear()
            await self._came.wait()


def failing(failure: Callable[[], TryFailed]) -> Callable[[asyncio.Future[Any]], None]:
    """Fails each request at once, with an error of its own."""
    return lambda request: request.set_exception(failure())


def fetcher_of(backend: HandBackend, counters: FetchCounters | None = None, **limits: Any) -> Fetcher:
    address = Address.of("http://ann:hunter2@host/folder")
    return Fetcher(backend, address, FetchLimits(**limits), counters or FetchCounters())


async def everybody_is_waiting() -> None:
    """Let the loop go around until nothing is left to do but wait."""
    for _ in range(20):
        await asyncio.sleep(0)


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: the clock is set forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nobody for a time"
        self.now += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run it in a loop whose seconds take no time, however slow the machine is."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
