"""One run of GOPs through one codec context that has nothing of another run in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from millpond._media.containers import reason_of
from millpond._media.contexts import lend_context
from millpond._media.nal_units import PacketReading
from millpond._media.packets import PacketReader
from millpond._media.pictures import PictureMaker
from millpond._media.video_file import VideoFile
from millpond._media.vp9 import shows_again_and_goes_on
from millpond.errors import CorruptMedia

Write = Callable[[int, NDArray[np.uint8]], None]
Progress = Callable[[], None]


class FramesMissing(CorruptMedia):
    """The frames that came are not exactly the rows owned; a GOP of preroll may help."""


class PacketRun:
    """Decodes the GOPs gop_start up to gop_stop, up to the last packet that frames wanted need.

    Attributes:
        new_crcs: Row to CRC-32 of packets read for the first time, and fed; true only if `decode` did not raise.
        packets_fed, bytes_read, read_ns, frames_decoded: What it cost, also if `decode` raised.
    """

    def __init__(
        self,
        file: VideoFile,
        gop_start: int,
        gop_stop: int,
        places: Mapping[int, int],
        *,
        known_crcs: Mapping[int, int] | None,
    ) -> None:
        self._file = file
        self._gops = (gop_start, gop_stop)
        self._places = places
        self._last_row = max(places)
        self._reader = PacketReader(file, known_crcs)
        self._first_row = file.table.key_row(gop_start)
        self.packets_fed = 0
        self.frames_decoded = 0
        self._has_fresh_context = True
        self._has_left_out = False

    @property
    def took_shortcut(self) -> bool:
        """Whether the context had been fed before, or packets were left out."""
        return self._has_left_out or not self._has_fresh_context

    @property
    def new_crcs(self) -> dict[int, int]:
        """Row to CRC-32 of packets read for the first time, and fed."""
        return self._reader.new_crcs

    @property
    def bytes_read(self) -> int:
        """Bytes read from the file, gaps included."""
        return self._reader.bytes_read

    @property
    def read_ns(self) -> int:
        """How long that took."""
        return self._reader.read_ns

    def decode(
        self, maker: PictureMaker, write: Write, progress: Progress, preroll_gops: int, *, plainly: bool = False
    ) -> None:
        """Feed, and write every frame wanted. After an error nothing that was written counts.

        Args:
            maker: Of pictures.
            write, progress: As for `decode_frames`.
            preroll_gops: GOPs to start earlier.
            plainly: Every packet to a fresh context: no shortcut.

        Raises:
            FramesMissing: No error came, but not all of the frames either.
            CorruptMedia: A packet is damaged, or does not decode.
        """
        self._has_left_out = False
        self._last_pts: int | None = None
        table = self._file.table
        rows = table.feed_rows(*self._gops, preroll_gops, last_row=self._last_row)
        owned = table.own_rows(*self._gops, self._last_row).tolist()
        pending = dict.fromkeys(owned, -1)
        pending.update(self._places)
        reading = PacketReading(table.stream)
        packets = self._reader.packets(rows)
        first = next(packets)
        starts_clean = reading.nature(first[1]).is_refresh
        try:
            with lend_context(table.stream, starts_clean=starts_clean, fresh=plainly) as lent:
                self._has_fresh_context = lent.is_fresh
                for row, payload in chain((first,), packets):
                    must_be_fed = plainly or row in self._places
                    nature = reading.nature(payload, must_be_fed=must_be_fed)
                    if self._has_left_out and (nature.goes_on or nature.contradicts):
                        raise FramesMissing(f"{self._file.path}: packet {row} goes on with what was left out")
                    if nature.is_disposable and not must_be_fed:
                        self._leave_out(row, pending)
                        continue
                    lent.is_spoilt = lent.is_spoilt or nature.outlasts_flush
                    for frame in self._fed(lent.context, row, payload):
                        self._take(frame, pending, maker, write, progress)
                for frame in lent.context.decode(None):
                    self._take(frame, pending, maker, write, progress)
                self._require_none(pending, len(owned))
        except av.error.FFmpegError as error:
            raise CorruptMedia(
                f"{self._file.path} does not decode: {reason_of(error)}", path=self._file.path.label
            ) from error

    def _leave_out(self, row: int, pending: dict[int, int]) -> None:
        self._has_left_out = True
        pending.pop(row, None)
        self._reader.new_crcs.pop(row, None)  # no decoder has seen that it is whole

    def _fed(self, context: VideoCodecContext, row: int, payload: memoryview) -> list[av.VideoFrame]:
        """The frames that come out when a packet goes in."""
        self._require_plausible(row, payload)
        packet = av.Packet(len(payload))
        packet.update(payload)  # type: ignore[arg-type]  # any buffer will do; this copies, and pads with zeros
        packet.pts = row
        self.packets_fed += 1
        return context.decode(packet)

    def _require_later(self, row: int) -> None:
        """Frames come in the order of their counts in the stream: where one is damaged, a whole decode lacks others."""
        pts = self._file.table.pts.item(row)
        if self._has_left_out and self._last_pts is not None and pts <= self._last_pts:
            raise FramesMissing(f"{self._file.path}: the frame of packet {row} comes out of its order")
        self._last_pts = pts

    def _require_none(self, pending: Mapping[int, int], num_owned: int) -> None:
        if pending:
            raise FramesMissing(
                f"{len(pending)} of {num_owned} frames did not come out of {self._file.path}, the first of packet "
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
        self._require_later(row)
        place = pending.pop(row, None)
        if place is not None and place >= 0:
            write(place, maker.picture(frame))
        progress()
