"""An MP4 whose header is real and whose media is zeros: a demuxer reads it without one byte of media."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from millpond._media.read_position import ReadPosition

MEDIA_BOX = b"mdat"
FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
MAX_BOXES = 1_000_000  # a fragment has two; a file with more boxes than this is no MP4 but bytes that look like one


_Buffer = TypeVar("_Buffer", bytes, memoryview)


@dataclass(frozen=True, slots=True)
class Box:
    """A top-level box of an MP4: its four-letter kind, and the file positions start <= payload < stop."""

    kind: bytes
    start: int
    payload: int
    stop: int


def top_level_boxes(descriptor: int, size_bytes: int) -> list[Box]:
    """List the boxes of a file, as far as they make sense; the last may end beyond the file."""
    boxes: list[Box] = []
    position = 0
    while position + 8 <= size_bytes and len(boxes) < MAX_BOXES:
        head = os.pread(descriptor, 16, position)
        if len(head) < 8:
            break  # it is being cut off meanwhile
        length, kind = struct.unpack(">I4s", head[:8])
        payload = position + 8
        if length == 1 and len(head) == 16:
            length, payload = struct.unpack(">Q", head[8:])[0], position + 16
        elif length == 0:
            length = size_bytes - position
        if length < payload - position:
            break
        boxes.append(Box(kind, position, payload, position + length))
        position += length
    return boxes


def inner_boxes(data: _Buffer) -> Iterator[tuple[bytes, _Buffer]]:
    """Yield (kind, payload) of the boxes in the payload of another, as far as they make sense."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1 and position + 16 <= len(data):
            length, head = struct.unpack_from(">Q", data, position + 8)[0], 16
        elif length == 0:
            length = len(data) - position
        if length < head:
            return
        if length > head:
            yield kind, data[position + head : position + length]
        position += length


class SparseFile(ReadPosition):
    """A readable, seekable file object: real bytes, but zeros for the payload of every `mdat`.

    It offers what PyAV asks of a Python file and no more: `read` returns bytes, and there is no `mode`.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._size = size_bytes
        self.boxes = top_level_boxes(descriptor, size_bytes)
        self._media = [(b.payload, min(b.stop, size_bytes)) for b in self.boxes if b.kind == MEDIA_BOX]
        self.real_bytes_read = 0

    @property
    def looks_like_mp4(self) -> bool:
        """The file begins with a box that MP4 and MOV files begin with."""
        return bool(self.boxes) and self.boxes[0].kind in FIRST_BOXES

    def payload_of(self, kind: bytes) -> bytes:
        """The payload of the first top-level box of a kind; empty if there is none."""
        for box in self.boxes:
            if box.kind == kind:
                return os.pread(self._descriptor, min(box.stop, self._size) - box.payload, box.payload)
        return b""

    def read(self, count: int) -> bytes:
        """Read up to `count` bytes: one stretch that is all real or all zeros."""
        start = self._position
        stop = min(start + count, self._size)
        if stop <= start:
            return b""
        data = self._stretch(start, stop)
        self._position += len(data)
        return data

    def _stretch(self, start: int, stop: int) -> bytes:
        low, high = 0, len(self._media)
        while low < high:  # the first mdat that ends after `start`
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._media[middle][1] <= start else (low, middle)
        if low < len(self._media):
            media_start, media_stop = self._media[low]
            if media_start <= start:
                return bytes(min(stop, media_stop) - start)
            stop = min(stop, media_start)
        data = os.pread(self._descriptor, stop - start, start)
        self.real_bytes_read += len(data)
        return data
