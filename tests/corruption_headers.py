"""Damage done where a container says how much there is, and where: sizes, counts, offsets, dimensions."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from corruption_bytes import Mutator, replaced


class Piece(NamedTuple):
    """A box, an element, a chunk: the file positions start <= payload <= stop."""

    kind: bytes
    start: int
    payload: int
    stop: int


def lie_about(value: int, bits: int, chance: random.Random) -> int:
    """Another number of the same width: near, far, none, or all that fits."""
    top = (1 << bits) - 1
    lies = (0, 1, value - 1, value + 1, 2 * value, value // 2, value + 1000, top, top >> 1, chance.getrandbits(bits))
    return min(max(chance.choice([lie for lie in lies if lie != value]), 0), top)


def _lie_at(data: bytes, start: int, width: int, chance: random.Random, order: str = ">") -> bytes:
    code = order + {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
    if start + width > len(data):
        return data
    return replaced(
        data, start, struct.pack(code, lie_about(struct.unpack_from(code, data, start)[0], 8 * width, chance))
    )


def _garble(data: bytes, piece: Piece, chance: random.Random) -> bytes:
    """One to four bytes of a payload."""
    damaged = data
    for _ in range(chance.randint(1, 4)):
        if piece.stop > piece.payload:
            damaged = replaced(damaged, chance.randrange(piece.payload, piece.stop), chance.randbytes(1))
    return damaged


# ---- MP4

_PARENTS = b"moov trak edts mdia minf stbl mvex moof traf dinf".split()
_TABLES = {b"stsz": 8, b"stco": 4, b"co64": 4, b"stts": 4, b"ctts": 4, b"stsc": 4, b"stss": 4, b"elst": 4, b"trun": 4}
"""Where in its payload a table says how many entries follow."""


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
    """Every box of an MP4, parents before children, sample entries and what they hold included."""
    position, stop = start, len(data) if stop is None else stop
    while position + 8 <= stop:
        length, kind = struct.unpack_from(">I4s", data, position)
        if not 8 <= length <= stop - position:
            return
        yield Piece(kind, position, position + 8, position + length)
        inner = {b"stsd": 16, b"avc1": 86, b"hvc1": 86, b"hev1": 86, b"av01": 86, b"vp09": 86, b"mp4a": 36, b"Opus": 36}
        if kind in _PARENTS or kind in inner:
            yield from boxes(data, position + inner.get(kind, 8), position + length)
        position += length


def box_size(data: bytes, chance: random.Random) -> bytes:
    """A box that says it is of another size than it is."""
    return _lie_at(data, chance.choice(list(boxes(data))).start, 4, chance)


def box_kind(data: bytes, chance: random.Random) -> bytes:
    """A box of another name, which so goes missing."""
    return replaced(data, chance.choice(list(boxes(data))).start + 4, chance.choice((b"free", b"skip", b"\xffxyz")))


def box_payload(data: bytes, chance: random.Random) -> bytes:
    """Some bytes of a small box: times, dimensions, codec parameters."""
    return _garble(data, chance.choice([box for box in boxes(data) if box.kind != b"mdat"]), chance)


def table_count(data: bytes, chance: random.Random) -> bytes:
    """A table that claims more entries (packets, chunks, times) than there are, or fewer."""
    table = chance.choice([box for box in boxes(data) if box.kind in _TABLES])
    return _lie_at(data, table.payload + _TABLES[table.kind], 4, chance)


def table_entry(data: bytes, chance: random.Random) -> bytes:
    """One entry of a table: a size, a place, a time."""
    table = chance.choice([box for box in boxes(data) if box.kind in _TABLES])
    first = table.payload + _TABLES[table.kind] + 4
    if table.stop - first < 4:
        return data
    return _lie_at(data, first + 4 * chance.randrange((table.stop - first) // 4), 4, chance)


# ---- Matroska

_MASTERS = {0x18538067, 0x1549A966, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1C53BB6B, 0xBB, 0xB7, 0xA0, 0x1A45DFA3}


def elements(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
    """Every element of a Matroska file, masters before their children; `kind` is the id."""
    position, stop = start, len(data) if stop is None else stop
    while position + 2 <= stop and data[position]:
        id_bytes = 9 - data[position].bit_length()
        if id_bytes > 4 or position + id_bytes >= stop or not data[position + id_bytes]:
            return
        size_bytes = 9 - data[position + id_bytes].bit_length()
        payload = position + id_bytes + size_bytes
        size = int.from_bytes(data[position + id_bytes : payload], "big") & ((1 << 7 * size_bytes) - 1)
        end = min(payload + size, stop)
        kind = data[position : position + id_bytes]
        yield Piece(kind, position, payload, end)
        if int.from_bytes(kind, "big") in _MASTERS:
            yield from elements(data, payload, end)
        position = end


def element_size(data: bytes, chance: random.Random) -> bytes:
    """An element that says it is of another size than it is."""
    element = chance.choice(list(elements(data)))
    start = element.start + len(element.kind)
    width = element.payload - start
    value = int.from_bytes(data[start : element.payload], "big") & ((1 << 7 * width) - 1)
    lie = lie_about(value, 7 * width, chance) | 1 << 7 * width
    return replaced(data, start, lie.to_bytes(width, "big"))


def element_id(data: bytes, chance: random.Random) -> bytes:
    """An element that says it is another one."""
    every = list(elements(data))
    element = chance.choice(every)
    same_width = [other.kind for other in every if len(other.kind) == len(element.kind)]
    return replaced(data, element.start, chance.choice(same_width))


def element_payload(data: bytes, chance: random.Random) -> bytes:
    """Some bytes of a header element: dimensions, time scale, codec parameters."""
    small = [e for e in elements(data) if int.from_bytes(e.kind, "big") not in _MASTERS and e.stop - e.payload < 100]
    return _garble(data, chance.choice(small), chance)


def block_head(data: bytes, chance: random.Random) -> bytes:
    """Track, time or flags (lacing, keyframe) of a block."""
    block = chance.choice([e for e in elements(data) if e.kind in (b"\xa3", b"\xa1")])
    return replaced(data, block.payload + chance.randrange(4), chance.randbytes(1))


# ---- RIFF, PNG, JPEG, Ogg, MPEG audio


def _wav_chunks(data: bytes) -> Iterator[Piece]:
    position = 12
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, position)
        yield Piece(kind, position, position + 8, min(position + 8 + size, len(data)))
        position += 8 + size + size % 2


def wav_size(data: bytes, chance: random.Random) -> bytes:
    """The file's size, or that of a chunk."""
    return _lie_at(data, chance.choice([0, *(chunk.start for chunk in _wav_chunks(data))]) + 4, 4, chance, "<")


