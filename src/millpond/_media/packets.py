"""Packets by row: read in few ranges, and checked before any of them reaches a decoder."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from millpond._media.holes import ZERO_RUN_BYTES, zero_runs, zeros_inside
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange
from millpond.errors import CorruptMedia

CHUNK_BYTES = 8 << 20
"""Packets read and checked at once: bounds the memory of a long run, and no GOP of usual video is larger."""


def ranges_read(table: SampleTable, rows: NDArray[np.int64]) -> list[ByteRange]:
    """What is read for the packets of some rows: a little more, where a hole that ends or begins in them goes on."""
    size_bytes = table.identity.size_bytes
    return [
        # what ends beyond the file is an error, and stays one
        ByteRange(max(r.start - ZERO_RUN_BYTES, 0), max(r.stop, min(r.stop + ZERO_RUN_BYTES, size_bytes)))
        for r in table.byte_ranges(rows)
    ]


class PacketReader:
    """Reads the packets of one run; keeps the CRC-32s that it computed.

    Attributes:
        new_crcs: Row to CRC-32 of each packet that none was known of.
        bytes_read: From the file, gaps included.
    """

    def __init__(self, file: VideoFile, known_crcs: Mapping[int, int] | None) -> None:
        self._file = file
        self._known_crcs = known_crcs or {}
        self.new_crcs: dict[int, int] = {}
        self.bytes_read = 0

    def packets(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, memoryview]]:
        """Yield (row, payload) in the order of `rows`; a chunk is checked as a whole before its first is given.

        Raises:
            CorruptMedia: A packet is not what the table promises.
        """
        start, chunk_bytes = 0, 0
        for k, size in enumerate(self._file.table.size[rows].tolist()):
            chunk_bytes += size
            if chunk_bytes > CHUNK_BYTES and k > start:
                yield from self._chunk(rows[start:k])
                start, chunk_bytes = k, size
        if start < len(rows):
            yield from self._chunk(rows[start:])

    def _chunk(self, rows: NDArray[np.int64]) -> list[tuple[int, memoryview]]:
        table = self._file.table
        ranges = ranges_read(table, rows)
        data = [self._file.read(r) for r in ranges]
        buffers = [memoryview(part) for part in data]
        self.bytes_read += sum(map(len, data))
        begins = [r.start for r in ranges]
        # plain numbers: most runs are of a few packets, where an array of each costs more than the work itself
        columns = (table.offset, table.size, table.crc, table.crc_known)
        told = list(zip(rows.tolist(), *(column[rows].tolist() for column in columns), strict=True))
        is_known = all(known for *_, known in told)
        holes = [[] if is_known else zero_runs(part) for part in data]
        packets = []
        for row, offset, size, crc, known in told:
            k = bisect_right(begins, offset) - 1
            start = offset - begins[k]
            payload = buffers[k][start : start + size]
            if not self._has_known_crc(row, payload, crc if known else self._known_crcs.get(row)):
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
