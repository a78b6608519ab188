"""From an open container to the rows of a sample table: what every packet is, and what the codec must be told."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av.container
import av.error
import av.video
import numpy as np

from millpond._media.containers import MAX_FRAME_PIXELS, keep_only, packets_of
from millpond._media.holes import may_touch_hole
from millpond._media.media_path import MediaPath
from millpond._media.wholeness import require_within_file
from millpond._plan.sample_table import Backend, SampleTable
from millpond._values import FileIdentity, StreamParameters
from millpond.errors import CorruptMedia

_MAX_BLOCK_HEADER_BYTES = 64
"""Between where a demuxer says that a packet begins and its payload: at most 26 in MKV, 8 in AVI."""


_LEAST_PACKET_BYTES, _SPARE_PACKETS = 4, 10_000
"""Packets of any codec are larger on average. Headers may claim more: each costs us 300 bytes and 5 microseconds."""

Progress = Callable[[], None]

_PACKET_CODECS = ("h264", "hevc", "av1", "vp9")
"""Codecs that are known to keep the packet rules. Others break one each: MPEG-4 part 2 orders frames by itself, VP8 has
packets that show nothing, and clean MJPEG holds long runs of zeros, as a hole in a file does."""


_NEW_PARAMETERS = ("new_extradata", "param_change")


class PacketRulesDoNotFit(Exception):
    """The packets of this stream cannot be cut out by byte ranges; the text says why."""


class IndexDisagrees(PacketRulesDoNotFit):
    """The index tells of other packets than come: frames were dropped when they were captured, or it is damaged."""


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
        crc: Sequence[int | None] | None = None,
        is_mirrored: bool = False,
    ) -> SampleTable:
        """Freeze the columns."""
        crcs: Sequence[int | None] = [None] * len(self.pts) if crc is None else crc
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
            crc=np.array([value or 0 for value in crcs], np.uint32),
            crc_known=np.array([value is not None for value in crcs], np.bool_),
            is_mirrored=is_mirrored,
        )


def pick_video_stream(
    container: av.container.InputContainer, path: MediaPath, stream_index: int | None = None
) -> av.video.VideoStream:
    """The first video stream that is no cover picture, or one by index; the others are told to give no packets."""
    found = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    chosen = next((s for s in found if stream_index in (None, s.index)), None)
    if chosen is None or chosen.codec_context is None:
        which = "" if stream_index is None else f" {stream_index}"
        others = f"; it has {', '.join(str(s.index) for s in found)}" if found and which else ""
        raise CorruptMedia(f"{path} has no video stream{which} that can be decoded{others}", path=path.label)
    keep_only(container, chosen)
    require_picture_size(chosen, path)
    return chosen


def require_packet_codec(stream: av.video.VideoStream) -> None:
    """Raise PacketRulesDoNotFit for a codec that is not known to keep the packet rules."""
    codec = stream.codec_context.codec.canonical_name
    if codec not in _PACKET_CODECS:
        raise PacketRulesDoNotFit(f"the codec {codec!r} is not known to keep the packet rules")


def require_picture_size(stream: av.video.VideoStream, path: MediaPath) -> None:
    """Raise CorruptMedia for pictures larger than any codec's highest level: no room is made for them."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_FRAME_PIXELS:
        raise CorruptMedia(
            f"{path} says that its pictures are {width}x{height}, more than the {MAX_FRAME_PIXELS:,} pixels of the "
            "largest level of H.264, HEVC, VP9 and AV1; it is not decoded",
            path=path.label,
            width=width,
            height=height,
            limit_pixels=MAX_FRAME_PIXELS,
        )


def stream_parameters(stream: av.video.VideoStream, rotation_degrees: int) -> StreamParameters:
    """What the container says of a stream."""
    context = stream.codec_context
    if stream.time_base is None:
        raise PacketRulesDoNotFit("the stream has no time base")
    if context.width < 1 or context.height < 1:
        raise PacketRulesDoNotFit("the header does not say how large the pictures are")
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


