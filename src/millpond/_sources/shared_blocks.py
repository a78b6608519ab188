"""Ranges of objects through a disk cache that several ranks of a host share: each byte is fetched once.

Theory of operation. Which ranges are asked for depends on where segments are cut, which another rank, another size of
memory, or a resume amid an epoch does otherwise. So what is fetched and kept are whole blocks, the same for everybody:
a range is rounded up to blocks, those that the disk has are read, others are fetched, neighbours by one request, and
what was asked for is put together from them.

Who fetches a block claims it first (`Claim`), looks once more, and lets go when it is written. Who finds a block that
another one has claimed fetches what else there is, then waits, holding nothing: so those who wait for one another's
blocks cannot wait for ever. What a process had claimed that died is free at once. One that was stopped, or whose
network is slow, is waited for a quarter of the time that a fetch may take; then everybody fetches for themselves.

A cache that is too small for what is read is full, and would lose most blocks before anybody asks for them again. Then
no more than what was asked for is fetched, and what is no whole block is not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from millpond._locks import Claim
from millpond._plan.requests import plan_requests
from millpond._sources.cached_ranges import CachedRanges
from millpond._sources.limits import FetchLimits
from millpond._sources.range_cache import tells_versions_apart
from millpond._sources.statistics import FetchCounters
from millpond._values import ByteRange, FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

BLOCK_BYTES = 256 << 10
"""A range of half a MiB to some MiB is rounded up by one on average, and 10 GiB are 40,000 files. To make a file took a
busy disk a millisecond: with blocks of 64 KiB that was most of the time of writing."""

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.002, 0.05
"""Between two looks at what another one fetches."""

_PATIENCE = 0.25
"""Of the time that is left for a fetch: to wait for another one's."""

Fetch = Callable[[Sequence[ByteRange]], Awaitable[Sequence["Buffer"]]]


class SharedBlocks:
    """Reads ranges for one loop's thread.

    Args:
        cached: What the disk has.
        limits: Of fetches.
        counters: Of the store.
    """

    def __init__(self, cached: CachedRanges, limits: FetchLimits, counters: FetchCounters) -> None:
        self._cached = cached
        self._limits = limits
        self._counters = counters
        self._in_vain: set[int] = set()  # numbers of blocks that were waited for

    async def read(
        self, name: str, identity: FileIdentity, ranges: Sequence[ByteRange], fetch: Fetch, started: float
    ) -> list[Buffer] | None:
        """The bytes of some ranges of an object; None where the disk cannot help: then they are fetched as they are.

        Args:
            name: Of the object, without secrets, and of no other.
            identity: Its version.
            ranges: Any order, overlaps allowed, empty ones too.
            fetch: Gives disjoint ranges of the object, each by one request.
            started: On the loop's clock: when the time of this fetch began to run.
        """
        if not tells_versions_apart(identity) or any(one.stop > identity.size_bytes for one in ranges):
            return None
        reading = _Reading(self._cached, self._limits, name, identity, ranges, fetch, self._in_vain)
        if not await reading.run(started):
            return None
        self._counters.add(cached=reading.num_cached)
        return reading.result()

    def forget(self, name: str, identity: FileIdentity, wanted: ByteRange) -> None:
        """Drop the blocks of a range."""
        for block in _blocks_of([wanted]):
            self._cached.forget(name, identity, _range_of(block, identity))


