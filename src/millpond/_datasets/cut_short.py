"""MP4 files that were cut short: what is still there is served, where the header is.

The demuxer ends early at the end of such a file, and without an error. So the header is copied into a sparse file of
the full length, the table is made from that, and the frames whose bytes are beyond the end of the real file are known.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from millpond._media.index import build_sample_table, load_sample_table
from millpond._media.sidecars import SidecarStore, file_identity
from millpond._media.sparse_file import top_level_boxes
from millpond._plan.sample_table import SampleTable
from millpond.errors import CorruptMedia, DataError

_COPY_BYTES = 1 << 20


def load_table(path: str | Path, store: SidecarStore) -> tuple[SampleTable, DataError | None]:
    """Get a sample table, of a file that was cut short too.

    Returns:
        The table, and the error that says that the file was cut short. Such a table is not kept.

    Raises:
        ObjectMissing: No file at `path`.
        CorruptMedia: No video in it, or it was cut short before its header.
    """
    try:
        return load_sample_table(path, store), None
    except CorruptMedia as error:
        wanted_bytes = error.facts.get("wanted_bytes")
        if wanted_bytes is None:
            raise
        table = _table_of_header(path, int(wanted_bytes))
        if table is None:
            raise
        return table, error


def _table_of_header(path: str | Path, wanted_bytes: int) -> SampleTable | None:
    identity = file_identity(path)
    with tempfile.NamedTemporaryFile(prefix="millpond-header-", suffix=".mp4") as whole:
        with open(path, "rb", buffering=0) as real:
            boxes = [b for b in top_level_boxes(real.fileno(), identity.size_bytes) if b.kind != b"mdat"]
            if not any(box.kind == b"moov" and box.stop <= identity.size_bytes for box in boxes):
                return None
            os.ftruncate(whole.fileno(), wanted_bytes)
            heads = [(b.start, min(b.stop, identity.size_bytes)) for b in boxes]
            media = [(b.start, b.payload) for b in top_level_boxes(real.fileno(), identity.size_bytes)]
            for start, stop in [*heads, *media]:
                for position in range(start, stop, _COPY_BYTES):
                    part = os.pread(real.fileno(), min(_COPY_BYTES, stop - position), position)
                    os.pwrite(whole.fileno(), part, position)
        try:
            table = build_sample_table(whole.name)
        except DataError:
            return None
    return replace(table, identity=identity) if table.backend == "packets" else None


def frames_beyond_end(table: SampleTable) -> NDArray[np.bool_]:
    """bool, (F,): frames of GOPs of which a frame lies beyond the end of the file."""
    rows = table.frame_rows
    is_beyond = table.offset[rows] + table.size[rows] > table.identity.size_bytes
    gop = np.searchsorted(table.gop_starts, np.arange(len(rows)), side="right") - 1
    return np.isin(gop, np.unique(gop[is_beyond]))