def required_pts(packet: av.Packet[av.video.VideoStream]) -> int:
    """The time of a packet that the packet rules fit."""
    if packet.pts is None:
        raise PacketRulesDoNotFit("a packet has no presentation time")
    if packet.size == 0:
        raise IndexDisagrees("a packet is empty, and a decoder would take it for the end")
    for side in packet.iter_sidedata():  # asking by name takes five times as long
        if side.data_type in _NEW_PARAMETERS:
            raise PacketRulesDoNotFit("the codec's parameters change within the stream")
    return packet.pts


def read_indexed_rows(
    container: av.container.InputContainer, stream: av.video.VideoStream, size_bytes: int, path: MediaPath
) -> Rows:
    """Rows of a container whose index tells place, size and keyframe of every packet (MP4, MOV).

    The index is read after the demux, since a fragmented file has but a part of it when it is opened. A truncated file
    ends early without an error: so every entry must have come as a packet.
    """
    rows = Rows.empty()
    packets: list[tuple[int | None, int]] = []
    most_packets = size_bytes // _LEAST_PACKET_BYTES + _SPARE_PACKETS
    for packet in packets_of(container, stream):
        if packet.size == 0 and packet.pts is None:
            continue  # the flush packet at the end
        if len(packets) >= most_packets:
            raise CorruptMedia(
                f"{path} claims more than {most_packets:,} pictures, which a file of {size_bytes:,} bytes cannot hold",
                path=path.label,
                limit_packets=most_packets,
            )
        pts = required_pts(packet)
        rows.pts.append(pts)
        rows.dts.append(pts if packet.dts is None else packet.dts)
        rows.is_discard.append(packet.is_discard)
        packets.append((packet.pos, packet.size))
    entries = list(stream.index_entries)
    # first of all: a file that was cut short must not look like one whose packets break the rules
    require_within_file([entry.pos + entry.size for entry in entries], size_bytes, path)
    if len(entries) != len(packets):
        raise IndexDisagrees(f"the index has {len(entries)} entries for {len(packets)} packets")
    for entry, (position, size) in zip(entries, packets, strict=True):
        if entry.pos != position or entry.size != size:
            raise IndexDisagrees("the index and the packets disagree about place or size")
        rows.offset.append(entry.pos)
        rows.size.append(entry.size)
        # not the packet's own flag: the parser guesses that from the payload, which is zeros here
        rows.is_key.append(entry.is_keyframe)
    return rows


def read_scanned_rows(
    container: av.container.InputContainer, stream: av.video.VideoStream, descriptor: int, progress: Progress
) -> tuple[Rows, list[int | None]]:
    """Rows of a container that must be read as a whole (MKV, WebM, AVI), and the CRC-32 of each packet.

    The CRC is None where the packet may touch a hole: that is looked at when it is read again.

    The place of a packet is where its bytes are found in the file: demuxers say where the block begins, not where the
    payload does, and a payload may be stored in another form than it is given in.
    """
    rows = Rows.empty()
    crcs: list[int | None] = []
    for packet in packets_of(container, stream):
        if packet.size == 0 and packet.pts is None:
            continue
        pts = required_pts(packet)
        payload = bytes(packet)
        place = 0 if packet.pos is None else packet.pos
        stored = os.pread(descriptor, packet.size + _MAX_BLOCK_HEADER_BYTES, place)
        header = stored.find(payload)
        if header < 0:
            raise PacketRulesDoNotFit("a packet is stored in another form than it is decoded in")
        rows.pts.append(pts)
        rows.dts.append(pts if packet.dts is None else packet.dts)
        rows.offset.append(place + header)
        rows.size.append(packet.size)
        rows.is_key.append(packet.is_keyframe)
        rows.is_discard.append(packet.is_discard)
        crcs.append(None if may_touch_hole(payload) else zlib.crc32(payload))
        progress()
    return rows, crcs
