"""Reads damaged files as users do, in a worker, and holds what came against the whole file: which promise is broken?

The promises: a file gives frames, samples or a DataError; no picture comes under another's row; none comes from a GOP
in which a plain decode meets an error; none differs from the whole file's once the CRC of its packets is known.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

import millpond
from corrupt_clips import RATE, SIDE, Media
from millpond._media.frames import DecodeReport, decode_frames
from millpond._media.index import build_sample_table
from millpond._media.sidecars import file_identity
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond.errors import DataError, UnsupportedFormat

Pictures = dict[int, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Case:
    """A damaged file beside the whole one.

    Attributes:
        media: "video", "audio" or "image".
        path: Of the damaged file.
        whole: Of the file before it was damaged.
    """

    media: Media
    path: Path
    whole: Path


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of one damaged file.

    Attributes:
        outcome: What a user gets: "frames", "samples", "picture", or the name of the error.
        broken: Promises that were broken, in words; none is the aim.
        frames: Of a video with a table of its own and no CRC known: frames that were delivered.
        altered: How many of these differ from the whole file's, without a sign that a decoder or rule could see.
        echoes: How many of the altered show another frame, because their own packet was changed to say so.
    """

    outcome: str
    broken: tuple[str, ...] = ()
    frames: int = 0
    altered: int = 0
    echoes: int = 0


def examine(case: Case) -> Reading:
    """Read a damaged file by the functions that users call; a video also frame by frame. Runs in a worker."""
    try:
        outcome, broken = _as_users_do(case)
    except (DataError, UnsupportedFormat) as error:
        outcome, broken = type(error).__name__, ()
    reading = _examine_video(case) if case.media == "video" else Reading("")
    return dataclasses.replace(reading, outcome=outcome, broken=(*broken, *reading.broken))


def _as_users_do(case: Case) -> tuple[str, tuple[str, ...]]:
    if case.media == "video":
        pictures = millpond.load_video(case.path, num_frames=4, image_size=(SIDE, SIDE))
        return "frames", () if pictures.shape == (4, 3, SIDE, SIDE) else (f"frames of shape {pictures.shape}",)
    if case.media == "image":
        picture = millpond.load_image(case.path.read_bytes())
        return "picture", () if picture.ndim == 3 and picture.shape[0] == 3 else (f"a picture of {picture.shape}",)
    samples = millpond.load_audio(case.path, sampling_rate=RATE)
    return "samples", () if samples.ndim == 1 and np.isfinite(samples).all() else ("samples that are no numbers",)


@dataclass(frozen=True)
class Whole:
    """The undamaged video: its bytes, its table with every CRC, its pictures, and where the packet of each lies."""

    data: bytes
    table: SampleTable
    pictures: tuple[NDArray[np.uint8], ...]
    places: tuple[slice, ...]

    @classmethod
    @functools.lru_cache(maxsize=32)
    def of(cls, path: Path) -> Whole:
        """Read it; once per process."""
        table = build_sample_table(path)
        pictures, report = read(path, table)
        assert not report.failures
        assert len(pictures) == table.num_frames
        if table.backend == "packets":
            table = table.with_crcs(report.rows, report.crcs)
            places = [slice(start, start + size) for start, size in _places(table)]
        else:
            places = _demuxed_places(path)
        return cls(path.read_bytes(), table, tuple(pictures[j] for j in range(table.num_frames)), tuple(places))

    def frames_of(self, table: SampleTable, got: Pictures) -> list[int]:
        """For each frame of another table: which of this one's it must be, by place or else by time; -1: unknown.

        A damaged header may shift the times of all frames, and who else could say? One frame may not be shifted alone.
        """
        by_place = self.table.backend == table.backend == "packets"
        mine, theirs = (_places(one) if by_place else one.frame_seconds.tolist() for one in (self.table, table))
        known: dict[Any, int] = {key: j for j, key in enumerate(mine)}
        own = [known.get(key, -1) for key in theirs]
        if by_place:
            return own
        shifts = Counter(k - own[j] for j in got if own[j] >= 0 for k in self.frames_like(got[j]))
        shift = shifts.most_common(1)[0][0] if shifts else 0
        return [j + shift if j >= 0 and 0 <= j + shift < len(self.pictures) else -1 for j in own]

    def frames_like(self, picture: NDArray[np.uint8]) -> list[int]:
        """Which frames have this picture, bit for bit."""
        return [k for k, mine in enumerate(self.pictures) if np.array_equal(picture, mine)]

    def packet_is_intact(self, frame: int, data: bytes) -> bool:
        """Whether the bytes of a frame's own packet are in a damaged file what they are here."""
        return self.data[self.places[frame]] == data[self.places[frame]]


