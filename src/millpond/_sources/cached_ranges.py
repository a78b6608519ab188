"""A `RangeCache` beside a loop: disks are read and written in threads, and never waited for to write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millpond._locks import Claim
from millpond._sources.range_cache import RangeCache
from millpond._sources.threads import DaemonThreads
from millpond._values import ByteRange, FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

_READERS = 4
_MAX_WAITING_BYTES = 32 << 20
"""Of ranges that wait to be written, or one of them: on a disk that is slower than the network others are not kept."""
_MAX_WAITING_FETCHES = 64
"""Whose ranges wait: each has a descriptor, of its claim."""
_LOOK_SECONDS = 5.0
"""A disk that does not say what it has by then is not asked any longer: the network is."""
_FINISH_SECONDS = 2.0
"""For writing what waits, at the end."""

_Key = tuple[str, FileIdentity, ByteRange]


@dataclass(frozen=True, slots=True)
class Look:
    """What was found on the disk, or waits to be written there.

    Attributes:
        found: Of each range that was looked for its bytes, or None.
        claimed: The numbers of those that are not there, and that nobody else is fetching.
    """

    found: list[Buffer | None]
    claimed: frozenset[int]


class CachedRanges:
    """Looks ranges up and keeps them, for one loop's thread."""

    def __init__(self, cache: RangeCache) -> None:
        self._cache = cache
        self._readers = DaemonThreads(_READERS, "millpond-cache")
        self._writer = DaemonThreads(1, "millpond-cache-write")  # not in the way of who reads
        self._lock = threading.Lock()
        self._waiting: dict[_Key, memoryview] = {}  # to be written
        self._waiting_bytes = self._waiting_fetches = 0

    @property
    def is_full(self) -> bool:
        """See `RangeCache`."""
        return self._cache.is_full

    def claim(self) -> Claim:
        """See `RangeCache`."""
        return self._cache.claim()

    async def look(
        self, name: str, identity: FileIdentity, ranges: Sequence[ByteRange], claim: Claim, numbers: Sequence[int]
    ) -> Look | None:
        """What is kept of some ranges; None where the disk does not say so in time.

        Args:
            name, identity, ranges: As for `RangeCache.find`.
            claim: Takes the numbers of what is not there.
            numbers: Of the ranges, ascending.
        """
        found: list[Buffer | None] = [self._waiting.get((name, identity, one)) for one in ranges]
        absent = [place for place, data in enumerate(found) if data is None]
        if not absent:
            return Look(found, frozenset())

        def on_disk() -> frozenset[int]:
            for place in absent:
                found[place] = self._cache.find(name, identity, ranges[place])
            missing = [numbers[place] for place in absent if found[place] is None]
            claimed = {number for run in _runs_of(missing) for part in claim.take(run) for number in part}
            for place in absent:
                if numbers[place] in claimed:  # who had it may have written it just before letting go
                    found[place] = self._cache.find(name, identity, ranges[place])
            return frozenset(claimed)

        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return Look(found, await self._readers.run(on_disk))
        except TimeoutError:
            return None

    def keep(self, name: str, identity: FileIdentity, parts: Sequence[tuple[ByteRange, Buffer]]) -> None:
        """Have ranges written, some time; those for which there is room among what waits."""
        kept = [part for part in parts if self._take_room(len(part[0]))]
        if not kept:
            return
        with self._lock:
            self._waiting_fetches += 1
        for wanted, data in kept:
            self._waiting[name, identity, wanted] = memoryview(data)
        written = self._writer.submit(lambda: self._cache.keep(name, identity, kept))
        written.add_done_callback(lambda _: self._end_waiting(name, identity, [wanted for wanted, _ in kept]))

    def _take_room(self, num_bytes: int) -> bool:
        with self._lock:
            is_long = self._waiting_bytes and self._waiting_bytes + num_bytes > _MAX_WAITING_BYTES
            if not num_bytes or is_long or self._waiting_fetches >= _MAX_WAITING_FETCHES:
                return False
            self._waiting_bytes += num_bytes
            return True

    def _end_waiting(self, name: str, identity: FileIdentity, ranges: Sequence[ByteRange]) -> None:
        for wanted in ranges:
            self._waiting.pop((name, identity, wanted), None)
        with self._lock:
            self._waiting_bytes -= sum(map(len, ranges))
            self._waiting_fetches -= 1

    def after_writing(self, act: Callable[[], None]) -> None:
        """Have something done once all that was to be kept up to now is written; at once where nothing is any more."""
        written = self._writer.submit(act)
        written.add_done_callback(lambda done: act() if done.cancelled() or done.exception() is not None else None)

    def forget(self, name: str, identity: FileIdentity, wanted: ByteRange) -> None:
        """Have it dropped, after whatever waits to be written."""
        self._waiting.pop((name, identity, wanted), None)
        self._writer.submit(lambda: self._cache.forget(name, identity, wanted))

    def end(self) -> None:
        """Write what waits, as far as it is done soon, and end the threads."""
        self._readers.end()
        self._writer.end(finish_seconds=_FINISH_SECONDS)


def _runs_of(numbers: Sequence[int]) -> list[range]:
    """Ascending numbers as stretches without a gap."""
    runs: list[range] = []
    for number in numbers:
        if runs and runs[-1].stop == number:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs
