"""CRC-32s of packets that readers have read for the first time, until they are written to the sidecars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_ROWS = 1 << 20
"""So many take 12 MB."""

_RECORD = np.dtype([("row", "<i8"), ("crc", "<u4")])


class LearnedCrcs:
    """Those of the videos of one dataset. Any thread; a copy in another process starts empty."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], bytearray] = {}  # of _RECORD: with `dataset[i]` they come one by one
        self._num_rows = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return LearnedCrcs, ()

    @property
    def is_full(self) -> bool:
        """Whether it is time to write them."""
        return self._num_rows > _MAX_ROWS

    def add(self, learned: object) -> None:
        """Take what a reader reports: (camera, file, rows, CRC-32s) of each video; anything else is nothing."""
        if not isinstance(learned, list):
            return
        for camera, file, rows, crcs in learned:
            found = np.empty(len(rows), _RECORD)
            found["row"], found["crc"] = rows, crcs
            self._records.setdefault((camera, file), bytearray()).extend(found.tobytes())
            self._num_rows += len(rows)

    def take(self) -> Iterator[tuple[str, int, NDArray[np.int64], NDArray[np.uint32]]]:
        """Give up all that are there: camera, file, ascending rows, each once, and their CRC-32s."""
        taken, self._records, self._num_rows = self._records, {}, 0
        for (camera, file), records in list(taken.items()):  # copies: another thread may be about to add to them
            found = np.frombuffer(bytes(records), _RECORD)
            rows, first = np.unique(found["row"], return_index=True)
            yield camera, file, rows, found["crc"][first]
