"""NAL units: what the packets of H.264 and HEVC are made of, as far as it decides how they are fed."""

from __future__ import annotations

import functools
from typing import NamedTuple

from millpond._values import StreamParameters

_SLICE, _IDR, _SEI, _SPS, _PPS, _DELIMITER, _FILLER, _SPS_EXTENSION, _SUBSET_SPS = 1, 5, 6, 7, 8, 9, 12, 13, 15
_H264_LASTING = frozenset((_SPS, _PPS, _SPS_EXTENSION, _SUBSET_SPS))
_OF_DISPOSABLE = frozenset((_SLICE, _SEI, _DELIMITER, _FILLER))
_HEVC_LASTING = frozenset((32, 33, 34))
_X264 = b"x264 - core"
_HVCC_BYTES = 23
"""Of the shortest configuration record of HEVC."""
_SPS_BYTES = 128
"""More than what comes before the field looked for, unless it is very strange."""
_SLICE_BYTES = 24
"""More than a slice header has up to its frame_num, which is 15 bytes at most without emulation prevention."""
_PROFILES_WITH_CHROMA = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))


class Nature(NamedTuple):
    """What a packet is.

    Attributes:
        is_refresh: Nothing before this keyframe is needed from here on, so that any error is a real one.
        is_disposable: No other picture ever refers to this one, which is one whole frame: for certain.
        goes_on: Its first slice is not the first of a picture.
        contradicts: Its number says that the picture before it, which was told to be disposable, is referred to.
        outlasts_flush: It tells a context what that still knows after a flush, and a fresh one would not. Those are
            parameter sets, and the build of x264, for whose oldest ones H.264 is decoded otherwise.
    """

    is_refresh: bool = False
    is_disposable: bool = False
    goes_on: bool = False
    contradicts: bool = False
    outlasts_flush: bool = False


class PacketReading:
    """Reads the natures of packets of one stream, in the order in which they are fed; of codecs without NAL units none.

    Only H.264 has disposable packets. Theirs is a rule of its standard: where nal_ref_idc is 0 a picture is no
    reference. It says so of fields, too, hence the second condition: every parameter set seen allows frames only.
    A damaged bit can set nal_ref_idc to 0, and no decoder complains of a reference that it was never fed. But
    frame_num goes up behind a reference and behind nothing else, so the next picture has that of a disposable one.
    """

    def __init__(self, stream: StreamParameters) -> None:
        self._codec_name = stream.codec_name
        self._number_left: int | None = None
        if stream.codec_name in ("h264", "hevc"):
            self._length_bytes = _length_bytes(stream.codec_name, stream.extradata)
            self._number_bits = _number_bits_outside(stream.extradata) if stream.codec_name == "h264" else 0

    def nature(self, payload: memoryview, *, must_be_fed: bool = False) -> Nature:
        """Read what a packet is; where it must be fed, and that before it was, nobody asks whether it is disposable."""
        if self._codec_name not in ("h264", "hevc"):
            return _ORDINARY
        if must_be_fed and self._number_left is None and self._is_one_slice(payload):
            return _ORDINARY  # most packets of an epoch: all that follows takes 2 % of decoding them
        starts, is_sound = _nal_starts(payload, self._length_bytes)
        if self._codec_name == "hevc":
            kinds = {payload[start] >> 1 & 63 for start in starts}
            return Nature(True, outlasts_flush=not is_sound or not _HEVC_LASTING.isdisjoint(kinds))
        return self._nature_of_h264(payload, starts, is_sound)

    def _nature_of_h264(self, payload: memoryview, starts: list[int], is_sound: bool) -> Nature:
        kinds = {payload[start] & 31 for start in starts}
        if _SPS in kinds:
            sets = [bytes(payload[s : s + _SPS_BYTES]) for s in starts if payload[s] & 31 == _SPS]
            self._number_bits = _common([self._number_bits, *map(_number_bits, sets)])
        slices = [start for start in starts if payload[start] & 31 in (_SLICE, _IDR)]
        is_disposable = (
            is_sound
            and self._number_bits > 0
            and _SLICE in kinds
            and kinds <= _OF_DISPOSABLE
            and not any(payload[start] & 0x60 for start in slices)
        )
        before = self._number_left
        number = self._number(payload, slices) if is_disposable or (before is not None and slices) else None
        is_disposable = is_disposable and number is not None
        if slices:
            self._number_left = number if is_disposable else None
        return Nature(
            is_refresh=_IDR in kinds,
            is_disposable=is_disposable,
            contradicts=before is not None and bool(slices) and _IDR not in kinds and number != before,
            # first_mb_in_slice is an Exp-Golomb code: 0 is a single bit
            goes_on=bool(slices) and payload[min(slices[0] + 1, len(payload) - 1)] & 0x80 == 0,
            outlasts_flush=not is_sound
            or not kinds.isdisjoint(_H264_LASTING)
            or (_SEI in kinds and _X264 in bytes(payload)),
        )

    def _is_one_slice(self, payload: memoryview) -> bool:
        """Whether a packet of H.264 is one slice that is no IDR, and nothing else."""
        return (
            self._codec_name == "h264"
            and self._length_bytes == 4
            and len(payload) > 4
            and payload[4] & 31 == _SLICE
            and int.from_bytes(payload[:4], "big") == len(payload) - 4
        )

    def _number(self, payload: memoryview, slices: list[int]) -> int | None:
        """frame_num of the first slice; None where it cannot be read."""
        start = slices[0] + 1
        try:
            bits = _Bits(bytes(payload[start : start + _SLICE_BYTES]).replace(b"\0\0\3", b"\0\0"))
            bits.number(), bits.number(), bits.number()
            return bits.take(self._number_bits)
        except ValueError:
            return None


