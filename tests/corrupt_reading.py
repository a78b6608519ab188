"""Reads damaged files as users do, in a worker, and holds what came against the whole file: which promise is broken?

The promises: a file gives frames, samples or a DataError; no picture comes under another's row; none comes from a GOP
in which a plain decode meets an error; none differs from the whole file's once the CRC of its packets is known.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from millpond._media.frames import DecodeReport, decode_frames
from millpond._media.index import build_sample_table
from millpond._media.sidecars import file_identity
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond.errors import DataError, UnsupportedFormat

Pictures = dict[int, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of one damaged file.

    Attributes:
        outcome: "whole", "part" (some frames failed), or the name of the error.
        broken: Promises that were broken, in words; none is the aim.
        frames: Frames delivered on the first reading, with a table of the damaged file and no CRC known.
        altered: How many of these differ from the whole file's: damage that nothing could see.
    """

    outcome: str
    broken: tuple[str, ...] = ()
    frames: int = 0
    altered: int = 0


@dataclass(frozen=True)
class Whole:
    """The undamaged video: its table with every CRC, its pictures."""

    table: SampleTable
    pictures: tuple[NDArray[np.uint8], ...]

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
        return cls(table, tuple(pictures[j] for j in range(table.num_frames)))

    def frames_of(self, table: SampleTable) -> list[int]:
        """For each frame of another table: which of this one's it must be, by place or else by time; -1: unknown."""
        by_place = self.table.backend == table.backend == "packets"
        mine, theirs = (_places(one) if by_place else one.frame_seconds.tolist() for one in (self.table, table))
        known: dict[Any, int] = {key: j for j, key in enumerate(mine)}
        return [known.get(key, -1) for key in theirs]


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


def examine_video(path: Path, whole_path: Path) -> Reading:
    """Read a damaged video with the whole file's table, with its CRCs too, and with a table of its own."""
    whole = Whole.of(whole_path)
    broken = [*_with_table_of_the_whole(path, whole)]
    try:
        table = build_sample_table(path)
    except (DataError, UnsupportedFormat) as error:
        return Reading(type(error).__name__, tuple(broken))
    got, _ = read(path, table)
    own = whole.frames_of(table)
    broken += _misplaced(got, own, whole, "by its own table")
    broken += _undetected(path, table, got, own, whole, "by its own table")
    altered = sum(own[j] < 0 or not np.array_equal(picture, whole.pictures[own[j]]) for j, picture in got.items())
    is_whole = len(got) == table.num_frames == len(whole.pictures)
    return Reading("whole" if is_whole else "part" if got else "no frame", tuple(broken), len(got), altered)


def _with_table_of_the_whole(path: Path, whole: Whole) -> Iterator[str]:
    """Damage that came after the table was made: known by CRC, or by what decoders and packet rules see."""
    identity = file_identity(path)
    got, _ = read(path, dataclasses.replace(whole.table, identity=identity))
    for j, picture in got.items():
        if not np.array_equal(picture, whole.pictures[j]):
            yield f"frame {j} is altered, though its CRC was known"
    if whole.table.backend == "packets":
        unknown = np.zeros_like(whole.table.crc_known)
        table = dataclasses.replace(whole.table, identity=identity, crc_known=unknown)
        got, _ = read(path, table)
        own = [*range(table.num_frames)]
        yield from _misplaced(got, own, whole, "by the whole file's table")
        yield from _undetected(path, table, got, own, whole, "by the whole file's table")


def _misplaced(got: Pictures, own: list[int], whole: Whole, how: str) -> Iterator[str]:
    """Pictures of another frame, bit for bit."""
    for j, picture in got.items():
        if own[j] >= 0 and not np.array_equal(picture, whole.pictures[own[j]]):
            for other, theirs in enumerate(whole.pictures):
                if np.array_equal(picture, theirs):
                    yield f"frame {own[j]} shows frame {other} ({how})"


def _undetected(path: Path, table: SampleTable, got: Pictures, own: list[int], whole: Whole, how: str) -> Iterator[str]:
    """Altered pictures of a GOP that by itself does not decode."""
    altered = [j for j in got if own[j] < 0 or not np.array_equal(got[j], whole.pictures[own[j]])]
    if table.backend == "packets" and altered:
        data = path.read_bytes()
        for gop in np.unique(np.searchsorted(table.gop_starts, altered, side="right") - 1).tolist():
            if all(_meets_error(data, table, table.feed_rows(gop, gop + 1, preroll)) for preroll in (0, 1)):
                yield f"altered frames of GOP {gop} came, whose packets do not decode ({how})"


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