def wav_format(data: bytes, chance: random.Random) -> bytes:
    """Format, channels, rate, block size or bits of the samples."""
    fmt = next(chunk for chunk in _wav_chunks(data) if chunk.kind == b"fmt ")
    at, width = chance.choice(((0, 2), (2, 2), (4, 4), (8, 4), (12, 2), (14, 2)))
    return _lie_at(data, fmt.payload + at, width, chance, "<")


def _png_chunks(data: bytes) -> list[Piece]:
    position, found = 8, []
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        found.append(Piece(kind, position, position + 8, min(position + 8 + length, len(data) - 4)))
        position += 12 + length
    return found


def _with_png_crc(data: bytes, chunk: Piece) -> bytes:
    return replaced(data, chunk.stop, struct.pack(">I", zlib.crc32(data[chunk.start + 4 : chunk.stop])))


def png_length(data: bytes, chance: random.Random) -> bytes:
    """The length of a chunk."""
    return _lie_at(data, chance.choice(_png_chunks(data)).start, 4, chance)


def png_header(data: bytes, chance: random.Random) -> bytes:
    """Width, height, depth or colour type, with a checksum that agrees."""
    header = _png_chunks(data)[0]
    at, width = chance.choice(((0, 4), (4, 4), (8, 1), (9, 1), (12, 1)))
    return _with_png_crc(_lie_at(data, header.payload + at, width, chance), header)


def png_payload(data: bytes, chance: random.Random) -> bytes:
    """Bytes of a chunk, with a checksum that agrees: only the pixels' own checksum can tell."""
    chunk = chance.choice([chunk for chunk in _png_chunks(data) if chunk.stop > chunk.payload])
    return _with_png_crc(_garble(data, chunk, chance), chunk)


