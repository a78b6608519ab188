"""Whether a file is whole, as far as its format tells: demuxers take a missing end for the end."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator

from millpond._media import matroska
from millpond._media.media_path import MediaPath
from millpond._media.mp4_claims import require_plausible
from millpond._media.sparse_file import SparseFile
from millpond.errors import CorruptMedia

_CHUNKED = {b"RIFF": "<4sI", b"FORM": ">4sI"}
"""WAV and AVI, AIFF: how the kind and the length of a chunk are written."""

_EBML = b"\x1a\x45\xdf\xa3"
_BULK_CHUNKS = (b"data", b"LIST", b"idx1", b"SSND")

_UNKNOWN_BYTES = 0x7FFF_F000
"""Who writes such a file into a pipe cannot know how long it gets, and writes the most that is possible, or nearly."""

_MAX_CHUNKS = 100_000
_OGG_HEAD_BYTES = 27 + 255
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def require_whole_file(path: MediaPath) -> None:
    """Look at the outer structure of an MP4, MOV, Matroska, WebM, AVI, WAV, AIFF, Ogg or MP3 file.

    Raises:
        CorruptMedia: It ends early, or claims what it cannot hold.
        OSError: It cannot be read.
    """
    with _opened(path) as (descriptor, size_bytes):
        head = os.pread(descriptor, 12, 0)
        if head[:4] == _EBML:
            matroska.require_whole(descriptor, size_bytes, path)
        elif head[:4] in _CHUNKED:
            _require_whole_chunks(descriptor, size_bytes, path)
        elif head[:4] == b"OggS":
            deque(_ogg_pages(descriptor, size_bytes, path), maxlen=0)
        elif head[:3] == b"ID3" or head[:1] == b"\xff":
            _require_whole_mp3(descriptor, size_bytes, path)
        else:
            file = SparseFile(descriptor, size_bytes)
            if file.looks_like_mp4:
                require_within_file([box.stop for box in file.boxes], size_bytes, path)
            require_plausible(descriptor, file.boxes, size_bytes, path)


def require_checksums(path: MediaPath, stop: int | None, progress: Callable[[], None]) -> None:
    """Hold the parts of a Matroska, WebM or Ogg file against the checksums in it, at which FFmpeg does not look.

    Args:
        path: The file.
        stop: The part that holds this byte is the last but one that is looked at; None: all are.
        progress: Called for every page, or megabyte.

    Raises:
        CorruptMedia: One does not keep its checksum.
        OSError: It cannot be read.
    """
    with _opened(path) as (descriptor, size_bytes):
        stop = size_bytes if stop is None else stop
        head = os.pread(descriptor, 4, 0)
        if head == _EBML:
            matroska.require_checksums(descriptor, size_bytes, stop, path, progress)
        elif head == b"OggS":
            for position, page in _ogg_pages(descriptor, size_bytes, path, whole=True):
                if _ogg_checksum(page[:22] + bytes(4) + page[26:]) != page[22:26]:
                    raise _damaged(path, position, "an Ogg page does not keep its checksum")
                progress()
                if position > stop:
                    return


@contextlib.contextmanager
def _opened(path: MediaPath) -> Iterator[tuple[int, int]]:
    """A descriptor of a file, and its size."""
    descriptor = os.open(path.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        yield descriptor, os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def require_within_file(stops: list[int], size_bytes: int, path: MediaPath) -> None:
    """Raise CorruptMedia if packets, boxes or chunks end beyond the end of the file: it was cut short."""
    beyond = [stop for stop in stops if stop > size_bytes]
    if beyond:
        raise CorruptMedia(
            f"{path} is cut short: it has {size_bytes} bytes, but its header tells of {max(beyond)} ({len(beyond)} "
            f"of {len(stops)} parts lie beyond the end); fetch or write the file again",
            path=path.label,
            size_bytes=size_bytes,
            wanted_bytes=max(beyond),
        )


def frames_of_mp3(path: MediaPath) -> int:
    """How many frames an MP3 says that it has, in the Xing or Info frame that encoders put first; 0 if it does not."""
    with open(path.path, "rb") as file:
        return _mp3_counts(file.fileno())[1]


def _mp3_counts(descriptor: int) -> tuple[int, int, int]:
    """Where the first frame of an MP3 begins, and how many frames and bytes it says there are from there on, or 0."""
    head = os.pread(descriptor, 10, 0)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    first = os.pread(descriptor, 192, start)
    # behind the header and the side information, which take 36 bytes at most
    marks = [at for at in (first.find(b"Xing", 4, 44), first.find(b"Info", 4, 44)) if at >= 0]
    if first[:1] != b"\xff" or not marks or len(first) < marks[0] + 16:
        return start, 0, 0
    flags, *counts = struct.unpack_from(">III", first, marks[0] + 4)
    frames = counts.pop(0) if flags & 1 else 0
    return start, frames, counts.pop(0) if flags & 2 else 0


def _require_whole_mp3(descriptor: int, size_bytes: int, path: MediaPath) -> None:
    start, _, num_bytes = _mp3_counts(descriptor)
    require_within_file([start + num_bytes] if num_bytes else [], size_bytes, path)


def _require_whole_chunks(descriptor: int, size_bytes: int, path: MediaPath) -> None:
    """Walk the chunks of a WAV, AVI or AIFF file; a long AVI is several RIFFs, one behind the other."""
    layout = _CHUNKED[os.pread(descriptor, 4, 0)]
    position, stops = 0, []
    for _ in range(_MAX_CHUNKS):
        head = os.pread(descriptor, 8, position)
        if len(head) < 8:
            break
        kind, length = struct.unpack(layout, head)
        if kind in _CHUNKED:
            position += 12
            continue
        if not kind.isascii() or not length or length >= _UNKNOWN_BYTES:
            break  # behind what is no chunk, nothing is known
        position += 8 + length + (length & 1)
        if kind in _BULK_CHUNKS:
            stops.append(position - (length & 1))
    require_within_file(stops, size_bytes, path)


def _ogg_pages(
    descriptor: int, size_bytes: int, path: MediaPath, *, whole: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Walk the pages, each of which must be there: position, and bytes where the `whole` page is wanted."""
    position = 0
    while position < size_bytes:
        head = os.pread(descriptor, _OGG_HEAD_BYTES, position)
        if head[:5] != b"OggS\0":
            raise _damaged(path, position, "no Ogg page begins there")
        num_segments = head[26] if len(head) > 26 else 255
        stop = position + 27 + num_segments + sum(head[27 : 27 + num_segments])
        require_within_file([stop], size_bytes, path)
        yield position, os.pread(descriptor, stop - position, position) if whole else b""
        position = stop


def _ogg_checksum(page: bytes) -> bytes:
    """The CRC-32 of Ogg takes each byte from its other end, and inverts nothing: zlib's, seen in a mirror."""
    crc = zlib.crc32(page.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "big").translate(_MIRRORED)


def _damaged(path: MediaPath, position: int, what: str) -> CorruptMedia:
    return CorruptMedia(
        f"{path} is damaged at or before byte {position}: {what}; fetch or write the file again",
        path=path.label,
        position=position,
    )
