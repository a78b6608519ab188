"""Packets by row: read in few ranges, and checked before any of them reaches a decoder."""

from __future__ import annotations

import time
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from millpond._media.holes import ZERO_RUN_BYTES, zero_runs, zeros_inside
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable, coalesced
from millpond._values import ByteRange
from millpond.errors import CorruptMedia

CHUNK_BYTES = 8 << 20
"""Packets read and checked at once: bounds the memory of a long run, and no GOP of usual video is larger."""


def ranges_read(table: SampleTable, rows: NDArray[np.int64]) -> list[ByteRange]:
    """What is read for the packets of some rows: a little more, where a hole that ends or begins in them goes on."""
    return _with_surroundings(table.byte_ranges(rows), table.identity.size_bytes)


def _with_surroundings(ranges: Iterable[ByteRange], size_bytes: int) -> list[ByteRange]:
    return [
        # what ends beyond the file is an error, and stays one
        ByteRange(max(r.start - ZERO_RUN_BYTES, 0), max(r.stop, min(r.stop + ZERO_RUN_BYTES, size_bytes)))
        for r in ranges
    ]


class PacketReader:
    """Reads the packets of one run; keeps the CRC-32s that it computed.

    Attributes:
        new_crcs: Row to CRC-32 of each packet that none was known of.
        bytes_read: From the file, gaps included.
        read_ns: How long that took.
    """

    def __init__(self, file: VideoFile, known_crcs: Mapping[int, int] | None) -> None:
        self._file = file
        self._known_crcs = known_crcs or {}
        self.new_crcs: dict[int, int] = {}
        self.bytes_read = 0
        self.read_ns = 0

    def packets(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, memoryview]]:
        """Yield (row, payload) in the order of `rows`; a chunk is checked as a whole before its first is given.

        Raises:
            CorruptMedia: A packet is not what the table promises.
        """
        sizes = self._file.table.size[rows].tolist()
        start, chunk_bytes = 0, 0
        for k, size in enumerate(sizes):
            chunk_bytes += size
            if chunk_bytes > CHUNK_BYTES and k > start:
                yield from self._chunk(rows[start:k], sizes[start:k])
                start, chunk_bytes = k, size
        if start < len(rows):
            yield from self._chunk(rows[start:], sizes[start:])

    def _chunk(self, rows: NDArray[np.int64], sizes: list[int]) -> list[tuple[int, memoryview]]:
        table = self._file.table
        offsets, known = table.offset[rows].tolist(), table.crc_known[rows].tolist()
        ranges = _with_surroundings(coalesced(offsets, sizes), table.identity.size_bytes)
        began_ns = time.monotonic_ns()
        buffers = [self._file.read(r) for r in ranges]
        self.read_ns += time.monotonic_ns() - began_ns
        holes = [[] if all(known) else zero_runs(buffer) for buffer in buffers]
        views = [memoryview(buffer) for buffer in buffers]
        begins = [r.start for r in ranges]
        self.bytes_read += sum(map(len, buffers))
        packets = []
        told = zip(rows.tolist(), offsets, sizes, table.crc[rows].tolist(), known, strict=True)
        for row, offset, size, crc, is_known in told:
            k = bisect_right(begins, offset) - 1
            start = offset - begins[k]
            payload = views[k][start : start + size]
            if not self._has_known_crc(row, payload, crc if is_known else self._known_crcs.get(row)):
                self._require_no_hole(row, start, start + size, holes[k])
            packets.append((row, payload))
        return packets

    def _has_known_crc(self, row: int, payload: memoryview, expected_crc: int | None) -> bool:
        crc = zlib.crc32(payload)
        if expected_crc is None:
            self.new_crcs[row] = crc
            return False
        if crc != expected_crc:
            raise CorruptMedia(
                f"packet {row} of {self._file.path} changed since it was first read (CRC-32 {crc:08x}, "
                f"{expected_crc:08x} then); fetch or write the file again",
                path=self._file.path.label,
                row=row,
            )
        return True

    def _require_no_hole(self, row: int, start: int, stop: int, holes: list[tuple[int, int]]) -> None:
        inside = zeros_inside(start, stop, holes)
        if inside:
            raise CorruptMedia(
                f"packet {row} of {self._file.path} has {inside} of its {stop - start} bytes in a run of zeros, "
                "as in a hole of the file; fetch or write the file again",
                path=self._file.path.label,
                row=row,
            )
