"""From an open container to the rows of a sample table: what every packet is, and what the codec must be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import av
import av.container
import av.error
import av.video
import numpy as np
from numpy.typing import NDArray

from millpond._plan.sample_table import Backend, SampleTable
from millpond._values import FileIdentity, StreamParameters
from millpond.errors import CorruptMedia

Progress = Callable[[], None]


class PacketRulesDoNotFit(Exception):  # noqa: N818 - a reason to use the other backend, not an error
    """The packets of this stream cannot be cut out by byte ranges; the text says why."""


@dataclass(slots=True)
class Rows:
    """The columns of a sample table while they are gathered, in decode order."""

    pts: list[int]
    dts: list[int]
    offset: list[int]
    size: list[int]
    is_key: list[bool]
    is_discard: list[bool]

    @classmethod
    def empty(cls) -> Rows:
        """No rows yet."""
        return cls([], [], [], [], [], [])

    def to_table(
        self,
        stream: StreamParameters,
        identity: FileIdentity,
        backend: Backend,
        *,
        crc: Iterable[int] | None = None,
        is_mirrored: bool = False,
    ) -> SampleTable:
        """Freeze the columns."""
        count = len(self.pts)
        known = crc is not None
        values = np.fromiter(crc, np.uint32, count) if crc is not None else np.zeros(count, np.uint32)
        return SampleTable(
            stream=stream,
            identity=identity,
            backend=backend,
            pts=np.array(self.pts, np.int64),
            dts=np.array(self.dts, np.int64),
            offset=np.array(self.offset, np.int64),
            size=np.array(self.size, np.int32),
            is_key=np.array(self.is_key, np.bool_),
            is_discard=np.array(self.is_discard, np.bool_),
            crc=values,
            crc_known=np.full(count, known, np.bool_),
            is_mirrored=is_mirrored,
        )


def pick_video_stream(container: av.container.InputContainer, path: str) -> av.video.VideoStream:
    """The first video stream that is no cover picture; every other stream is told to give no packets."""
    chosen = None
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            chosen = stream
            break
    if chosen is None or chosen.codec_context is None:
        raise CorruptMedia(f"{path!r} has no video stream that can be decoded", path=path)
    for other in container.streams:
        if other.index != chosen.index:
            other.discard = av.stream.Discard.all
    return chosen


def stream_parameters(stream: av.video.VideoStream, rotation_degrees: int) -> StreamParameters:
    """What the container says of a stream."""
    context = stream.codec_context
    if stream.time_base is None:
        raise PacketRulesDoNotFit("the stream has no time base")
    return StreamParameters(
        # the decoder's own name, not the codec's: "av1" names a decoder that needs special hardware
        codec_name=context.codec.name,
        extradata=context.extradata or b"",
        time_base=(stream.time_base.numerator, stream.time_base.denominator),
        width=context.width,
        height=context.height,
        pix_fmt=context.pix_fmt or "",
        rotation_degrees=rotation_degrees,
        color_range=int(context.color_range),
        colorspace=int(context.colorspace),
        color_primaries=int(context.color_primaries),
        color_trc=int(context.color_trc),
        stream_index=stream.index,
    )


def read_indexed_rows(container: av.container.InputContainer, stream: av.video.VideoStream) -> Rows:
    """Rows of a container whose index tells place, size and keyframe of every packet (MP4, MOV).

    The index is read after the demux, since a fragmented file has but a part of it when it is opened. A truncated file
    ends early without an error: so every entry must have come as a packet.
    """
    rows = Rows.empty()
    packets: list[tuple[int | None, int]] = []
    for packet in container.demux(stream):
        if packet.size == 0 and packet.pts is None:
            continue  # the flush packet at the end
        if packet.pts is None:
            raise PacketRulesDoNotFit("a packet has no presentation time")
        if packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change"):
            raise PacketRulesDoNotFit("the codec's parameters change within the stream")
        rows.pts.append(packet.pts)
        rows.dts.append(packet.pts if packet.dts is None else packet.dts)
        rows.is_discard.append(packet.is_discard)
        packets.append((packet.pos, packet.size))
    entries = list(stream.index_entries)
    if len(entries) != len(packets):
        raise PacketRulesDoNotFit(f"the index has {len(entries)} entries for {len(packets)} packets")
    for entry, (position, size) in zip(entries, packets, strict=True):
        if entry.pos != position or entry.size != size:
            raise PacketRulesDoNotFit("the index and the packets disagree about place or size")
        rows.offset.append(entry.pos)
        rows.size.append(entry.size)
        # not the packet's own flag: the parser guesses that from the payload, which is zeros here
        rows.is_key.append(entry.is_keyframe)
    return rows


def require_within_file(rows: Rows, identity: FileIdentity, path: str) -> None:
    """A file that was cut short has packets beyond its end."""
    stops: NDArray[np.int64] = np.array(rows.offset, np.int64) + np.array(rows.size, np.int64)
    beyond = np.flatnonzero(stops > identity.size_bytes)
    if len(beyond):
        raise CorruptMedia(
            f"{path!r} is cut short: it has {identity.size_bytes} bytes, but {len(beyond)} of its {len(stops)} packets "
            f"lie beyond that (the last ends at byte {stops.max()}); fetch or write the file again",
            path=path,
            size_bytes=identity.size_bytes,
            wanted_bytes=int(stops.max()),
        )