def _demuxed_places(path: Path) -> list[slice]:
    """For each frame: from where its packet begins to where the next one in the file does."""
    with av.open(str(path)) as container:
        begins = [(packet.pos or 0, packet.pts) for packet in container.demux(video=0) if packet.pts is not None]
    stops = [*(position for position, _ in begins[1:]), path.stat().st_size]
    spans = [(pts, slice(position, stop)) for (position, pts), stop in zip(begins, stops, strict=True)]
    return [place for _, place in sorted(spans, key=lambda span: span[0])]


def _places(table: SampleTable) -> list[tuple[int, int]]:
    rows = table.frame_rows
    return [*zip(table.offset[rows].tolist(), table.size[rows].tolist(), strict=True)]


def read(path: Path, table: SampleTable) -> tuple[Pictures, DecodeReport]:
    """Every frame that is delivered, by index."""
    got: Pictures = {}
    with VideoFile(path, table) as file:
        report = decode_frames(file, np.arange(table.num_frames), lambda j, p: got.__setitem__(j, p.copy()))
    for positions, _ in report.failures:
        for j in positions.tolist():
            got.pop(j, None)
    return got, report


def _examine_video(case: Case) -> Reading:
    """Read all frames with the whole file's table, with its CRCs too, and with a table of its own."""
    whole, data = Whole.of(case.whole), case.path.read_bytes()
    broken = [*_with_table_of_the_whole(case.path, data, whole)]
    try:
        table = build_sample_table(case.path)
    except (DataError, UnsupportedFormat):
        return Reading("", tuple(broken))
    got, _ = read(case.path, table)
    judged = Judged.of(got, table, whole, data)
    broken += [f"{what} (by its own table)" for what in judged.broken]
    return Reading("", tuple(broken), len(got), len(judged.altered), len(judged.echoes))


def _with_table_of_the_whole(path: Path, data: bytes, whole: Whole) -> Iterator[str]:
    """Damage that came after the table was made: known by CRC, or by what decoders and packet rules see."""
    identity = file_identity(path)
    got, _ = read(path, dataclasses.replace(whole.table, identity=identity))
    for j, picture in got.items():
        if not np.array_equal(picture, whole.pictures[j]):
            yield f"frame {j} is altered, though its CRC was known"
    if whole.table.backend == "packets":
        unknown = np.zeros_like(whole.table.crc_known)
        table = dataclasses.replace(whole.table, identity=identity, crc_known=unknown)
        for what in Judged.of(read(path, table)[0], table, whole, data).broken:
            yield f"{what} (by the whole file's table)"


@dataclass(frozen=True, slots=True)
class Judged:
    """Delivered frames, held against the whole file's.

    Attributes:
        altered: Frames with other pixels.
        echoes: Of these, frames that show another one because their own packet was changed, and nothing could tell.
        broken: Frames of another place, and frames of GOPs that do not decode.
    """

    altered: list[int]
    echoes: list[int]
    broken: list[str]

    @classmethod
    def of(cls, got: Pictures, table: SampleTable, whole: Whole, data: bytes) -> Judged:
        """Judge frames that came by this table from this data."""
        own = whole.frames_of(table, got)
        judged = cls([], [], [])
        for j, picture in got.items():
            if own[j] < 0 or not np.array_equal(picture, whole.pictures[own[j]]):
                judged.altered.append(j)
                others = whole.frames_like(picture)
                if others and own[j] >= 0:
                    if whole.packet_is_intact(own[j], data):
                        judged.broken.append(f"frame {own[j]} shows frame {others[0]}")
                    else:
                        judged.echoes.append(j)
        if table.backend == "packets" and judged.altered:
            for gop in np.unique(np.searchsorted(table.gop_starts, judged.altered, side="right") - 1).tolist():
                if all(_meets_error(data, table, table.feed_rows(gop, gop + 1, preroll)) for preroll in (0, 1)):
                    judged.broken.append(f"altered frames of GOP {gop} came, whose packets do not decode")
        return judged


def _meets_error(data: bytes, table: SampleTable, rows: NDArray[np.int64]) -> bool:
    context: Any = av.CodecContext.create(table.stream.codec_name, "r")
    context.extradata = table.stream.extradata or None
    context.thread_count = 1
    payloads = [data[o : o + n] for o, n in zip(table.offset[rows].tolist(), table.size[rows].tolist(), strict=True)]
    try:
        frames = [frame for payload in payloads if payload for frame in context.decode(av.Packet(payload))]
        return any(frame.is_corrupt for frame in [*frames, *context.decode(None)])
    except av.error.FFmpegError:
        return True
