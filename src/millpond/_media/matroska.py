"""Whether a Matroska or WebM file is whole and undamaged: its demuxer skips over both without an error."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator

from millpond._media.media_path import MediaPath
from millpond.errors import CorruptMedia

_SEGMENT = 0x18538067
_CLUSTER = 0x1F43B675
_CRC_32_OF_4_BYTES = b"\xbf\x84"
_CHUNK_BYTES = 1 << 20
_UNKNOWN_SIZE = -1
_CLUSTER_CHILDREN = frozenset(
    # Timestamp, SilentTracks, Position, PrevSize, SimpleBlock, BlockGroup, EncryptedBlock, Void, CRC-32
    (0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF)
)
_SEGMENT_CHILDREN = frozenset(
    # SeekHead, Info, Cluster, Tracks, Cues, Attachments, Chapters, Tags, Void, CRC-32
    (0x114D9B74, 0x1549A966, _CLUSTER, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF)
)


def require_whole(descriptor: int, size_bytes: int, path: MediaPath) -> None:
    """Walk the elements down to the blocks; a live recording, whose sizes are unknown, is taken as it is.

    Raises:
        CorruptMedia: The file ends early, or something lies where an element must begin.
    """
    for kind, payload, stop in _elements(descriptor, 0, size_bytes):
        if kind != _SEGMENT or stop == _UNKNOWN_SIZE:
            continue
        if stop > size_bytes:
            raise CorruptMedia(
                f"{path} is cut short: it has {size_bytes} bytes of {stop}; fetch or write the file again",
                path=path.label,
                size_bytes=size_bytes,
                wanted_bytes=stop,
            )
        _walk(descriptor, payload, stop, path)


def _walk(descriptor: int, start: int, stop: int, path: MediaPath) -> None:
    position = start
    for kind, payload, end in _elements(descriptor, start, stop):
        if end == _UNKNOWN_SIZE:
            return
        _require(kind in _SEGMENT_CHILDREN and end <= stop, position, path)
        if kind == _CLUSTER:
            inner = payload
            for child, _, child_end in _elements(descriptor, payload, end):
                _require(child in _CLUSTER_CHILDREN and inner < child_end <= end, inner, path)
                inner = child_end
            _require(inner == end, inner, path)
        position = end
    _require(position == stop, position, path)


def require_checksums(
    descriptor: int, size_bytes: int, stop: int, path: MediaPath, progress: Callable[[], None]
) -> None:
    """Hold elements against the CRC-32 that many writers put in front of their children, up to the one at `stop`.

    Raises:
        CorruptMedia: One does not keep it.
    """
    for kind, payload, end in _elements(descriptor, 0, size_bytes):
        if kind == _SEGMENT:
            for _, inner, inner_end in _elements(descriptor, payload, size_bytes if end == _UNKNOWN_SIZE else end):
                if inner_end != _UNKNOWN_SIZE:
                    _require_checksum(descriptor, inner, inner_end, path, progress)
                if inner > stop:
                    return


def _require_checksum(descriptor: int, start: int, stop: int, path: MediaPath, progress: Callable[[], None]) -> None:
    head = os.pread(descriptor, 6, start)
    if head[:2] != _CRC_32_OF_4_BYTES or start + 6 > stop:
        return
    crc = 0
    for position in range(start + 6, stop, _CHUNK_BYTES):
        crc = zlib.crc32(os.pread(descriptor, min(_CHUNK_BYTES, stop - position), position), crc)
        progress()
    if crc.to_bytes(4, "little") != head[2:]:
        raise CorruptMedia(
            f"{path} is damaged between bytes {start} and {stop}: they do not keep their checksum; fetch or write the "
            "file again",
            path=path.label,
            position=start,
        )


def _require(is_sound: bool, position: int, path: MediaPath) -> None:
    if not is_sound:
        raise CorruptMedia(
            f"{path} is damaged at or before byte {position}: no Matroska element begins there; fetch or write the "
            "file again",
            path=path.label,
            position=position,
        )


def _elements(descriptor: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, start of the payload, end), up to `stop` or to what is no element."""
    position = start
    while position < stop:
        head = os.pread(descriptor, 12, position)
        id_bytes = 9 - head[0].bit_length() if head and head[0] else 9
        if id_bytes > 4 or len(head) < id_bytes + 1 or not head[id_bytes]:
            return
        size_bytes = 9 - head[id_bytes].bit_length()
        raw = head[id_bytes : id_bytes + size_bytes]
        size = int.from_bytes(raw, "big") & ((1 << 7 * size_bytes) - 1)
        payload = position + id_bytes + size_bytes
        is_unknown = size == (1 << 7 * size_bytes) - 1
        position = payload + size
        yield int.from_bytes(head[:id_bytes], "big"), payload, _UNKNOWN_SIZE if is_unknown else position
        if is_unknown:
            return
