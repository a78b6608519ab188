"""The sample table of a video stream: what every packet is, and which packets show which frames.

*Row* is the index of a packet in decode order, *frame* the index of a picture in presentation order. GOP k owns the
frames with key_k.pts <= pts < key_(k+1).pts. In an open GOP some of them are packets that follow the next key (its
leading packets), so a run of GOPs is also fed the next key and its leading packets, and skips its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from millpond._once import computed_once
from millpond._values import ByteRange, FileIdentity, StreamParameters
from millpond.errors import FrameTimestampError

Backend = Literal["packets", "container"]

DEFAULT_MAX_GAP_BYTES = 65_536
"""Bytes of other streams read along rather than starting another read: about what a local disk gives in 0.1 ms."""


@dataclass(frozen=True, eq=False)
class SampleTable:
    """All packets of one video stream, in decode order; N packets, F frames, G GOPs.

    `backend` says how the frames are reached: "packets" by byte ranges and a bare codec context; "container" by
    decoding front to back, and then a row is a frame in presentation order, without a place in the file, and its
    CRC-32 is that of its decoded picture.

    Attributes:
        stream: What a codec context must know.
        identity: The file that the table was made from.
        backend: How frames are reached.
        pts: int64, (N,), in units of the stream's time base.
        dts: int64, (N,), the same.
        offset: int64, (N,), first byte of the packet in the file; -1 for the container backend.
        size: int32, (N,), bytes of the packet.
        is_key: bool, (N,), decoding may start here.
        is_discard: bool, (N,), decoded but never shown (an edit list cut it off, or it is no frame).
        crc: uint32, (N,), CRC-32 (zlib) of the packet; meaningless where not known.
        crc_known: bool, (N,).
        is_mirrored: The picture is flipped left to right before it is rotated.
    """

    stream: StreamParameters
    identity: FileIdentity
    backend: Backend
    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int32]
    is_key: NDArray[np.bool_]
    is_discard: NDArray[np.bool_]
    crc: NDArray[np.uint32]
    crc_known: NDArray[np.bool_]
    is_mirrored: bool = False

    @property
    def num_rows(self) -> int:
        """N, the number of packets."""
        return len(self.pts)

    @property
    def num_frames(self) -> int:
        """F, the number of frames shown."""
        return len(self.frame_rows)

    @property
    def num_gops(self) -> int:
        """G, the number of GOPs that show at least one frame."""
        return len(self.gop_starts) - 1

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of a picture as delivered, rotation applied."""
        height, width = self.stream.height, self.stream.width
        return (width, height) if self.stream.rotation_degrees % 180 else (height, width)

    @computed_once
    def frame_rows(self) -> NDArray[np.int64]:
        """int64, (F,): the rows that are frames, in presentation order."""
        keys = np.flatnonzero(self.is_key)
        if not len(keys):
            return np.zeros(0, np.int64)
        shown = ~self.is_discard & (self.pts >= self.pts[keys[0]])
        shown[: keys[0]] = False
        rows = np.flatnonzero(shown)
        return rows[np.argsort(self.pts[rows], kind="stable")]

    @computed_once
    def frame_seconds(self) -> NDArray[np.float64]:
        """float64, (F,): presentation time of each frame."""
        numerator, denominator = self.stream.time_base
        return self.pts[self.frame_rows].astype(np.float64) * numerator / denominator

    @computed_once
    def _key_rows(self) -> NDArray[np.int64]:
        """Every key, also of GOPs that show nothing because an edit list cut them off."""
        return np.flatnonzero(self.is_key)

    @computed_once
    def _last_leading_rows(self) -> NDArray[np.int64]:
        """For each key, the last row of its leading packets; the key itself where it has none."""
        last = self._key_rows.copy()
        if len(last):
            rows = np.arange(last[0], self.num_rows)
            owner = np.searchsorted(self._key_rows, rows, side="right") - 1
            is_leading = self.pts[rows] < self.pts[self._key_rows[owner]]
            np.maximum.at(last, owner[is_leading], rows[is_leading])
        return last

    @computed_once
    def _gop_keys(self) -> NDArray[np.int64]:
        """int64, (G,): position in `_key_rows` of each GOP that shows frames."""
        return np.flatnonzero(np.diff(self._frame_bounds) > 0)

    @computed_once
    def _frame_bounds(self) -> NDArray[np.int64]:
        starts = np.searchsorted(self.pts[self.frame_rows], self.pts[self._key_rows])
        return np.append(starts, self.num_frames).astype(np.int64)

    @computed_once
    def gop_starts(self) -> NDArray[np.int64]:
        """int64, (G + 1,): the first frame of each GOP; the last entry is F."""
        return np.append(self._frame_bounds[self._gop_keys], self.num_frames).astype(np.int64)

    @computed_once
    def is_open_gop(self) -> NDArray[np.bool_]:
        """bool, (G,): the GOP's key has leading packets, which show frames of the GOP before."""
        return (self._last_leading_rows > self._key_rows)[self._gop_keys]

    def frames_at(self, seconds: NDArray[np.float64], tolerance_s: float) -> NDArray[np.int64]:
        """Find the frame shown nearest to each time.

        Args:
            seconds: float64, (n,), any order.
            tolerance_s: The greatest distance allowed.

        Returns:
            int64, (n,).

        Raises:
            FrameTimestampError: A time has no frame within the tolerance; nothing is returned for the others.
        """
        seconds = np.asarray(seconds, np.float64)
        if not self.num_frames:
            raise FrameTimestampError("the stream shows no frame at all", num_frames=0)
        after = np.minimum(self.frame_seconds.searchsorted(seconds), self.num_frames - 1)
        before = np.maximum(after - 1, 0)
        later_is_nearer = self.frame_seconds[after] - seconds < seconds - self.frame_seconds[before]
        frames = np.where(later_is_nearer, after, before)
        self._require_within(seconds, frames, tolerance_s)
        return frames.astype(np.int64)

    def _require_within(self, seconds: NDArray[np.float64], frames: NDArray[np.int64], tolerance_s: float) -> None:
        distance = np.abs(self.frame_seconds[frames] - seconds)
        is_within = distance <= tolerance_s  # and not `>`: a time that is not a number is beyond every tolerance
        if not is_within.all():
            beyond = np.flatnonzero(~is_within)
            worst = beyond[np.argmax(np.nan_to_num(distance[beyond], nan=np.inf))]
            raise FrameTimestampError(
                f"no frame within {tolerance_s:g} s of {seconds[worst]:.6f} s: the nearest is frame {frames[worst]} at "
                f"{self.frame_seconds[frames[worst]]:.6f} s, {distance[worst]:g} s away ({len(beyond)} of "
                f"{len(seconds)} times are beyond the tolerance); correct the timestamps or raise tolerance_s",
                seconds=float(seconds[worst]),
                frame=int(frames[worst]),
                distance_seconds=float(distance[worst]),
                tolerance_seconds=tolerance_s,
                positions=beyond.tolist(),
            )

    def key_row(self, gop: int) -> int:
        """The row of the key that a GOP begins with."""
        return int(self._key_rows[self._gop_keys[gop]])

    @computed_once
    def frames_shown_up_to(self) -> NDArray[np.int64]:
        """int64, (N,): the last frame, in presentation order, that packets up to and including each row show; or -1."""
        shown = np.full(self.num_rows, -1, np.int64)
        shown[self.frame_rows] = np.arange(self.num_frames)
        return np.maximum.accumulate(shown)

    def row_behind_leading(self, gop: int) -> int:
        """The first row that is neither the key that a GOP begins with nor a leading packet of it."""
        return int(self._last_leading_rows[self._gop_keys[gop]]) + 1

    def feed_rows(
        self, gop_start: int, gop_stop: int, preroll_gops: int = 0, *, last_row: int | None = None
    ) -> NDArray[np.int64]:
        """List the rows that a fresh codec context must be fed to show the GOPs gop_start up to gop_stop.

        Args:
            gop_start: First GOP.
            gop_stop: One past the last GOP.
            preroll_gops: Start this many keys earlier, as far as there are any.
            last_row: Rows behind it are not wanted: decoding a packet never takes a later one.

        Returns:
            int64, (n,), ascending: decode order.
        """
        first_key = max(int(self._gop_keys[gop_start]) - preroll_gops, 0)
        start = int(self._key_rows[first_key])
        rows = np.arange(start, self._feed_stop(gop_stop, last_row))
        if self._last_leading_rows[first_key] == start:
            return rows
        own_leading = (rows <= self._last_leading_rows[first_key]) & (self.pts[rows] < self.pts[start])
        fed: NDArray[np.int64] = rows[~own_leading]
        return fed

    def own_rows(self, gop_start: int, gop_stop: int, last_row: int) -> NDArray[np.int64]:
        """int64, (n,): the rows of frames of the GOPs gop_start up to gop_stop that are decoded up to `last_row`."""
        rows = self.frame_rows[self.gop_starts[gop_start] : self.gop_starts[gop_stop]]
        own: NDArray[np.int64] = rows[rows <= last_row]
        return own

    def _feed_stop(self, gop_stop: int, last_row: int | None) -> int:
        next_key = int(self._gop_keys[gop_stop - 1]) + 1
        if next_key == len(self._key_rows):
            stop = self.num_rows
        else:
            key_row, last_leading = int(self._key_rows[next_key]), int(self._last_leading_rows[next_key])
            stop = last_leading + 1 if last_leading > key_row else key_row
        return stop if last_row is None else min(stop, last_row + 1)

    def uncuttable_reason(self) -> str | None:
        """Say why GOPs cannot be cut out by the packet rules; None where they can."""
        if not len(self._key_rows):
            return "no keyframe"
        if not self.num_frames:
            return "no frame is shown"
        if np.any(np.diff(self.pts[self._key_rows]) <= 0):
            return "the times of keyframes do not ascend in decode order"
        rows = self.frame_rows
        owner = np.searchsorted(self._frame_bounds, np.arange(len(rows)), side="right") - 1
        last_fed = np.append(self._last_leading_rows[1:], self.num_rows)[owner]
        if np.any(rows < self._key_rows[owner]) or np.any(rows > last_fed):
            return "a frame is decoded outside of its GOP"
        return None

    def byte_ranges(
        self, rows: NDArray[np.int64], *, max_gap_bytes: int = DEFAULT_MAX_GAP_BYTES
    ) -> tuple[ByteRange, ...]:
        """Coalesce the bytes of some rows into few ranges, ascending, none overlapping; gaps up to a limit are read."""
        return tuple(coalesced(self.offset[rows].tolist(), self.size[rows].tolist(), max_gap_bytes))

    def with_crcs(self, rows: NDArray[np.int64], crcs: NDArray[np.uint32]) -> SampleTable:
        """The same table that also knows these CRC-32s; one that was known before is kept."""
        crc, known = self.crc.copy(), self.crc_known.copy()
        new = ~known[rows]
        crc[rows[new]] = crcs[new]
        known[rows] = True
        return replace(self, crc=crc, crc_known=known)


def coalesced(offsets: list[int], sizes: list[int], max_gap_bytes: int = DEFAULT_MAX_GAP_BYTES) -> list[ByteRange]:
    """Few ranges that hold these pieces of a file, ascending, none overlapping; gaps up to a limit are in them.

    Plain numbers: most runs are of a few packets, where arrays take longer than the work itself.
    """
    ranges: list[ByteRange] = []
    start = stop = -1
    for offset, size in sorted(zip(offsets, sizes, strict=True)):
        if stop >= 0 and offset - stop <= max_gap_bytes:
            stop = max(stop, offset + size)
            continue
        if stop >= 0:
            ranges.append(ByteRange(start, stop))
        start, stop = offset, offset + size
    return [*ranges, ByteRange(start, stop)] if stop >= 0 else ranges
