"""Sample tables of MP4s of which the media is not there: it lies on a server, or the file was cut short.

The demuxer ends early at the end of a file that was cut short, and without an error. So the header is copied into a
sparse file of the full length, the table is made from that, and the frames whose bytes are beyond the end of the real
file are known.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from millpond._media.demux import PacketRulesDoNotFit, Progress
from millpond._media.header_copy import Read, copy_header
from millpond._media.index import build_header_table, load_sample_table
from millpond._media.media_path import MediaPath
from millpond._media.memory_file import memory_file
from millpond._media.sidecars import SidecarStore, file_identity
from millpond._plan.sample_table import SampleTable
from millpond._values import FileIdentity
from millpond.errors import CorruptMedia, DataError


def load_table(path: str, store: SidecarStore, progress: Progress) -> tuple[SampleTable, DataError | None]:
    """Get the sample table of a local file, of one that was cut short too.

    Args:
        path: Of the file.
        store: Where the table is looked for and kept.
        progress: Called per packet, where all of the file must be read.

    Returns:
        The table, and the error that says that the file was cut short. Such a table is not kept.

    Raises:
        ObjectMissing: No file at `path`.
        CorruptMedia: No video in it, or it was cut short before its header.
    """
    try:
        return load_sample_table(path, store, progress=progress), None
    except CorruptMedia as error:
        if error.facts.get("wanted_bytes") is None:
            raise
        with open(path, "rb", buffering=0) as real:
            descriptor = real.fileno()
            return _of_what_is_left(
                lambda start, stop: os.pread(descriptor, stop - start, start), file_identity(path), path, error
            )


def table_by_header(
    read: Read, identity: FileIdentity, label: str, begin: bytes, stream_index: int | None = None
) -> tuple[SampleTable, DataError | None]:
    """Make the sample table of an MP4 from its header alone.

    Args:
        read: Gives bytes of it.
        identity: Of it.
        label: What errors call it.
        begin: Its first bytes, as far as they are known.
        stream_index: Which stream; None takes the first.

    Returns:
        See `load_table`.

    Raises:
        PacketRulesDoNotFit: It is no MP4, or its media must be looked at.
        CorruptMedia: See `load_table`.
    """
    try:
        return _table_of_header(read, identity, label, begin=begin, stream_index=stream_index), None
    except CorruptMedia as error:
        if error.facts.get("wanted_bytes") is None:
            raise
        return _of_what_is_left(read, identity, label, error)


def _of_what_is_left(
    read: Read, identity: FileIdentity, label: str, error: CorruptMedia
) -> tuple[SampleTable, DataError]:
    try:
        return _table_of_header(read, identity, label, length_bytes=int(error.facts["wanted_bytes"])), error
    except (DataError, PacketRulesDoNotFit, OSError, OverflowError):  # or no file is as long as it claims
        raise error from None


def _table_of_header(
    read: Read,
    identity: FileIdentity,
    label: str,
    *,
    begin: bytes = b"",
    length_bytes: int = 0,
    stream_index: int | None = None,
) -> SampleTable:
    with memory_file() as copy:
        is_whole = copy_header(read, identity.size_bytes, copy.descriptor, begin=begin, length_bytes=length_bytes)
        if is_whole is None:
            raise PacketRulesDoNotFit("only an MP4 or MOV has its index in a header")
        if length_bytes and not is_whole:  # FFmpeg would read, and keep, gigabytes that a first box claims
            raise PacketRulesDoNotFit("its header was cut off")
        table = build_header_table(MediaPath(copy.path, label, is_copy=True), stream_index)
    return replace(table, identity=identity)


def frames_beyond_end(table: SampleTable) -> NDArray[np.bool_]:
    """bool, (F,): frames of GOPs of which a frame lies beyond the end of the file."""
    rows = table.frame_rows
    is_beyond = table.offset[rows] + table.size[rows] > table.identity.size_bytes
    gop = np.searchsorted(table.gop_starts, np.arange(len(rows)), side="right") - 1
    return np.isin(gop, np.unique(gop[is_beyond]))
