"""Frames through a container, front to back: slower, for streams whose packets cannot be cut out.

MPEG-TS, MPEG-4 part 2 and whatever else fails the packet rules. The table is made by decoding the whole stream once,
and keeps the time and a CRC-32 of every picture: so a frame that is found again after a seek is known to be
the one, and a seek that landed badly is noticed. Then the stream is decoded from its beginning.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.container
import av.error
import av.video
import numpy as np

from millpond._media.containers import DECODER_LIMITS, open_container, packets_of
from millpond._media.damage import Damage
from millpond._media.demux import Rows, pick_video_stream, stream_parameters
from millpond._media.display import matrix_from_frame, turn_of
from millpond._media.media_path import MediaPath
from millpond._media.transport_stream import lost_places
from millpond._plan.sample_table import SampleTable
from millpond._values import FileIdentity
from millpond.errors import CorruptMedia

Progress = Callable[[], None]

_SEEK_OVER_FRAMES = 64
"""Fewer frames than this are decoded rather than jumped over: a seek costs about two GOPs of preroll."""


def picture_crc(frame: av.VideoFrame) -> int:
    """CRC-32 of all that is seen of a decoded frame: every plane, without the padding of its lines."""
    crc, line_bytes = 0, _line_bytes(frame.format, frame.width)
    for number, plane in enumerate(frame.planes):
        view: Any = plane  # it has the buffer protocol, which its stub does not say
        if number < len(line_bytes):
            stride = abs(plane.line_size)
            used = min(line_bytes[number], stride)
            view = np.ascontiguousarray(np.ndarray((plane.height, used), np.uint8, buffer=view, strides=(stride, 1)))
        crc = zlib.crc32(view, crc)  # a palette has no lines
    return crc


def _line_bytes(pixels: av.VideoFormat, width: int) -> list[int]:
    """Bytes of a line of each plane that holds pixels."""
    planes = [0] * (1 + max(component.plane for component in pixels.components))
    for component in pixels.components:
        planes[component.plane] += component.width * ((component.bits + 7) // 8)
    return planes if len(planes) > 1 else [(width * pixels.padded_bits_per_pixel + 7) // 8]


def display_matrix(frame: av.VideoFrame) -> bytes | None:
    """The display matrix that a frame carries, as FFmpeg stores it."""
    every: Any = frame.side_data
    for at in range(len(every)):  # by number: iterating gives items in PyAV 18, and types in 19
        side_data = every[at]
        if side_data.type.name == "DISPLAYMATRIX":
            return bytes(side_data)
    return None


def build_container_table(
    path: MediaPath,
    identity: FileIdentity,
    progress: Progress,
    *,
    must_be_sound: bool = False,
    stream_index: int | None = None,
) -> SampleTable:
    """Decode a whole stream and write down when each frame is shown, and what it looks like.

    Frames of a GOP with damage in it are left out: they are no frames of the table.

    Args:
        path: The file.
        identity: Of the file.
        progress: Called per frame.
        must_be_sound: The header is dubious: if some of the stream does not decode, either, it is what is damaged, and
            may give frames other times than their own.
        stream_index: Which stream; None takes the first.

    Raises:
        CorruptMedia: Nothing decodes, or the times of the frames do not ascend.
    """
    rows, crcs, turn = Rows.empty(), [], (0, False)
    with open_container(path) as container:
        stream = pick_video_stream(container, path, stream_index)
        _limit(stream)
        places = lost_places(path.path, progress) if container.format.name == "mpegts" else ()
        damage = Damage(places, is_late=stream.codec_context.codec.name == "libdav1d")
        for frame in _frames(container, stream, damage):
            progress()
            if damage.is_open:
                continue
            if frame.pts is None:
                raise CorruptMedia(f"{path} has a frame without a time; write it as MP4 or MKV", path=path.label)
            if not rows.pts:
                turn = turn_of(matrix_from_frame(display_matrix(frame)))
            rows.pts.append(frame.pts)
            rows.is_key.append(bool(frame.key_frame))
            crcs.append(picture_crc(frame))
        parameters = stream_parameters(stream, turn[0])
    if must_be_sound and damage.was_found:
        raise CorruptMedia(f"the header of {path} tells of other packets than there are", path=path.label)
    sound = np.flatnonzero(~damage.touched(np.array(rows.pts, np.int64))).tolist()
    rows.pts, crcs = [rows.pts[k] for k in sound], [crcs[k] for k in sound]
    rows.is_key = [rows.is_key[k] or k == sound[0] for k in sound]
    rows.dts, rows.offset, rows.size = rows.pts, [-1] * len(crcs), [0] * len(crcs)
    rows.is_discard = [False] * len(crcs)
    if np.any(np.diff(np.array(rows.pts, np.int64)) <= 0):
        raise CorruptMedia(f"the times of the frames of {path} do not ascend; write it as MP4 or MKV", path=path.label)
    table = rows.to_table(parameters, identity, "container", crc=crcs, is_mirrored=turn[1])
    if not table.num_frames:
        raise CorruptMedia(f"no frame of {path} decodes", path=path.label)
    return table


def _limit(stream: av.video.VideoStream) -> None:
    stream.codec_context.thread_count = 1
    stream.codec_context.options = dict(DECODER_LIMITS)


def _frames(
    container: av.container.InputContainer, stream: av.video.VideoStream, damage: Damage
) -> Iterator[av.VideoFrame]:
    """Yield every frame that comes, and keep account of damage."""
    was_bad = False
    for packet in packets_of(container, stream):
        if packet.size == 0 and packet.pts is not None:
            continue  # a frame that was dropped when it was captured; the decoder would take it for the end
        is_bad = damage.feed(packet) or packet.is_corrupt
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            frames, is_bad = [], True
        is_bad = is_bad or any(frame.is_corrupt for frame in frames)
        # where a transport stream lost bytes, the packet behind may have lost its beginning and carries no mark
        if is_bad or was_bad:
            damage.begin()
        was_bad = is_bad
        for frame in frames:
            damage.show(frame)
            yield frame


class ContainerFrames:
    """An open container that gives frames by index; keeps its place, so that going on costs no seek.

    One thread at a time. Whoever made it closes it.
    """

    def __init__(self, path: MediaPath, table: SampleTable) -> None:
        self._path = path
        self._table = table
        self._opened: tuple[av.container.InputContainer, av.video.VideoStream] | None = None
        self._source: Iterator[av.VideoFrame] = iter(())
        self._next_row = 0
        self.frames_decoded = 0

    def close(self) -> None:
        """Close the container. Idempotent; the next frame opens it again."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened, self._source = None, iter(())

    def frame(self, row: int, progress: Progress) -> av.VideoFrame:
        """Get one frame; ascending rows cost one decode each.

        Raises:
            CorruptMedia: The frame does not come as it did when the table was made.
        """
        for approach in (self._go_on, self._seek, self._rewind):
            frame = approach(row, progress)
            if frame is not None:
                return frame
        raise CorruptMedia(
            f"frame {row} of {self._path} does not decode as it did when its sample table was made",
            path=self._path.label,
            row=row,
        )

    def _go_on(self, row: int, progress: Progress) -> av.VideoFrame | None:
        """Decode on, if the frame lies not far ahead."""
        if self._opened is None or not 0 <= row - self._next_row < _SEEK_OVER_FRAMES:
            return None
        return self._decode_to(row, progress)

    def _seek(self, row: int, progress: Progress) -> av.VideoFrame | None:
        """Jump to the keyframe before the frame's own; what comes before the frame wanted is not looked at."""
        keys = np.flatnonzero(self._table.is_key[: row + 1])
        if len(keys) < 3:
            return None
        container, stream = self._open()
        try:
            container.seek(int(self._table.pts[keys[-2]]), stream=stream)
        except av.error.FFmpegError:
            return None
        self._source = _frames(container, stream, Damage())
        return self._decode_to(row, progress)

    def _rewind(self, row: int, progress: Progress) -> av.VideoFrame | None:
        """Decode from the beginning."""
        self.close()
        self._source = _frames(*self._open(), Damage())
        return self._decode_to(row, progress)

    def _open(self) -> tuple[av.container.InputContainer, av.video.VideoStream]:
        if self._opened is None:
            container = open_container(self._path)
            stream = pick_video_stream(container, self._path, self._table.stream.stream_index)
            _limit(stream)
            self._opened = container, stream
        return self._opened

    def _decode_to(self, row: int, progress: Progress) -> av.VideoFrame | None:
        wanted_pts, wanted_crc = int(self._table.pts[row]), int(self._table.crc[row])
        self._next_row = self._table.num_rows  # the place is known again only when the frame was found
        for frame in self._source:
            self.frames_decoded += 1
            progress()
            if frame.pts is None or frame.pts < wanted_pts:
                continue
            if frame.pts == wanted_pts and picture_crc(frame) == wanted_crc:
                self._next_row = row + 1
                return frame
            break
        return None
