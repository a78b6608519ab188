"""NAL units: what the packets of H.264 and HEVC are made of, as far as it decides how they are fed."""

from __future__ import annotations

from millpond._values import StreamParameters

_H264_IDR = 5
_H264_SEI = 6
_H264_LASTING = frozenset((7, 8, 13, 15))
_HEVC_LASTING = frozenset((32, 33, 34))
_X264 = b"x264 - core"
_HVCC_BYTES = 23
"""Of the shortest configuration record of HEVC."""


def nal_starts(stream: StreamParameters, payload: memoryview) -> list[int]:
    """Where the NAL units of a packet begin, behind their length or start code; ascending."""
    length_bytes = _length_bytes(stream)
    if length_bytes:
        return _starts_by_length(payload, length_bytes)
    starts: list[int] = []
    data = bytes(payload)
    position = data.find(b"\0\0\1")
    while 0 <= position < len(data) - 3:
        starts.append(position + 3)
        position = data.find(b"\0\0\1", position + 3)
    return starts


def is_refresh(stream: StreamParameters, payload: memoryview) -> bool:
    """Whether nothing before this keyframe is ever needed from here on, so that any error is a real one."""
    if stream.codec_name == "hevc":
        return True
    if stream.codec_name != "h264":
        return False
    return any(payload[start] & 31 == _H264_IDR for start in nal_starts(stream, payload))


def outlasts_flush(stream: StreamParameters, payload: memoryview) -> bool:
    """Whether a packet tells a context what it still knows after it was flushed, and a fresh one would not.

    Those are parameter sets, and the build of x264, for whose oldest ones H.264 is decoded otherwise.
    """
    if stream.codec_name not in ("h264", "hevc"):
        return False
    starts = nal_starts(stream, payload)
    if stream.codec_name == "h264":
        kinds = [payload[start] & 31 for start in starts]
        return not _H264_LASTING.isdisjoint(kinds) or (_H264_SEI in kinds and _X264 in bytes(payload))
    return any(payload[start] >> 1 & 63 in _HEVC_LASTING for start in starts)


def _length_bytes(stream: StreamParameters) -> int:
    """How long the length of a NAL unit is; 0 for start codes. FFmpeg tells the two apart in the same way."""
    extradata = stream.extradata
    if stream.codec_name == "hevc":
        is_listed = len(extradata) >= _HVCC_BYTES and not extradata.startswith((b"\0\0\0", b"\0\0\1"))
        return (extradata[21] & 3) + 1 if is_listed else 0
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


def _starts_by_length(payload: memoryview, length_bytes: int) -> list[int]:
    starts: list[int] = []
    position = 0
    while position + length_bytes < len(payload):
        starts.append(position + length_bytes)
        position += length_bytes + int.from_bytes(payload[position : position + length_bytes], "big")
    return starts