def _jpeg_segments(data: bytes) -> list[Piece]:
    position, found = 2, []
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xD9:
        stop = position + 2 + int(struct.unpack_from(">H", data, position + 2)[0])
        found.append(Piece(data[position : position + 2], position, position + 4, stop))
        if data[position + 1] == 0xDA:
            break  # entropy-coded from here on
        position = stop
    return found


def jpeg_length(data: bytes, chance: random.Random) -> bytes:
    """The length of a segment."""
    return _lie_at(data, chance.choice(_jpeg_segments(data)).start + 2, 2, chance)


def jpeg_frame(data: bytes, chance: random.Random) -> bytes:
    """Depth, height, width or components in the frame's header."""
    frame = next(s for s in _jpeg_segments(data) if s.kind[1] in (0xC0, 0xC1, 0xC2))
    at, width = chance.choice(((0, 1), (1, 2), (3, 2), (5, 1), (7, 1)))
    return _lie_at(data, frame.payload + at, width, chance)


def jpeg_tables(data: bytes, chance: random.Random) -> bytes:
    """Quantizers, Huffman codes, the scan's header."""
    return _garble(data, chance.choice(_jpeg_segments(data)), chance)


def _ogg_pages(data: bytes) -> list[Piece]:
    position, found = 0, []
    while data[position : position + 4] == b"OggS" and position + 27 <= len(data):
        segments = data[position + 26]
        payload = position + 27 + segments
        stop = payload + sum(data[position + 27 : payload])
        found.append(Piece(b"OggS", position, payload, stop))
        position = stop
    return found


def _ogg_crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 1 << 31 else crc << 1) & 0xFFFFFFFF
    return crc


def _with_ogg_crc(data: bytes, page: Piece) -> bytes:
    blank = replaced(data, page.start + 22, bytes(4))
    return replaced(blank, page.start + 22, struct.pack("<I", _ogg_crc(blank[page.start : page.stop])))


def ogg_head(data: bytes, chance: random.Random) -> bytes:
    """Flags, position, serial, number or segments of a page, with a checksum that agrees or not."""
    page = chance.choice(_ogg_pages(data))
    at, width = chance.choice(((4, 1), (5, 1), (6, 8), (14, 4), (18, 4), (26, 1), (27, 1)))
    damaged = _lie_at(data, page.start + at, width, chance, "<")
    return _with_ogg_crc(damaged, page) if chance.random() < 0.7 else damaged


def ogg_payload(data: bytes, chance: random.Random) -> bytes:
    """Bytes of a page, with a checksum that agrees."""
    page = chance.choice(_ogg_pages(data))
    return _with_ogg_crc(_garble(data, page, chance), page)


def mpeg_head(data: bytes, chance: random.Random) -> bytes:
    """A byte of the four to seven with which a frame of MP3 or ADTS begins: rate, layer, length."""
    heads = [k for k in range(len(data) - 1) if data[k] == 0xFF and data[k + 1] & 0xE0 == 0xE0]
    return replaced(data, chance.choice(heads) + chance.randint(1, 6), chance.randbytes(1))


def mpeg_tag(data: bytes, chance: random.Random) -> bytes:
    """The counts of frames and bytes in the tags before the first frame (ID3, Xing)."""
    tags = [data.find(tag) for tag in (b"ID3", b"Xing", b"Info") if tag in data]
    return _lie_at(data, chance.choice(tags) + chance.choice((4, 6, 8, 12)), 4, chance) if tags else data


MP4 = (box_size, box_kind, box_payload, table_count, table_count, table_entry, table_entry)
MUTATORS: dict[str, tuple[Mutator, ...]] = {
    "mp4": MP4,
    "matroska": (element_size, element_size, element_id, element_payload, block_head),
    "ts": (),
    "wav": (wav_size, wav_format),
    "png": (png_length, png_header, png_header, png_payload),
    "jpeg": (jpeg_length, jpeg_frame, jpeg_frame, jpeg_tables),
    "ogg": (ogg_head, ogg_payload),
    "mpeg_audio": (mpeg_head, mpeg_head, mpeg_tag),
}
"""By container."""
