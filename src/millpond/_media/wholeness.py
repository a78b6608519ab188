"""Whether a file is whole, as far as its format tells: demuxers take a missing end for the end."""

from __future__ import annotations

import os
import struct

from millpond._media.matroska import require_whole
from millpond._media.media_path import MediaPath
from millpond._media.mp4_claims import require_plausible
from millpond._media.sparse_file import SparseFile
from millpond.errors import CorruptMedia

_UNKNOWN_RIFF_BYTES = 0x7FFF_F000
"""Who writes a RIFF file into a pipe cannot know how long it gets, and writes the most or nearly so."""

_MAX_CHUNKS = 100_000
_MAX_OGG_PAGE_BYTES = 27 + 255 + 255 * 255


def require_whole_file(path: MediaPath) -> None:
    """Look at the outer structure of an MP4, MOV, Matroska, WebM, AVI, WAV or Ogg file; others tell nothing.

    Raises:
        CorruptMedia: It ends early, or claims what it cannot hold.
        OSError: It cannot be read.
    """
    descriptor = os.open(path.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        size_bytes = os.fstat(descriptor).st_size
        head = os.pread(descriptor, 12, 0)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            require_whole(descriptor, size_bytes, path)
        elif head[:4] == b"RIFF":
            _require_whole_riff(descriptor, size_bytes, path)
        elif head[:4] == b"OggS":
            _require_whole_ogg(descriptor, size_bytes, path)
        else:
            file = SparseFile(descriptor, size_bytes)
            if file.looks_like_mp4:
                require_within_file([box.stop for box in file.boxes], size_bytes, path)
            require_plausible(descriptor, file.boxes, size_bytes, path)
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
        head = file.read(10)
        tag_bytes = 0
        if head[:3] == b"ID3" and len(head) == 10:
            tag_bytes = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
        file.seek(tag_bytes)
        first = file.read(2048)
    marks = [at for at in (first.find(b"Xing"), first.find(b"Info")) if at >= 0]
    if not marks or len(first) < min(marks) + 12:
        return 0
    flags, frames = struct.unpack_from(">II", first, min(marks) + 4)
    return int(frames) if flags & 1 else 0


def _require_whole_riff(descriptor: int, size_bytes: int, path: MediaPath) -> None:
    """Walk the chunks of a WAV or AVI file; a long AVI is several RIFFs, one behind the other."""
    position, stops = 0, []
    for _ in range(_MAX_CHUNKS):
        head = os.pread(descriptor, 8, position)
        if len(head) < 8:
            break
        kind, length = struct.unpack("<4sI", head)
        if kind == b"RIFF":
            position += 12
            continue
        if kind in (b"data", b"LIST", b"idx1") and length < _UNKNOWN_RIFF_BYTES:
            stops.append(position + 8 + length)
        if not kind.isascii() or not length or length >= _UNKNOWN_RIFF_BYTES:
            break  # behind what is no chunk, nothing is known
        position += 8 + length + (length & 1)
    require_within_file(stops, size_bytes, path)


def _require_whole_ogg(descriptor: int, size_bytes: int, path: MediaPath) -> None:
    """The last page must be there to its end."""
    start = max(size_bytes - 2 * _MAX_OGG_PAGE_BYTES, 0)
    tail = os.pread(descriptor, size_bytes - start, start)
    page = tail.rfind(b"OggS\0")
    if page < 0:
        return
    sizes = tail[page + 27 : page + 27 + tail[page + 26]] if len(tail) > page + 26 else b""
    is_header_whole = len(tail) > page + 26 and len(sizes) == tail[page + 26]
    stop = page + 27 + len(sizes) + sum(sizes) if is_header_whole else len(tail) + 1
    require_within_file([start + stop], size_bytes, path)
