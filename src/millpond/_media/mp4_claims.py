"""What the header of an MP4 claims, against what the file can hold: FFmpeg makes room for whatever is claimed."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence

from millpond._media.media_path import MediaPath
from millpond._media.sparse_file import Box, inner_boxes
from millpond.errors import CorruptMedia

MAX_HEADER_BYTES = 256 << 20
"""Of a `moov`: one of 24 hours at 60 frames a second with sound takes 100 MB."""

_SPARE_SAMPLES = 100_000
_SAMPLES_PER_BYTE = 8
"""Of sound that is counted before it is packed: 6 with MACE, 5 with GSM."""

_LEAST_CHUNK_SAMPLES = 160
"""Where samples are counted by the chunk FFmpeg makes an entry for so many, or for more."""

_SPARE_EDITS = 2_000_000
"""Samples times edits: FFmpeg may list each sample once for every edit."""

_NESTED = (b"moov", b"trak", b"mdia", b"minf", b"edts", b"mvex", b"moof", b"traf", b"udta")
_MAX_DEPTH = 10
"""FFmpeg goes no deeper either."""


def require_plausible(descriptor: int, boxes: Sequence[Box], size_bytes: int, path: MediaPath) -> None:
    """Hold the numbers of samples that `moov` and `moof` claim against the size of the file.

    Raises:
        CorruptMedia: There cannot be so many, or the header is too large to be one.
    """
    limit = _SAMPLES_PER_BYTE * size_bytes + _SPARE_SAMPLES
    claimed = edits = 0
    for box in boxes:
        if box.kind not in (b"moov", b"moof"):
            continue
        if box.stop - box.payload > MAX_HEADER_BYTES:
            raise _implausible(path, f"a header of {box.stop - box.payload:,} bytes", MAX_HEADER_BYTES)
        payload = os.pread(descriptor, min(box.stop, size_bytes) - box.payload, box.payload)
        for kind, inner in _walk(memoryview(payload)):
            if kind == b"cmov":
                raise _implausible(path, "a compressed header", 0)
            claimed += _claim_of(kind, inner)
            edits = max(edits, _count_at(inner, 4) if kind == b"elst" else 0)
            if claimed > limit:
                raise _implausible(path, f"{claimed:,} samples", limit)
    if edits * min(claimed, limit) > limit + _SPARE_EDITS:
        raise _implausible(path, f"{edits:,} edits of {claimed:,} samples", limit + _SPARE_EDITS)


def _walk(data: memoryview, depth: int = 0) -> Iterator[tuple[bytes, memoryview]]:
    for kind, payload in inner_boxes(data):
        yield kind, payload
        if kind in _NESTED and depth < _MAX_DEPTH:
            yield from _walk(payload, depth + 1)


def _claim_of(kind: bytes, payload: memoryview) -> int:
    """How many samples, or bytes of samples, a box says there are."""
    if kind == b"trun":
        return _count_at(payload, 4)
    if kind != b"stbl":
        return 0
    tables = {name: table for name, table in inner_boxes(payload) if name in (b"stsz", b"stsc", b"stco", b"co64")}
    sizes = tables.get(b"stsz", memoryview(b""))
    by_size = _count_at(sizes, 8) * max(_count_at(sizes, 4), 1)
    num_chunks = max(_count_at(tables.get(name, memoryview(b"")), 4) for name in (b"stco", b"co64"))
    return max(by_size, _samples_in_chunks(tables.get(b"stsc", memoryview(b"")), num_chunks) // _LEAST_CHUNK_SAMPLES)


def _samples_in_chunks(runs: memoryview, num_chunks: int) -> int:
    """What an `stsc` box says of all chunks together: (first chunk, samples in each, description) for each run."""
    entries = struct.iter_unpack(">III", runs[8 : 8 + (len(runs) - 8) // 12 * 12]) if len(runs) >= 20 else ()
    total, first, each = 0, 0, 0
    for next_first, samples, _ in entries:
        total += max(min(next_first, num_chunks + 1) - first, 0) * each
        first, each = next_first, samples
    return total + max(num_chunks + 1 - first, 0) * each


def _count_at(payload: memoryview, position: int) -> int:
    return int(struct.unpack_from(">I", payload, position)[0]) if len(payload) >= position + 4 else 0


def _implausible(path: MediaPath, what: str, limit: int) -> CorruptMedia:
    return CorruptMedia(
        f"{path} claims {what}, more than a file of its size can hold (limit {limit:,}); it is not decoded",
        path=path.label,
    )
