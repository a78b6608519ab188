"""Packets by row: read in few ranges, and checked before any of them reaches a decoder."""

from __future__ import annotations

import zlib
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
        ends = np.cumsum(self._file.table.size[rows], dtype=np.int64)
        start = 0
        while start < len(rows):
            already = int(ends[start - 1]) if start else 0
            stop = max(int(np.searchsorted(ends, already + CHUNK_BYTES, side="right")), start + 1)
            yield from self._chunk(rows[start:stop])
            start = stop

    def _chunk(self, rows: NDArray[np.int64]) -> list[tuple[int, memoryview]]:
        table = self._file.table
        ranges = ranges_read(table, rows)
        owner = np.searchsorted([r.start for r in ranges], table.offset[rows], side="right") - 1
        buffers = [self._file.read(r) for r in ranges]
        self.bytes_read += sum(map(len, buffers))
        views = [memoryview(b) for b in buffers]
        holes = [[] if table.crc_known[rows].all() else zero_runs(b) for b in buffers]
        starts = (table.offset[rows] - np.array([r.start for r in ranges], np.int64)[owner]).tolist()
        sizes = table.size[rows].tolist()
        crcs = zip(table.crc[rows].tolist(), table.crc_known[rows].tolist(), strict=True)
        packets = []
        for row, k, start, size, (crc, known) in zip(rows.tolist(), owner.tolist(), starts, sizes, crcs, strict=True):
            payload = views[k][start : start + size]
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
