"""A `RangeCache` beside a loop: disks are read and written in threads, and never waited for to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from millpond._sources.range_cache import RangeCache
from millpond._sources.statistics import FetchCounters
from millpond._sources.threads import DaemonThreads
from millpond._values import ByteRange, FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

_READERS = 4
_MAX_WAITING = 64
"""Ranges that wait to be written: on a disk that is slower than the network the others are not kept."""


class CachedRanges:
    """Looks ranges up and keeps them, for one loop's thread."""

    def __init__(self, cache: RangeCache, counters: FetchCounters) -> None:
        self._cache = cache
        self._counters = counters
        self._readers = DaemonThreads(_READERS, "millpond-cache")
        self._writer = DaemonThreads(1, "millpond-cache-write")  # not in the way of who reads

    async def find(self, name: str, identity: FileIdentity, ranges: Sequence[ByteRange]) -> list[bytes | None]:
        """What is kept of these ranges; None for each that is not. An empty one is empty."""
        found = await self._readers.run(lambda: [self._find(name, identity, wanted) for wanted in ranges])
        self._counters.add(cached=sum(len(data) for data in found if data is not None))
        return found

    def keep(self, name: str, identity: FileIdentity, wanted: ByteRange, data: Buffer) -> None:
        """Have it written, some time."""
        if len(wanted) and self._writer.num_waiting < _MAX_WAITING:
            self._writer.submit(lambda: self._cache.keep(name, identity, wanted, data))

    def forget(self, name: str, identity: FileIdentity, wanted: ByteRange) -> None:
        """Have it dropped, after whatever waits to be written."""
        self._writer.submit(lambda: self._cache.forget(name, identity, wanted))

    def end(self) -> None:
        """Write what waits, and end the threads."""
        self._readers.end()
        self._writer.end(finish=True)

    def _find(self, name: str, identity: FileIdentity, wanted: ByteRange) -> bytes | None:
        return self._cache.find(name, identity, wanted) if len(wanted) else b""
