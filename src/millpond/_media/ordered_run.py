"""Frames that are asked for one after the other: the decoder goes on where it was, and begins at no keyframe again.

Whoever reads a video in order, frame by frame, would else pay for half of a GOP each time. So a thread keeps the
decoders of the few videos that it reads so, as they are: with what was fed and has not come out. Each frame that comes
must be the next one of the stream; where anything is amiss, frames are decoded from their keyframe, as others.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from millpond._media.containers import reason_of
from millpond._media.contexts import make_context
from millpond._media.nal_units import PacketReading
from millpond._media.packet_run import FramesMissing, PacketRun, Progress, Write
from millpond._media.pictures import PictureMaker
from millpond._media.video_file import VideoFile

MAX_STEP = 8
"""Frames up to so many behind the one before are taken for the next in order: those between are decoded and dropped. So
many may be asked for at once, too: more are decoded as others are, without being held."""

MAX_PLACES, MAX_PIXELS = 4, 4 << 20
"""Videos that a thread keeps its place in, and the pixels of a picture of each, summed up; `contexts.MAX_KEPT_PIXELS`
says what that takes."""

_IDLE_CALLS = 64
"""A place that was not used for so many goes to another video; one in use does not, or all would begin anew."""

_MAX_HELD = 64
"""Frames between the one wanted and the last that must have come; no codec needs more than 16."""


@dataclass(slots=True)
class _Place:
    """Where a decoder is in a video.

    Attributes:
        video: It.
        context: Fed up to `next_row`.
        is_drained: All has come out of it, and it can be fed no more.
        next_row: The packet to be fed next.
        next_frame: The presentation index of the frame that comes out next.
        last_call: Which call of this thread used it.
        ready: Row to frame, of those that came out and may be wanted yet.
    """

    video: weakref.ref[VideoFile]
    context: VideoCodecContext
    next_row: int
    next_frame: int
    last_call: int = 0
    is_drained: bool = False
    ready: dict[int, av.VideoFrame] = field(default_factory=dict)


class _Kept(threading.local):
    """The places of this thread by video. Nobody else ever touches them."""

    def __init__(self) -> None:
        self.places: dict[int, _Place] = {}
        self.calls = 0


_kept = _Kept()


class OrderedRun(PacketRun):
    """Goes on where this thread left off, or begins to."""

    def go_on(self, first_frame: int, maker: PictureMaker, write: Write, progress: Progress) -> None:
        """Feed, and write every frame wanted. After an error nothing that was written counts.

        Args:
            first_frame: The first one wanted, in presentation order.
            maker, write, progress: As for `decode`.

        Raises:
            CorruptMedia: A packet is damaged, or does not decode, or another frame came than the next.
        """
        table = self._file.table
        place, rows = self._begin(first_frame)
        # all frames that packets up to the last one wanted show: one of them that does not come may be a reference
        stop_frame = int(table.frames_shown_up_to[self._last_row]) + 1
        if stop_frame - first_frame > _MAX_HELD:
            raise FramesMissing(f"{self._file.path} shows frames too far out of their order")
        try:
            while True:
                for row, payload in self._reader.packets(rows):
                    for frame in self._fed(place.context, row, payload):
                        self._take_next(frame, place, progress)
                if place.next_frame >= stop_frame:
                    break
                if place.next_row == table.num_rows:
                    place.is_drained = True
                    for frame in place.context.decode(None):
                        self._take_next(frame, place, progress)
                    if place.next_frame < stop_frame:
                        raise FramesMissing(f"{self._file.path} ends before its last frame comes out")
                    break
                rows = self._rows_up_to(place, place.next_row + 1)  # that what the decoder holds may come out
        except av.error.FFmpegError as error:
            raise FramesMissing(f"{self._file.path} does not decode in order: {reason_of(error)}") from error
        for row, position in self._places.items():
            write(position, maker.picture(place.ready[row]))
        passed = int(table.pts[max(self._places, key=table.pts.item)])
        place.ready = {row: frame for row, frame in place.ready.items() if table.pts[row] > passed}
        place.last_call = _kept.calls
        _kept.places[id(self._file)] = place

    def _begin(self, first_frame: int) -> tuple[_Place, NDArray[np.int64]]:
        """Where to go on, and the first packets to feed: those up to the last one wanted."""
        table = self._file.table
        place = _kept.places.pop(id(self._file), None)
        if place is not None and place.video() is self._file:
            is_ahead = 0 <= first_frame - place.next_frame <= MAX_STEP and not place.is_drained
            if is_ahead or int(table.frame_rows[first_frame]) in place.ready:
                return place, self._rows_up_to(place, self._last_row + 1)
        rows = table.feed_rows(*self._gops, last_row=self._last_row)
        key = next(self._reader.packets(rows[:1]))[1]
        context = make_context(table.stream, starts_clean=PacketReading(table.stream).nature(key).is_refresh)
        next_row = max(int(rows[-1]) + 1, table.row_behind_leading(self._gops[0]))
        kept, key_of_place = _kept.places, id(self._file)
        video = weakref.ref(self._file, lambda _: kept.pop(key_of_place, None))  # with the video goes its decoder
        return _Place(video, context, next_row, int(table.gop_starts[self._gops[0]])), rows

    def _rows_up_to(self, place: _Place, stop: int) -> NDArray[np.int64]:
        """The packets to be fed next."""
        rows = np.arange(place.next_row, stop)
        place.next_row = max(place.next_row, stop)
        return rows

    def _take_next(self, frame: av.VideoFrame, place: _Place, progress: Progress) -> None:
        """Take a frame, which must be the next one that the stream shows."""
        self.frames_decoded += 1
        progress()
        table, row = self._file.table, frame.pts
        if row is None or frame.is_corrupt:
            raise FramesMissing(f"{self._file.path}: a frame is damaged")
        if table.is_discard[row]:
            return
        if place.next_frame == table.num_frames or row != table.frame_rows[place.next_frame]:
            raise FramesMissing(f"{self._file.path}: the frame of packet {row} comes out of its order")
        place.next_frame += 1
        place.ready[row] = frame


def may_go_on(file: VideoFile) -> bool:
    """Whether this thread has a place in a video, or there is room for one: else it is read as if not in order."""
    kept, size = _kept.places, _pixels(file)
    _kept.calls += 1
    if (place := kept.get(id(file))) is not None and place.video() is file:
        return True
    for key, place in list(kept.items()):
        if _kept.calls - place.last_call > _IDLE_CALLS:
            del kept[key]
    others = [video for place in kept.values() if (video := place.video()) is not None]
    return len(kept) < MAX_PLACES and size + sum(map(_pixels, others)) <= MAX_PIXELS


def _pixels(file: VideoFile) -> int:
    return file.table.stream.width * file.table.stream.height