class _Reading:
    """One call of `SharedBlocks.read`."""

    def __init__(
        self,
        cached: CachedRanges,
        limits: FetchLimits,
        name: str,
        identity: FileIdentity,
        ranges: Sequence[ByteRange],
        fetch: Fetch,
        in_vain: set[int],
    ) -> None:
        self.num_cached = 0
        self._cached = cached
        self._limits = limits
        self._name = name
        self._identity = identity
        self._ranges = ranges
        self._fetch = fetch
        self._in_vain = in_vain
        self._first = _first_number(name, identity)
        self._missing = _blocks_of(ranges)
        self._parts: list[tuple[int, memoryview]] = []  # of the object, disjoint: where one begins, and its bytes

    async def run(self, started: float) -> bool:
        """Have all blocks; False if the disk does not answer."""
        clock = asyncio.get_running_loop().time
        left_seconds = started + self._limits.timeout_seconds - clock()
        gives_up_at, wait_seconds = clock() + _PATIENCE * max(left_seconds, 0.0), _FIRST_WAIT_SECONDS
        while self._missing:
            with ExitStack() as stack:
                claim = self._cached.claim()
                stack.callback(claim.release)
                mine = await self._look(claim)
                if mine is None:
                    return False
                if clock() >= gives_up_at:
                    self._in_vain.update(self._first + block for block in self._missing)
                    mine = self._missing
                if mine:
                    await self._get(mine)
                    stack.pop_all()
                    self._cached.after_writing(claim.release)
                    continue
            if self._missing:
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        return True

    def result(self) -> list[Buffer]:
        """The bytes of each range; read-only."""
        self._parts.sort(key=lambda part: part[0])
        starts = [start for start, _ in self._parts]
        return [self._cut(wanted, starts) for wanted in self._ranges]

    async def _look(self, claim: Claim) -> list[int] | None:
        """Take what the disk has; gives the blocks that are this one's to fetch. None: it does not answer."""
        missing, numbers = self._missing, [self._first + block for block in self._missing]
        wanted = [_range_of(block, self._identity) for block in missing]
        look = await self._cached.look(self._name, self._identity, wanted, claim, numbers)
        if look is None:
            return None
        for one, data in zip(wanted, look.found, strict=True):
            if data is not None:
                self._parts.append((one.start, memoryview(data)))
                self.num_cached += sum(_overlap(one, other) for other in self._ranges)
        self._missing = [block for block, data in zip(missing, look.found, strict=True) if data is None]
        mine = look.claimed | self._in_vain  # who has those for so long does not get them done
        return [block for block in self._missing if self._first + block in mine]

    async def _get(self, blocks: Sequence[int]) -> None:
        """Fetch some blocks, and have them written."""
        whole = [_range_of(block, self._identity) for block in blocks]
        runs = plan_requests(whole, 0, self._limits.max_request_bytes).requests
        if self._cached.is_full:
            runs = tuple(self._trimmed(run) for run in runs)
        for run, data in zip(runs, await self._fetch(runs), strict=True):
            view = memoryview(data).cast("B")
            self._parts.append((run.start, view))
            inside = [one for one in whole if run.start <= one.start and one.stop <= run.stop]
            parts = [(one, view[one.start - run.start : one.stop - run.start]) for one in inside]
            self._cached.keep(self._name, self._identity, parts)
        done = set(blocks)
        self._missing = [block for block in self._missing if block not in done]

    def _trimmed(self, run: ByteRange) -> ByteRange:
        """Without what nobody asked for at its ends."""
        inside = [one for one in self._ranges if _overlap(run, one)]
        start, stop = min(one.start for one in inside), max(one.stop for one in inside)
        return ByteRange(max(start, run.start), min(stop, run.stop))

    def _cut(self, wanted: ByteRange, starts: Sequence[int]) -> Buffer:
        pieces = []
        for number in range(max(bisect_right(starts, wanted.start) - 1, 0), len(starts)):
            start, view = self._parts[number]
            if start >= wanted.stop:
                break
            pieces.append(view[max(wanted.start - start, 0) : max(wanted.stop - start, 0)])
        return pieces[0].toreadonly() if len(pieces) == 1 else b"".join(pieces)


def _blocks_of(ranges: Sequence[ByteRange]) -> list[int]:
    """The numbers of the blocks that have a byte of some ranges, ascending."""
    spans = [range(one.start // BLOCK_BYTES, -(-one.stop // BLOCK_BYTES)) for one in ranges if one]
    return sorted({block for span in spans for block in span})


def _range_of(block: int, identity: FileIdentity) -> ByteRange:
    return ByteRange(block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, identity.size_bytes))


def _overlap(one: ByteRange, other: ByteRange) -> int:
    return max(min(one.stop, other.stop) - max(one.start, other.start), 0)


def _first_number(name: str, identity: FileIdentity) -> int:
    """The number of an object's first block, by which all who read it know it."""
    words = name, identity.size_bytes, identity.mtime_ns, identity.etag
    digest = hashlib.sha256(repr(words).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 2  # room for the blocks behind it