_ORDINARY = Nature()


def _nal_starts(payload: memoryview, length_bytes: int) -> tuple[list[int], bool]:
    """Where the NAL units begin, behind their length or start code; and whether they make up the packet."""
    starts: list[int] = []
    if length_bytes:
        position, end = 0, len(payload)
        while position + length_bytes < end:
            start = position + length_bytes
            starts.append(start)
            position = start + int.from_bytes(payload[position:start], "big")
            if position == start:
                return starts, False
        return starts, position == end
    data = bytes(payload)
    position = data.find(b"\0\0\1")
    while 0 <= position < len(data) - 3:
        starts.append(position + 3)
        position = data.find(b"\0\0\1", position + 3)
    return starts, bool(starts)


def _length_bytes(codec_name: str, extradata: bytes) -> int:
    """How long the length of a NAL unit is; 0 for start codes. FFmpeg tells the two apart in the same way."""
    if codec_name == "hevc":
        is_record = len(extradata) >= _HVCC_BYTES and not extradata.startswith((b"\0\0\0", b"\0\0\1"))
        return (extradata[21] & 3) + 1 if is_record else 0
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


@functools.lru_cache(maxsize=64)
def _number_bits_outside(extradata: bytes) -> int:
    """`_number_bits` of the parameter sets that H.264 has outside of its packets; 0 without any."""
    if not _length_bytes("h264", extradata):
        view = memoryview(extradata)
        sets = [extradata[s : s + _SPS_BYTES] for s in _nal_starts(view, 0)[0] if extradata[s] & 31 == _SPS]
    else:
        sets, position = [], 6
        for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
            start = position + 2
            position = start + int.from_bytes(extradata[position:start], "big")
            sets.append(extradata[start:position])
    return _common([_number_bits(sps) for sps in sets])


def _common(numbers: list[int]) -> int:
    """The number that they all are; 0 where there is none."""
    return numbers[0] if len(set(numbers)) == 1 else 0


def _number_bits(sps: bytes) -> int:
    """The bits of frame_num, by a sequence parameter set, header included; 0 if it allows fields, or is strange."""
    try:
        bits = _Bits(sps[1:].replace(b"\0\0\3", b"\0\0"))
        profile = bits.take(8)
        bits.take(16)
        bits.number()
        if profile in _PROFILES_WITH_CHROMA:
            if bits.number() == 3 and bits.take(1):
                return 0  # the planes in slices of their own
            bits.number(), bits.number(), bits.take(1)
            if bits.take(1):
                return 0  # scaling lists: nobody uses them, and they would have to be read
        number_bits = bits.number() + 4
        order = bits.number()
        if order == 0:
            bits.number()
        elif order == 1:
            bits.take(1), bits.number(), bits.number()
            for _ in range(bits.number()):
                bits.number()
        bits.number(), bits.take(1), bits.number(), bits.number()
        return number_bits if bits.take(1) else 0
    except ValueError:
        return 0


class _Bits:
    """Reads bits, the first one first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as a number; ValueError behind the end."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the bits end")
        return self._value >> self._left & ((1 << count) - 1)

    def number(self) -> int:
        """The next Exp-Golomb code, unsigned; a signed one takes the same bits."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
