"""A `RangeCache` beside a loop: disks are read and written in threads, and never waited for to write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from millpond._sources.range_cache import RangeCache
from millpond._sources.statistics import FetchCounters
from millpond._sources.threads import DaemonThreads
from millpond._values import ByteRange, FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

_READERS = 4
_MAX_WAITING_BYTES = 32 << 20
"""Of ranges that wait to be written, or one of them: on a disk that is slower than the network others are not kept."""
_LOOK_SECONDS = 5.0
"""A disk that does not say what it has by then is not asked any longer: the network is."""
_FINISH_SECONDS = 2.0
"""For writing what waits, at the end."""


class CachedRanges:
    """Looks ranges up and keeps them, for one loop's thread."""

    def __init__(self, cache: RangeCache, counters: FetchCounters) -> None:
        self._cache = cache
        self._counters = counters
        self._readers = DaemonThreads(_READERS, "millpond-cache")
        self._writer = DaemonThreads(1, "millpond-cache-write")  # not in the way of who reads
        self._lock = threading.Lock()
        self._waiting_bytes = 0

    async def find(self, name: str, identity: FileIdentity, ranges: Sequence[ByteRange]) -> list[bytes | None]:
        """What is kept of these ranges; None for each that is not. An empty one is empty."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                found = await self._readers.run(lambda: [self._find(name, identity, wanted) for wanted in ranges])
        except TimeoutError:
            return [None if len(wanted) else b"" for wanted in ranges]
        self._counters.add(cached=sum(len(data) for data in found if data is not None))
        return found

    def keep(self, name: str, identity: FileIdentity, wanted: ByteRange, data: Buffer) -> None:
        """Have it written, some time."""
        if not len(wanted) or (self._waiting_bytes and self._waiting_bytes + len(wanted) > _MAX_WAITING_BYTES):
            return
        self._add_waiting(len(wanted))
        written = self._writer.submit(lambda: self._cache.keep(name, identity, wanted, data))
        written.add_done_callback(lambda _: self._add_waiting(-len(wanted)))

    def _add_waiting(self, num_bytes: int) -> None:
        with self._lock:
            self._waiting_bytes += num_bytes

    def forget(self, name: str, identity: FileIdentity, wanted: ByteRange) -> None:
        """Have it dropped, after whatever waits to be written."""
        self._writer.submit(lambda: self._cache.forget(name, identity, wanted))

    def end(self) -> None:
        """Write what waits, as far as it is done soon, and end the threads."""
        self._readers.end()
        self._writer.end(finish_seconds=_FINISH_SECONDS)

    def _find(self, name: str, identity: FileIdentity, wanted: ByteRange) -> bytes | None:
        return self._cache.find(name, identity, wanted) if len(wanted) else b""
