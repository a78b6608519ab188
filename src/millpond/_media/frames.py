"""Frames by index: which GOPs to decode, what to do where one fails, and what to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import av.error
import numpy as np
from numpy.typing import NDArray

from millpond._media.containers import reason_of
from millpond._media.ordered_run import MAX_STEP, OrderedRun, may_go_on
from millpond._media.packet_run import FramesMissing, PacketRun
from millpond._media.packets import ranges_read
from millpond._media.pictures import PictureMaker
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange, no_progress
from millpond.errors import CorruptMedia, DataError, without_frames

Write = Callable[[int, NDArray[np.uint8]], None]
Progress = Callable[[], None]

_INTRA_REFRESH_CODECS = ("h264", "hevc")
"""Their keyframes may be points of recovery that need the GOP before. A keyframe of AV1 or VP9 refreshes everything:
where one does not decode it is damaged, and references of the GOP before would make wrong frames of it."""


COSTS = ("packets_fed", "bytes_read", "frames_decoded", "read_ns")
"""What a `DecodeReport` counts, of which the reports of tasks are sums."""


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """What became of one call of `decode_frames`.

    Attributes:
        failures: int64 positions j of frames, ascending, with the error that they share. Whatever stands in none was
            written in full; a frame that does stand here may have been written before the damage showed.
        rows: int64, (n,), ascending: packets read well for the first time.
        crcs: uint32, (n,): their CRC-32s.
        packets_fed: Packets given to decoders, those of repeated runs included; not those that no frame wanted needs.
        bytes_read: From the file, gaps included.
        frames_decoded: Frames that came out of decoders, wanted or not.
        read_ns: How long reading the bytes took; not of what decodes through a container.
    """

    failures: tuple[tuple[NDArray[np.int64], DataError], ...]
    rows: NDArray[np.int64]
    crcs: NDArray[np.uint32]
    packets_fed: int
    bytes_read: int
    frames_decoded: int
    read_ns: int


def decode_frames(
    file: VideoFile,
    frames: NDArray[np.int64],
    write: Write,
    *,
    image_size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    progress: Progress = no_progress,
    known_crcs: Mapping[int, int] | None = None,
) -> DecodeReport:
    """Decode some frames front to back, every GOP at most once as long as nothing fails.

    Args:
        file: The video and its table.
        frames: int64, (m,), ascending and unique presentation indices.
        write: `write(j, picture)` takes frames[j]: uint8, (H, W, 3), RGB, upright: a view of memory that is never
            written again, perhaps with gaps between its lines. Where a run of GOPs fails it is decoded again GOP by
            GOP, and frames are written again.
        image_size: (height, width) to resize to; None keeps the stream's own size.
        interpolation: "bilinear", "area" or "bicubic".
        progress: Called per frame decoded.
        known_crcs: Row to CRC-32, for packets whose CRC the table does not know yet.

    Returns:
        The failures and the costs. Bad data never raises.

    Raises:
        ValueError: `frames` or `interpolation` is not what is asked for.
    """
    frames = _checked(frames, file.table.num_frames)
    maker = PictureMaker(file.table, image_size, interpolation)
    job = _Job(file, frames, maker, write, progress, known_crcs)
    if len(frames):
        job.run()
    return job.report()


def decode_chosen(
    file: VideoFile,
    chosen: NDArray[np.int64],
    write: Write,
    *,
    image_size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    progress: Progress = no_progress,
) -> DecodeReport:
    """Decode frames that were chosen by time, some of them perhaps more than once: each is decoded once.

    Args:
        file: The video and its table.
        chosen: int64, (T,), ascending presentation indices.
        write: `write(t, picture)` takes chosen[t], as for `decode_frames`.
        image_size, interpolation, progress: As for `decode_frames`.

    Raises:
        DataError: One of them does not decode.
    """
    frames, starts = np.unique(chosen, return_index=True)
    bounds = [*starts.tolist(), len(chosen)]

    def write_each(frame: int, picture: NDArray[np.uint8]) -> None:
        for step in range(bounds[frame], bounds[frame + 1]):
            write(step, picture)

    report = decode_frames(
        file, frames, write_each, image_size=image_size, interpolation=interpolation, progress=progress
    )
    if report.failures:
        raise report.failures[0][1]
    return report


def bytes_of_frames(table: SampleTable, frames: NDArray[np.int64]) -> list[ByteRange]:
    """What `decode_frames` will read of a file whose backend is "packets", if nothing of it fails.

    Args:
        table: Of the file.
        frames: int64, (m,), ascending and unique presentation indices.
    """
    gops, runs = _runs(table, frames)
    ranges: list[ByteRange] = []
    for first, stop in runs:
        last_row = int(table.frame_rows[frames[first:stop]].max())
        rows = table.feed_rows(gops[first], gops[stop - 1] + 1, last_row=last_row)
        ranges += ranges_read(table, rows)
    return ranges


def _runs(table: SampleTable, frames: NDArray[np.int64]) -> tuple[list[int], list[tuple[int, int]]]:
    """The GOP of each frame, and where each run begins and ends among the frames.

    A run is decoded without a break: frames of one GOP, and of the next where they follow. What else is left of a GOP
    behind the last frame wanted is not decoded.
    """
    gops = (table.gop_starts.searchsorted(frames, side="right") - 1).tolist()
    if not gops or gops[0] == gops[-1]:
        return gops, [(0, len(gops))] if gops else []
    goes_on = (np.diff(frames) == 1).tolist()
    return gops, _stretches(gops, goes_on)


def _stretches(gops: list[int], goes_on: list[bool] | None = None) -> list[tuple[int, int]]:
    """Where each stretch of one GOP begins and ends; of several GOPs where `goes_on` says so of the frame before."""
    breaks = [k for k in range(1, len(gops)) if gops[k] != gops[k - 1] and not (goes_on and goes_on[k - 1])]
    return list(pairwise([0, *breaks, len(gops)]))


def _checked(frames: NDArray[np.int64], num_frames: int) -> NDArray[np.int64]:
    frames = np.asarray(frames, np.int64)
    if frames.ndim != 1 or (len(frames) > 1 and np.any(np.diff(frames) <= 0)):
        raise ValueError("frames must be one row of ascending, unique indices")
    if len(frames) and not (frames[0] >= 0 and frames[-1] < num_frames):
        raise ValueError(f"frames {frames[0]} to {frames[-1]} asked for, the stream has 0 to {num_frames - 1}")
    return frames


class _Job:
    """One call of `decode_frames`."""

    def __init__(
        self,
        file: VideoFile,
        frames: NDArray[np.int64],
        maker: PictureMaker,
        write: Write,
        progress: Progress,
        known_crcs: Mapping[int, int] | None,
    ) -> None:
        self._file = file
        self._frames = frames
        self._maker = maker
        self._write = write
        self._progress = progress
        self._known_crcs = known_crcs
        self._failures: list[tuple[NDArray[np.int64], DataError]] = []
        self._new_crcs: dict[int, int] = {}
        self._costs = [0, 0, 0, 0]
        self._is_in_order = False

    def run(self) -> None:
        """Decode every run of consecutive GOPs that hold frames wanted."""
        try:
            self._file.check_identity()
        except DataError as error:
            self._failures.append((np.arange(len(self._frames)), error))
            return
        gops, runs = _runs(self._file.table, self._frames)
        self._note_order(len(runs))
        for first, stop in runs:
            self._run(gops[first:stop], first)

    def _note_order(self, num_runs: int) -> None:
        """See whether the frames follow those of the call before."""
        file, first = self._file, int(self._frames[0])
        is_next = file.last_frame is not None and 0 < first - file.last_frame <= MAX_STEP
        is_next = is_next and num_runs == 1 and len(self._frames) <= MAX_STEP
        file.calls_in_order = file.calls_in_order + 1 if is_next else 0
        is_fit = file.goes_on and file.table.backend == "packets" and not file.preroll_gops
        self._is_in_order = file.calls_in_order > 1 and is_fit and may_go_on(file)
        file.last_frame = int(self._frames[-1])

    def report(self) -> DecodeReport:
        """Sum up."""
        rows = sorted(self._new_crcs)
        crcs = [self._new_crcs[row] for row in rows]
        return DecodeReport(tuple(self._failures), np.array(rows, np.int64), np.array(crcs, np.uint32), *self._costs)

    def _run(self, gops: list[int], first: int) -> None:
        """Decode consecutive GOPs; `gops` holds the GOP of each frame wanted, the first of which is `first`."""
        error = self._try(gops, first)
        if error is None:
            return
        if gops[0] == gops[-1]:
            self._failures.append((np.arange(first, first + len(gops)), error))
            return
        for start, stop in _stretches(gops):
            self._run(gops[start:stop], first + start)

    def _try(self, gops: list[int], first: int) -> DataError | None:
        """Decode once, and once more with preroll if frames did not come; the error if both fail."""
        preroll_gops = self._file.preroll_gops
        try:
            try:
                self._decode(gops, first, preroll_gops)
            except FramesMissing:
                if preroll_gops or not gops[0] or self._file.table.stream.codec_name not in _INTRA_REFRESH_CODECS:
                    raise
                self._decode(gops, first, 1)
                self._file.preroll_gops = 1
        except DataError as error:
            return without_frames(error)
        return None

    def _decode(self, gops: list[int], first: int, preroll_gops: int) -> None:
        wanted = self._frames[first : first + len(gops)]
        places = dict(zip(self._file.table.frame_rows[wanted].tolist(), range(first, first + len(gops)), strict=True))
        if self._file.table.backend == "container":
            self._decode_from_container(places)
        else:
            self._decode_packets(gops, places, preroll_gops)

    def _decode_from_container(self, places: Mapping[int, int]) -> None:
        source = self._file.container_frames
        before = source.frames_decoded
        try:
            for row, place in places.items():
                self._write(place, self._maker.picture(source.frame(row, self._progress)))
        except av.error.FFmpegError as error:
            raise CorruptMedia(
                f"{self._file.path} does not decode: {reason_of(error)}", path=self._file.path.label
            ) from error
        finally:
            self._costs[2] += source.frames_decoded - before

    def _decode_packets(self, gops: list[int], places: Mapping[int, int], preroll_gops: int) -> None:
        if self._is_in_order:
            self._is_in_order = False  # where that fails it is not tried again
            if self._decode_in_order(gops, places):
                return
        run = PacketRun(self._file, gops[0], gops[-1] + 1, places, known_crcs=self._known_crcs)
        try:
            try:
                run.decode(self._maker, self._write, self._progress, preroll_gops)
            except CorruptMedia:
                if not run.took_shortcut:
                    raise
                run.decode(self._maker, self._write, self._progress, preroll_gops, plainly=True)
            self._new_crcs.update(run.new_crcs)
        finally:
            self._costs[0] += run.packets_fed
            self._costs[1] += run.bytes_read
            self._costs[2] += run.frames_decoded
            self._costs[3] += run.read_ns

    def _decode_in_order(self, gops: list[int], places: Mapping[int, int]) -> bool:
        """Go on where this thread left off, or begin to; whether that went well."""
        run = OrderedRun(self._file, gops[0], gops[-1] + 1, places, known_crcs=self._known_crcs)
        try:
            run.go_on(int(self._frames[0]), self._maker, self._write, self._progress)
            self._new_crcs.update(run.new_crcs)
        except CorruptMedia:
            return False
        finally:
            self._costs[0] += run.packets_fed
            self._costs[1] += run.bytes_read
            self._costs[2] += run.frames_decoded
            self._costs[3] += run.read_ns
        return True
