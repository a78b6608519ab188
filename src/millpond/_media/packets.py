"""Packets by row: read in few ranges, and checked before any of them reaches a decoder."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from millpond._media.video_file import VideoFile
from millpond.errors import CorruptMedia

CHUNK_BYTES = 8 << 20
"""Packets read and checked at once: bounds the memory of a long run, and no GOP of usual video is larger."""

ZERO_RUN = bytes(32)
"""A hole in a file reads as zeros. Clean packets of 36 clips never held a run longer than 8."""


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
        ranges = table.byte_ranges(rows)
        owner = np.searchsorted([r.start for r in ranges], table.offset[rows], side="right") - 1
        buffers = [self._file.read(r) for r in ranges]
        self.bytes_read += sum(map(len, buffers))
        views = [memoryview(b) for b in buffers]
        has_zeros = [ZERO_RUN in b for b in buffers]
        starts = (table.offset[rows] - np.array([r.start for r in ranges], np.int64)[owner]).tolist()
        sizes = table.size[rows].tolist()
        crcs = zip(table.crc[rows].tolist(), table.crc_known[rows].tolist(), strict=True)
        packets = []
        for row, k, start, size, (crc, known) in zip(rows.tolist(), owner.tolist(), starts, sizes, crcs, strict=True):
            payload = views[k][start : start + size]
            self._check(row, payload, crc if known else self._known_crcs.get(row), has_zeros[k])
            packets.append((row, payload))
        return packets

    def _check(self, row: int, payload: memoryview, expected_crc: int | None, may_hold_zeros: bool) -> None:
        crc = zlib.crc32(payload)
        if expected_crc is None:
            if may_hold_zeros and ZERO_RUN in bytes(payload):
                raise CorruptMedia(
                    f"packet {row} of {self._file.path!r} holds {len(ZERO_RUN)} zero bytes in a row, as a hole in a "
                    "file does; fetch or write the file again",
                    path=self._file.path,
                    row=row,
                )
            self.new_crcs[row] = crc
        elif crc != expected_crc:
            raise CorruptMedia(
                f"packet {row} of {self._file.path!r} changed since it was first read (CRC-32 {crc:08x}, "
                f"{expected_crc:08x} then); fetch or write the file again",
                path=self._file.path,
                row=row,
            )
