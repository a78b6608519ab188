"""Which bytes of a file the frames of an episode take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millpond._media.frames import bytes_of_frames
from millpond._plan.requests import plan_requests
from millpond._plan.sample_table import DEFAULT_MAX_GAP_BYTES, SampleTable
from millpond._values import ByteRange


def ranges_of_frames(table: SampleTable, frames: NDArray[np.int64]) -> tuple[ByteRange, ...]:
    """All that decoding any of some frames reads, coalesced; of a stream that is decoded through its container, all.

    Args:
        table: Of the file.
        frames: int64, (n,), ascending and unique presentation indices.
    """
    if table.backend == "container":
        return (ByteRange(0, table.identity.size_bytes),)
    ranges = bytes_of_frames(table, frames)
    return plan_requests(ranges, DEFAULT_MAX_GAP_BYTES, max(table.identity.size_bytes, 1)).requests


def header_bytes(table: SampleTable) -> int:
    """How many bytes lie before the first packet: the whole header, where that comes first."""
    return int(table.offset.min()) if table.backend == "packets" and table.num_rows else 0
