"""Damage in VP9 packets that no decoder reports."""

from __future__ import annotations

_SHOWN_AGAIN_BYTES = 2
"""Of a frame that says nothing but which frame to show again: 1 byte, 2 with the reserved bit of profile 3."""


def shows_again_and_goes_on(packet: memoryview) -> bool:
    """Whether a frame says that it shows an older one again, which takes a byte, and yet has more to say.

    Its first byte is damaged then, and the decoder would give the older picture under this packet's time.
    """
    return any(_shows_again(frame) and any(frame[_SHOWN_AGAIN_BYTES:]) for frame in _frames(packet))


def _shows_again(frame: memoryview) -> bool:
    profile = (frame[0] >> 5 & 1) | (frame[0] >> 4 & 1) << 1
    return bool(frame[0] >> (2 if profile == 3 else 3) & 1)


def _frames(packet: memoryview) -> list[memoryview]:
    """The frames of a superframe, which an index at its end tells apart; else the packet."""
    marker = packet[-1]
    size_bytes, count = (marker >> 3 & 3) + 1, (marker & 7) + 1
    index = len(packet) - 2 - size_bytes * count
    if marker >> 5 != 0b110 or index < 0 or packet[index] != marker:
        return [packet]
    frames, position = [], 0
    for start in range(index + 1, len(packet) - 1, size_bytes):
        stop = position + int.from_bytes(packet[start : start + size_bytes], "little")
        frames.append(packet[position : min(stop, index)])
        position = stop
    return [frame for frame in frames if len(frame)]
