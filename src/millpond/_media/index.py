"""Where sample tables come from: the sidecar, or the file itself, read once."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from millpond._media.container_backend import build_container_table, display_matrix
from millpond._media.containers import open_container, open_sparse, reason_of
from millpond._media.demux import (
    IndexDisagrees,
    PacketRulesDoNotFit,
    Progress,
    pick_video_stream,
    read_indexed_rows,
    read_scanned_rows,
    require_packet_codec,
    stream_parameters,
)
from millpond._media.display import Matrix, matrix_from_frame, matrix_from_moov, turn_of
from millpond._media.media_path import MediaPath
from millpond._media.sidecars import FileVersion, Sidecar, SidecarStore, file_identity, version_of
from millpond._media.sparse_file import SparseFile
from millpond._media.wholeness import require_checksums, require_whole_file
from millpond._plan.sample_table import SampleTable
from millpond._values import FileIdentity, StreamParameters, no_progress
from millpond.errors import CorruptMedia, DataError

_logger = logging.getLogger("millpond")

SIDECAR_KIND = "table3"
"""Of sample tables; the number goes up when their meaning changes."""

_SCANNED_FORMATS = ("matroska,webm", "avi")

_COLUMNS = ("pts", "dts", "offset", "size", "is_key", "is_discard", "crc", "crc_known")


def load_sample_table(
    path: str | os.PathLike[str] | MediaPath,
    store: SidecarStore,
    *,
    camera: str = "",
    stream_index: int | None = None,
    progress: Progress = no_progress,
) -> SampleTable:
    """Get the sample table of a video stream of a file.

    Args:
        path: A local video file.
        store: Where the table is looked for, and kept once it is made.
        camera: Named in errors.
        stream_index: Which stream; None takes the first.
        progress: Called per packet or frame, where the file must be read as a whole.

    Raises:
        ObjectMissing: No file at `path`.
        CorruptMedia: No video in it, or it is cut short.
    """
    try:
        path = MediaPath.of(path)
        local, version = path, version_of(path.path)

        def make() -> SampleTable:
            table = build_sample_table(local, progress, stream_index)
            if version_of(local.path).identity == table.identity:  # else it would take the place of a newer one's
                keep_table(FileVersion(version.name, table.identity), store, table, stream_index)
            return table

        return once_kept(version, store, make, stream_index, progress)
    except DataError as error:
        if camera:
            error.add_note(f"camera {camera!r}")
            error.facts.setdefault("camera", camera)
        raise


def kept_table(version: FileVersion, store: SidecarStore, stream_index: int | None = None) -> SampleTable | None:
    """The sample table that was kept for a version of a file; None if there is none that this FFmpeg understands."""
    kept = store.load(version, _kind(stream_index))
    return None if kept is None else _table_from(kept)


def once_kept(
    version: FileVersion,
    store: SidecarStore,
    make: Callable[[], SampleTable],
    stream_index: int | None = None,
    progress: Progress = no_progress,
) -> SampleTable:
    """The sample table that was kept, or else is made: see `SidecarStore.once`."""
    return store.once(version, _kind(stream_index), lambda: kept_table(version, store, stream_index), make, progress)


def _kind(stream_index: int | None) -> str:
    return SIDECAR_KIND if stream_index is None else f"{SIDECAR_KIND}-stream{stream_index}"


def learn_crcs(version: FileVersion, store: SidecarStore, rows: NDArray[np.int64], crcs: NDArray[np.uint32]) -> None:
    """Keep CRC-32s that were seen on a first read; nothing happens if the table is no longer kept."""
    with store.alone(version):
        table = kept_table(version, store)
        if table is not None:
            _write_table(version, store, table.with_crcs(rows, crcs), None)


def build_sample_table(
    path: str | os.PathLike[str] | MediaPath, progress: Progress = no_progress, stream_index: int | None = None
) -> SampleTable:
    """Read the table from the file itself: from the header of an MP4, else from all of it."""
    path = MediaPath.of(path)
    identity = file_identity(path.path)
    descriptor = os.open(path.path, os.O_RDONLY)
    try:
        require_whole_file(path)
        require_checksums(path, None, progress)
        try:
            return _by_packets(path, descriptor, identity, progress, stream_index)
        except PacketRulesDoNotFit as reason:
            _logger.info("%s is decoded through its container: %s", path, reason)
            is_dubious = isinstance(reason, IndexDisagrees)
            return build_container_table(path, identity, progress, must_be_sound=is_dubious, stream_index=stream_index)
    except PacketRulesDoNotFit as reason:
        raise CorruptMedia(f"{path} does not decode: {reason}", path=path.label) from None
    except av.error.FFmpegError as error:
        raise CorruptMedia(f"{path} does not open as video: {reason_of(error)}", path=path.label) from error
    finally:
        os.close(descriptor)


def build_header_table(path: MediaPath, stream_index: int | None = None) -> SampleTable:
    """Read the table of an MP4 of which only the header need be there.

    Raises:
        PacketRulesDoNotFit: It is no MP4, or its media must be looked at; the text says why.
        CorruptMedia: No video in it, or it is cut short.
    """
    identity = file_identity(path.path)
    descriptor = os.open(path.path, os.O_RDONLY)
    try:
        require_whole_file(path)
        file = SparseFile(descriptor, identity.size_bytes)
        if not file.looks_like_mp4:
            raise PacketRulesDoNotFit("only an MP4 or MOV has its index in a header")
        return _cuttable(_from_header(path, file, identity, stream_index))
    except av.error.FFmpegError as error:
        raise CorruptMedia(f"{path} does not open as video: {reason_of(error)}", path=path.label) from error
    finally:
        os.close(descriptor)


def _by_packets(
    path: MediaPath, descriptor: int, identity: FileIdentity, progress: Progress, stream_index: int | None
) -> SampleTable:
    file = SparseFile(descriptor, identity.size_bytes)
    if file.looks_like_mp4:
        return _cuttable(_from_header(path, file, identity, stream_index))
    return _cuttable(_from_scan(path, descriptor, identity, progress, stream_index))


def _cuttable(table: SampleTable) -> SampleTable:
    """The same, if its GOPs can be cut out."""
    reason = table.uncuttable_reason()
    if reason is not None:
        raise PacketRulesDoNotFit(reason)
    return table


def _from_header(path: MediaPath, file: SparseFile, identity: FileIdentity, stream_index: int | None) -> SampleTable:
    with open_sparse(file) as container:
        stream = pick_video_stream(container, path, stream_index)
        require_packet_codec(stream)
        rows = read_indexed_rows(container, stream, identity.size_bytes, path)
        turn = turn_of(matrix_from_moov(file.payload_of(b"moov"), stream.id))
        parameters = stream_parameters(stream, turn[0])
    return rows.to_table(parameters, identity, "packets", is_mirrored=turn[1])


def _from_scan(
    path: MediaPath, descriptor: int, identity: FileIdentity, progress: Progress, stream_index: int | None
) -> SampleTable:
    with open_container(path) as container:
        stream = pick_video_stream(container, path, stream_index)
        if container.format.name not in _SCANNED_FORMATS:
            raise PacketRulesDoNotFit(f"the format {container.format.name!r} gives no byte ranges")
        if container.format.name == "avi" and stream.codec_context.has_b_frames:
            # what FFmpeg makes up ascends in decode order, and frames would come under the ids of others
            raise PacketRulesDoNotFit("AVI keeps no presentation times, and the stream shows frames in another order")
        require_packet_codec(stream)
        rows, crcs = read_scanned_rows(container, stream, descriptor, progress)
        turn = turn_of(_first_matrix(path, stream_index))
        parameters = stream_parameters(stream, turn[0])
    return rows.to_table(parameters, identity, "packets", crc=crcs, is_mirrored=turn[1])


def _first_matrix(path: MediaPath, stream_index: int | None) -> Matrix:
    """Only a decoded frame says how an MKV wants to be turned."""
    with open_container(path) as container:
        stream = pick_video_stream(container, path, stream_index)
        stream.codec_context.thread_count = 1
        frame = next(container.decode(stream), None)
        return matrix_from_frame(None if frame is None else display_matrix(frame))


def keep_table(version: FileVersion, store: SidecarStore, table: SampleTable, stream_index: int | None = None) -> None:
    """Keep the sample table of a version, unless another one has been kept meanwhile: that may know CRC-32s."""
    with store.alone(version):
        if kept_table(version, store, stream_index) is None:
            _write_table(version, store, table, stream_index)


def _write_table(version: FileVersion, store: SidecarStore, table: SampleTable, stream_index: int | None) -> None:
    """A folder that cannot be written is warned of."""
    facts = {
        "stream": {**dataclasses.asdict(table.stream), "extradata": table.stream.extradata.hex()},
        "identity": dataclasses.asdict(table.identity),
        "backend": table.backend,
        "is_mirrored": table.is_mirrored,
        "libraries": _libraries(),
    }
    try:
        store.save(version, _kind(stream_index), {name: getattr(table, name) for name in _COLUMNS}, facts)
    except OSError as error:
        store.warn_once("sample tables", error)


def _table_from(kept: Sidecar) -> SampleTable | None:
    facts: dict[str, Any] = dict(kept.facts)
    if facts.get("libraries") != _libraries() or any(name not in kept.arrays for name in _COLUMNS):
        return None
    stream = dict(facts["stream"])
    stream["extradata"] = bytes.fromhex(stream["extradata"])
    stream["time_base"] = tuple(stream["time_base"])
    return SampleTable(
        stream=StreamParameters(**stream),
        identity=FileIdentity(**facts["identity"]),
        backend=facts["backend"],
        is_mirrored=facts["is_mirrored"],
        **{name: kept.arrays[name] for name in _COLUMNS},
    )


def _libraries() -> str:
    """The FFmpeg that read the file: another one may name its decoders otherwise, or demux by other rules."""
    return ".".join(map(str, av.library_versions["libavformat"] + av.library_versions["libavcodec"]))
