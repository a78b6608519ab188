"""Which frames of a stream that is decoded front to back are not to be trusted."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import av
import av.video
import numpy as np
from numpy.typing import NDArray


class Damage:
    """Which times damaged packets may have touched: those of their GOP, up to the next keyframe that is shown later.

    Wrong frames come before the error does, so the whole GOP is not to be trusted. Frames come later than their
    packets: it takes a keyframe that is shown after the damaged packet to end the damage, since one that only comes out
    after it may have gone in before it.

    Args:
        lost_places: Ascending positions in the file where something is missing; packets across them are damaged.
        is_late: The decoder tells of an error only when the next packet goes in, as dav1d does behind a first picture.
    """

    def __init__(self, lost_places: Sequence[int] = (), *, is_late: bool = False) -> None:
        self.is_open = False
        self._lost_places = lost_places
        self._position = 0
        self._is_late = is_late
        self._spans: list[tuple[float, float]] = []
        self._start_pts = self._gop_pts = self._next_gop_pts = self._last_pts = self._damaged_pts = -math.inf

    def feed(self, packet: av.Packet[av.video.VideoStream]) -> bool:
        """A packet goes in; whether something is missing between where the last one began and where it does."""
        self._gop_pts = self._next_gop_pts
        begun = self._position
        self._position = max(begun, packet.pos or 0)
        is_across = bisect_left(self._lost_places, begun) < bisect_left(self._lost_places, self._position)
        if is_across:
            self.begin()  # the GOP of the packet before
        if packet.pts is not None:
            self._last_pts = max(self._last_pts, packet.pts)
            if packet.is_keyframe:
                self._next_gop_pts = packet.pts
        if not self._is_late:
            self._gop_pts = self._next_gop_pts
        return is_across

    def begin(self) -> None:
        """The packet that went in last is damaged."""
        self._start_pts = min(self._start_pts, self._gop_pts) if self.is_open else self._gop_pts
        self._damaged_pts = self._last_pts
        self.is_open = True

    def show(self, frame: av.VideoFrame) -> None:
        """A frame comes out."""
        if self.is_open and frame.key_frame and frame.pts is not None and frame.pts > self._damaged_pts:
            self._spans.append((self._start_pts, frame.pts))
            self.is_open = False

    @property
    def was_found(self) -> bool:
        """Whether any packet was damaged; asked at the end."""
        return self.is_open or bool(self._spans)

    def touched(self, pts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool, (n,): which frames that came out before damage was known are of a GOP with damage; asked at the end."""
        spans = [*self._spans, (self._start_pts, math.inf)] if self.is_open else self._spans
        mask = np.zeros(len(pts), np.bool_)
        for start, stop in spans:
            mask |= (start <= pts) & (pts < stop)
        return mask
