"""One run of GOPs through one fresh codec context."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from millpond._media.containers import DECODER_LIMITS, reason_of
from millpond._media.packets import PacketReader
from millpond._media.pictures import PictureMaker
from millpond._media.video_file import VideoFile
from millpond._media.vp9 import shows_again_and_goes_on
from millpond._values import StreamParameters
from millpond.errors import CorruptMedia

Write = Callable[[int, NDArray[np.uint8]], None]
Progress = Callable[[], None]

_H264_IDR = 5


class FramesMissing(CorruptMedia):
    """The frames that came are not exactly the rows owned; a GOP of preroll may help."""


class PacketRun:
    """Decodes the GOPs gop_start up to gop_stop, whole or up to the last frame wanted.

    Attributes:
        new_crcs: Row to CRC-32 of packets read for the first time; true only if `decode` did not raise.
        packets_fed, bytes_read, frames_decoded: What it cost, also if `decode` raised.
    """

    def __init__(
        self,
        file: VideoFile,
        gop_start: int,
        gop_stop: int,
        places: Mapping[int, int],
        stop_frame: int,
        *,
        known_crcs: Mapping[int, int] | None,
    ) -> None:
        self._file = file
        self._gops = (gop_start, gop_stop)
        self._places = places
        self._stop_frame = stop_frame
        self._reader = PacketReader(file, known_crcs)
        self._first_row = int(file.table.feed_rows(gop_start, gop_stop)[0])
        self.packets_fed = 0
        self.frames_decoded = 0

    @property
    def new_crcs(self) -> dict[int, int]:
        """Row to CRC-32 of packets read for the first time."""
        return self._reader.new_crcs

    @property
    def bytes_read(self) -> int:
        """Bytes read from the file, gaps included."""
        return self._reader.bytes_read

    def decode(self, maker: PictureMaker, write: Write, progress: Progress, preroll_gops: int) -> None:
        """Feed, and write every frame wanted. After an error nothing that was written counts.

        Raises:
            FramesMissing: No error came, but not all of the frames either.
            CorruptMedia: A packet is damaged, or does not decode.
        """
        table = self._file.table
        rows = table.feed_rows(*self._gops, preroll_gops, stop_frame=self._stop_frame)
        owned = table.frame_rows[table.gop_starts[self._gops[0]] : self._stop_frame].tolist()
        pending = dict.fromkeys(owned, -1)
        pending.update(self._places)
        context: VideoCodecContext | None = None
        try:
            for row, payload in self._reader.packets(rows):
                if context is None:
                    context = make_context(table.stream, starts_clean=_is_refresh(table.stream, payload))
                packet = av.Packet(len(payload))
                packet.update(payload)  # type: ignore[arg-type]  # any buffer will do; this copies, and pads with zeros
                packet.pts = row
                self._require_plausible(row, payload)
                self.packets_fed += 1
                for frame in context.decode(packet):
                    self._take(frame, pending, maker, write, progress)
            if context is not None:
                for frame in context.decode(None):
                    self._take(frame, pending, maker, write, progress)
        except av.error.FFmpegError as error:
            raise CorruptMedia(
                f"{self._file.path} does not decode: {reason_of(error)}", path=self._file.path.label
            ) from error
        if pending:
            raise FramesMissing(
                f"{len(pending)} of {len(owned)} frames did not come out of {self._file.path}, the first of packet "
                f"{min(pending)}",
                path=self._file.path.label,
            )

    def _require_plausible(self, row: int, payload: memoryview) -> None:
        if self._file.table.stream.codec_name == "vp9" and shows_again_and_goes_on(payload):
            raise CorruptMedia(
                f"packet {row} of {self._file.path} says that it shows an older frame again, and yet has "
                f"{len(payload)} bytes: it is damaged",
                path=self._file.path.label,
                row=row,
            )

    def _take(
        self, frame: av.VideoFrame, pending: dict[int, int], maker: PictureMaker, write: Write, progress: Progress
    ) -> None:
        self.frames_decoded += 1
        row = frame.pts
        if row is None or row < self._first_row:
            progress()
            return  # preroll, which may well lack its own references
        if frame.is_corrupt:
            raise CorruptMedia(f"{self._file.path}: the decoder marks a frame as corrupt", path=self._file.path.label)
        place = pending.pop(row, None)
        if place is not None and place >= 0:
            write(place, maker.picture(frame))
        progress()


def make_context(stream: StreamParameters, *, starts_clean: bool) -> VideoCodecContext:
    """Make a fresh single-threaded decoder that knows all that the container says.

    Args:
        stream: Whose packets it will be fed; no others, ever.
        starts_clean: The first packet refreshes everything, so that any error is a real one.
    """
    context = av.CodecContext.create(stream.codec_name, "r")
    assert isinstance(context, VideoCodecContext)
    if stream.extradata:
        context.extradata = stream.extradata
    context.width, context.height = stream.width, stream.height
    # else up to 55 levels off where the container alone says it
    context.color_range = stream.color_range
    context.colorspace = stream.colorspace
    context.color_primaries = stream.color_primaries
    context.color_trc = stream.color_trc
    context.thread_count = 1
    # "explode" rejects damage, but also good H.264 that starts at an open GOP, whose first references are missing
    context.options = DECODER_LIMITS | ({"err_detect": "explode"} if starts_clean else {})
    return context


def _is_refresh(stream: StreamParameters, payload: memoryview) -> bool:
    if stream.codec_name == "hevc":
        return True
    if stream.codec_name != "h264":
        return False
    return any(payload[start] & 31 == _H264_IDR for start in _nal_starts(stream.extradata, payload))


def _nal_starts(extradata: bytes, payload: memoryview) -> list[int]:
    """Where the NAL units of an H.264 packet begin, behind their length or start code."""
    starts: list[int] = []
    if extradata[:1] == b"\x01" and len(extradata) > 4:
        length_bytes = (extradata[4] & 3) + 1
        position = 0
        while position + length_bytes < len(payload):
            starts.append(position + length_bytes)
            position += length_bytes + int.from_bytes(payload[position : position + length_bytes], "big")
        return starts
    data = bytes(payload)
    position = data.find(b"\0\0\1")
    while 0 <= position < len(data) - 3:
        starts.append(position + 3)
        position = data.find(b"\0\0\1", position + 3)
    return starts
