"""The header of an MP4 without its media: copied into a sparse file of full length, from wherever the bytes are.

Theory of operation. The boxes of an MP4 follow one another, each led by its length, so the walk reads the head of each
and skips the payload of every `mdat`. Reads may be requests to a server, so few are made: what is behind the first
`mdat` while no `moov` was seen is fetched in one piece, since it holds the `moov`; the `moof`s of a fragmented file are
fetched one by one, a little at a time.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from millpond._media.memory_file import write_all
from millpond._media.mp4_claims import MAX_HEADER_BYTES
from millpond._media.sparse_file import FIRST_BOXES, MAX_BOXES, MEDIA_BOX

BEGIN_BYTES = 4096
"""With so many the walk begins: heads of `ftyp`, `free` and `mdat`, or of the `moov`."""

_TAIL_BYTES = 16 << 20
_STEP_BYTES = 4096
_HEAD_BYTES = 16
_NEXT_BYTES = 64
"""Read with a box that is copied: the heads of `free` and `mdat`, which follow a `moov` that comes first."""
_SKIPPED = (MEDIA_BOX, b"free", b"skip", b"wide")

Read = Callable[[int, int], bytes]
"""`read(start, stop)` gives those bytes of the file, all of them."""


class _Window:
    """The bytes that were read last; asked for more it reads on."""

    def __init__(self, read: Read, size_bytes: int, begin: bytes) -> None:
        self._read, self._size = read, size_bytes
        self._start, self._data = 0, begin

    def get(self, start: int, stop: int, ahead: int) -> bytes:
        """Bytes `start` to `stop`; if any of them must be read, then `ahead` bytes behind `stop`, too."""
        known = self._start <= start < self._start + len(self._data)
        first = self._start + len(self._data) if known else start
        if not known:
            self._start, self._data = start, b""
        if stop > first:
            self._data += self._read(first, min(stop + ahead, self._size))
        return self._data[start - self._start : stop - self._start]


def copy_header(
    read: Read, size_bytes: int, descriptor: int, *, begin: bytes = b"", length_bytes: int = 0
) -> bool | None:
    """Copy all but the payload of `mdat`s, and what is there to be skipped.

    Args:
        read: Gives bytes of the file.
        size_bytes: Of the file.
        descriptor: Of an empty file that is written to.
        begin: The first bytes of the file, as far as they are known.
        length_bytes: Of the copy, where the file was cut short and should be longer.

    Returns:
        Whether all of its `moov` is there; None where it does not begin as an MP4 does: then nothing useful was copied.
    """
    os.ftruncate(descriptor, max(size_bytes, length_bytes))
    window = _Window(read, size_bytes, begin)
    position, seen = 0, 0
    kind, has_moov = b"", False
    while position + 8 <= size_bytes and seen < MAX_BOXES:
        rest = size_bytes - position
        ahead = rest if kind == MEDIA_BOX and not has_moov and rest <= _TAIL_BYTES else _STEP_BYTES
        head = window.get(position, min(position + _HEAD_BYTES, size_bytes), ahead)
        length, kind = struct.unpack(">I4s", head[:8])
        payload = 8
        if length == 1 and len(head) == _HEAD_BYTES:
            length, payload = struct.unpack(">Q", head[8:])[0], _HEAD_BYTES
        elif length == 0:
            length = rest
        if not seen and kind not in FIRST_BOXES:
            return None
        if length < payload:
            break
        is_copied = kind not in _SKIPPED and length <= MAX_HEADER_BYTES  # no header is larger, and who reads it says so
        stop = position + (min(length, rest) if is_copied else payload)
        write_all(descriptor, window.get(position, stop, _NEXT_BYTES), position)
        has_moov |= kind == b"moov" and length <= rest
        position += length
        seen += 1
    return has_moov if seen else None
