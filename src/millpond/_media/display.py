"""How a stream wants its pictures turned: display matrices, from an MP4's header or from a decoded frame."""

from __future__ import annotations

import math
import struct

from millpond._media.sparse_file import inner_boxes

Matrix = tuple[int, int, int, int, int, int, int, int, int]
"""a b u c d v x y w, row by row, 16.16 fixed point: (x, y) goes to (a x + c y, b x + d y), y downwards."""

_IDENTITY: Matrix = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def turn_of(matrix: Matrix) -> tuple[int, bool]:
    """Say how to turn a picture: (degrees counterclockwise: 0, 90, 180 or 270; whether it is mirrored first).

    An angle that is no quarter turn is not applied, as in every player that only turns by quarters.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if not (math.hypot(a, b) and math.hypot(c, d)):
        return 0, False
    degrees = math.degrees(math.atan2(c, d)) % 360.0
    quarters = round(degrees / 90.0)
    is_mirrored = a * d - b * c < 0
    if abs(degrees - 90.0 * quarters) > 1.0:
        return 0, is_mirrored
    return 90 * (quarters % 4), is_mirrored


def matrix_from_frame(side_data: bytes | None) -> Matrix:
    """Read the display matrix that a decoded frame carries; the identity where it carries none."""
    return struct.unpack("=9i", side_data[:36]) if side_data is not None and len(side_data) >= 36 else _IDENTITY


def matrix_from_moov(moov: bytes, track_id: int) -> Matrix:
    """Read the display matrix of a track from the payload of an MP4's `moov` box: the track's times the movie's."""
    movie, track = _IDENTITY, _IDENTITY
    for kind, payload in inner_boxes(moov):
        if kind == b"mvhd":
            movie = _matrix_at(payload, 48 if payload[0] else 36)
        elif kind == b"trak":
            for header in (inner for name, inner in inner_boxes(payload) if name == b"tkhd"):
                if int.from_bytes(header[20:24] if header[0] else header[12:16], "big") == track_id:
                    track = _matrix_at(header, 52 if header[0] else 40)
    return _product(track, movie)


def _matrix_at(box: bytes, start: int) -> Matrix:
    return struct.unpack_from(">9i", box, start) if len(box) >= start + 36 else _IDENTITY


def _product(left: Matrix, right: Matrix) -> Matrix:
    shifts = (16, 16, 30)
    cells = [
        sum((left[3 * row + k] * right[3 * k + column]) >> shifts[k] for k in range(3))
        for row in range(3)
        for column in range(3)
    ]
    return cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6], cells[7], cells[8]
