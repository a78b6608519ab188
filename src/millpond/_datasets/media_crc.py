"""CRC-32s of sounds and images: by which bytes a file is known to be what it was when it was first read."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import av
import av.error

from millpond._datasets.base import Progress
from millpond._media.containers import open_container, packets_of, pick_audio_stream
from millpond._media.media_path import MediaPath
from millpond.errors import CorruptMedia

SMALL_FILE_BYTES = 4 << 20
"""Of a file up to this size all bytes are counted, at 1 ms a megabyte. Of a larger one it is the packets of its sound:
to open the container once more takes 2 ms, and a film must not be read for a minute of its sound."""

_CHUNK_BYTES = 1 << 20
_UNREADABLE = -1  # no CRC-32

Crc = tuple[str, Callable[[], int]]
"""What is counted, and how."""


def crc_of_image(data: bytes) -> Crc:
    """Of a whole image."""
    return "image1", partial(zlib.crc32, data)


def crc_of_sound(path: MediaPath, start_seconds: float | None, max_seconds: float | None, progress: Progress) -> Crc:
    """Of the first audio stream of a file.

    Args:
        path: The file, which is there.
        start_seconds: Where what is wanted begins; None: with the first packet.
        max_seconds: What begins later than so long after that is not wanted, and not counted where it need not be
            read.
        progress: Called per packet.
    """
    if os.stat(path.path).st_size <= SMALL_FILE_BYTES:
        return "file1", partial(_crc_of_file, path.path)
    wanted = zlib.crc32(repr((start_seconds, max_seconds)).encode())
    return f"sound2-{wanted:08x}", partial(_crc_of_stream, path, start_seconds, max_seconds, progress)


def _crc_of_file(path: str) -> int:
    crc = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def _crc_of_stream(path: MediaPath, start_seconds: float | None, max_seconds: float | None, progress: Progress) -> int:
    try:
        with open_container(path) as container:
            packets = packets_of(container, pick_audio_stream(container, path))
            return _crc_of_packets(packets, start_seconds, max_seconds, progress)
    except (av.error.FFmpegError, CorruptMedia):
        return _UNREADABLE  # it was readable before, or nothing would be compared with this


def _crc_of_packets(
    packets: Iterator[av.Packet[Any]], start_seconds: float | None, max_seconds: float | None, progress: Progress
) -> int:
    crc = 0
    for packet in packets:
        begins = None if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)
        if start_seconds is None:
            start_seconds = begins
        if max_seconds is not None and begins is not None and begins >= (start_seconds or 0.0) + max_seconds:
            break
        crc = zlib.crc32(packet, crc)
        progress()
    return crc
