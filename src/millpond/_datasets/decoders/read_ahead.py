"""What was read last of a remote file, and a little of what follows: spares requests to whoever reads on.

Theory of operation. A request takes as long as 50 to 500 kB more of the one before it, so it pays to fetch on behind a
read that another one will follow, and not behind one that none will. A cache that fetches a block behind every read, as
fsspec's does, costs single frames in random order up to 50 times the bytes; and since it keeps nothing in front of a
block, whoever goes through a long GOP frame by frame, each time from its keyframe, has that fetched again and again.
So here

- a read follows if it begins in what is held, or close behind that; any other is fetched as it is;
- behind the first that follows as much again is fetched, then twice as much each time, up to a block: two reads that
  are neighbours by chance cost little;
- up to a block is kept in front of the last read: windows of frames go back a little each time.

Requests and megabytes that single frames took over HTTP, each asked for by itself, of three files of 2,994 frames of
640x480 (5, 7 and 29 MB):

                           200 in random order                     600 in order
                       GOP 2      GOP 30     GOP 250      GOP 2      GOP 30    GOP 250
    no cache          200  4.0   200   9.3  200  44.7   600  9.7   600 23.3  600 113.2
    fsspec's, 1 MiB   193  200   170   167  162   186     9  9.6     3  3.2    1   1.1
    this, 256 KiB     200  4.0   200   9.6  192  44.5    23  5.2     9  1.4    6   1.2

With blocks of 1 MiB the 23 are 11; but each open file may hold two, and a hundred files are open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from millpond._values import ByteRange

BLOCK_BYTES = 256 << 10
"""Fetched ahead, at most; and kept in front, beside the last read."""

HELD_BYTES = 2 << 20
"""Held at most. What is longer takes a decoder longer than a network, and only its end is kept."""

_GAP_BYTES = 64 << 10
"""So far behind what is held a read still follows: packets of another stream lie between, or frames not wanted."""


class _Held(NamedTuple):
    """What is held: bytes from `start` on, and how many of them were fetched ahead."""

    start: int = 0
    data: bytes = b""
    ahead_bytes: int = 0

    @property
    def stop(self) -> int:
        return self.start + len(self.data)


class ReadAhead:
    """The part of a file that was read last. Any thread, several at once: each fetches for itself.

    Args:
        size_bytes: Of the file.
        begin: Its first bytes, as far as they are known.
    """

    def __init__(self, size_bytes: int, begin: bytes = b"") -> None:
        self._size_bytes = size_bytes
        self._held = _Held(data=begin)

    @property
    def held_bytes(self) -> int:
        """How much is held."""
        return len(self._held.data)

    def read(self, wanted: ByteRange, fetch: Callable[[ByteRange], bytes]) -> bytes:
        """The bytes of a range, fewer where the file ends before it does.

        Args:
            wanted: The range.
            fetch: Gives exactly the bytes of any; raises what it likes.
        """
        start, stop = wanted.start, min(wanted.stop, self._size_bytes)
        held = self._held
        if start >= stop:
            return b""
        if held.start <= start and stop <= held.stop:
            return held.data[start - held.start : stop - held.start]
        follows = bool(held.data) and held.start <= start <= held.stop + _GAP_BYTES
        ahead_bytes = min(max(2 * held.ahead_bytes, stop - start), BLOCK_BYTES) if follows else 0
        first, last = held.stop if follows else start, min(stop + ahead_bytes, self._size_bytes)
        data = fetch(ByteRange(first, last))
        if follows:
            first = max(held.start, min(start, held.stop) - BLOCK_BYTES)
            data = held.data[first - held.start :] + data
        read = data[start - first : stop - first]
        if len(data) > HELD_BYTES:
            first, data = last - BLOCK_BYTES, data[-BLOCK_BYTES:]
        self._held = _Held(first, data, ahead_bytes)
        return read

    def clear(self) -> None:
        """Hold nothing."""
        self._held = _Held()
