"""Reads samples of a LeRobot dataset in a worker. Imports neither pyarrow (except for pictures in parquet) nor torch.

A reader knows, by a few numbers per episode, where every sample lies; tables and descriptors are opened as they are
needed and closed as others are. A task is 16 to 30 samples of about a millisecond each, so what is done besides
decoding is done with arrays, for all samples of the task at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import FrameWriter, Progress, ReadReport, Sink
from millpond._datasets.columns import map_rows
from millpond._datasets.cut_short import load_table
from millpond._datasets.image_files import ImageFile, open_image_file
from millpond._datasets.open_files import OpenFiles
from millpond._datasets.places import NOWHERE, Places, retold
from millpond._datasets.windows import PAD_SUFFIX, padded_steps, window_positions
from millpond._media.frames import decode_frames
from millpond._media.images import decode_image, resize_image
from millpond._media.sidecars import SidecarStore
from millpond._media.video_file import VideoFile
from millpond._values import FileIdentity
from millpond.errors import CorruptMedia, DataError

MAX_OPEN_FILES = 16
"""Of each kind in one reader. A table of 3,000 rows takes 0.2 MB, a descriptor is one of 1,024."""

Positions = NDArray[np.int64]
Learned = list[tuple[str, int, NDArray[np.int64], NDArray[np.uint32]]]
"""(camera, file, rows, CRC-32s) of packets that were read for the first time."""


@dataclass(frozen=True)
class CameraSource:
    """Where one camera's pictures are.

    Attributes:
        name: The feature.
        in_parquet: PNGs in the data parquets rather than MP4s.
        offsets: int64, (T,), the window.
        paths: Its files.
        identities: The version of each file that the plan was made from; None where it does not open.
        places: Frames in the MP4s, or rows in the parquets.
        picture_size: (height, width) as delivered.
        is_resized: Whether they are resized to that, or must have that size.
        interpolation: For the resize.
    """

    name: str
    in_parquet: bool
    offsets: Positions
    paths: tuple[str, ...]
    identities: tuple[FileIdentity | None, ...]
    places: Places
    picture_size: tuple[int, int]
    is_resized: bool
    interpolation: str


@dataclass(frozen=True)
class TableSource:
    """Where the numbers are.

    Attributes:
        paths: Column files, mapped; empty where the parquet does not read.
        places: Rows in them.
        columns: Name, shape and dtype of one frame's value.
        offsets: Of the columns and cameras with a window, int64 (T,).
    """

    paths: tuple[str, ...]
    places: Places
    columns: tuple[tuple[str, tuple[int, ...], str], ...]
    offsets: dict[str, Positions]


@dataclass(frozen=True)
class _Call:
    """The samples of one call: which episode, which frame of it, how long that is; int64 (L,) each."""

    episodes: Positions
    positions: Positions
    lengths: Positions


class _MappedRows:
    """Rows of a column file; letting go of them unmaps the file."""

    def __init__(self, path: str) -> None:
        self.rows = map_rows(path)

    def close(self) -> None:
        self.rows = np.empty(0)


class LeRobotReader:
    """See `millpond._datasets.base.Reader`. Picklable at any time: files are opened where it arrives.

    Args:
        bounds: int64, (E + 1,), first sample of each episode.
        episode_index: int64, (E,), their numbers.
        cameras: Part -> pictures.
        table: The numbers.
        table_part: The part that also fills the numbers.
        store: Sidecars of sample tables.
    """

    def __init__(
        self,
        bounds: Positions,
        episode_index: Positions,
        cameras: dict[str, CameraSource],
        table: TableSource,
        table_part: str,
        store: SidecarStore,
    ) -> None:
        self._bounds = bounds
        self._episode_index = episode_index
        self._cameras = cameras
        self._table = table
        self._table_part = table_part
        self._store = store
        self._open_anew()

    def _open_anew(self) -> None:
        self._videos: OpenFiles[tuple[str, int], VideoFile] = OpenFiles(MAX_OPEN_FILES)
        self._images: OpenFiles[tuple[str, int], ImageFile] = OpenFiles(MAX_OPEN_FILES)
        self._tables: OpenFiles[int, _MappedRows] = OpenFiles(MAX_OPEN_FILES)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_videos", "_images", "_tables"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_anew()

    def close(self) -> None:
        """Close every file. Idempotent; a later `read` opens them again."""
        for files in (self._videos, self._images, self._tables):
            files.close()

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        """See `Reader.read`."""
        episodes = np.searchsorted(self._bounds, samples, side="right") - 1
        starts = self._bounds[episodes]
        call = _Call(episodes, samples - starts, self._bounds[episodes + 1] - starts)
        report = ReadReport(counters={"samples": len(samples)})
        if part == self._table_part:
            self._read_table(call, sink, report)
            progress()
        if part in self._cameras:
            return self._read_camera(self._cameras[part], call, sink, progress, report)
        return report

    def _read_table(self, call: _Call, sink: Sink, report: ReadReport) -> None:
        table, count = self._table, len(call.episodes)
        own_rows = table.places.at(call.episodes, call.positions)
        bad = own_rows == NOWHERE
        files = table.places.file_of[call.episodes]
        windows: dict[str, Positions] = {}
        for name, offsets in table.offsets.items():
            sink.put(name + PAD_SUFFIX, padded_steps(call.positions, call.lengths, offsets))
        for name, _, _ in table.columns:
            if name in table.offsets:
                positions = window_positions(call.positions, call.lengths, table.offsets[name])
                windows[name] = table.places.at(call.episodes, positions)
                if table.places.scattered:
                    bad |= (windows[name] == NOWHERE).any(axis=1)
        broken = self._mapped(files, bad, report)
        for name, shape, dtype in table.columns:
            rows = windows.get(name, own_rows)
            sink.put(name, self._gather(name, (*rows.shape, *shape), dtype, rows, files, bad | broken))
        self._explain(table.places, call, bad, None, report)
        report.counters["table_rows"] = count

    def _mapped(self, files: Positions, bad: NDArray[np.bool_], report: ReadReport) -> NDArray[np.bool_]:
        """Map the files of some samples; where that fails say so, bool (L,)."""
        broken = np.zeros(len(files), np.bool_)
        for file in np.unique(files[~bad]).tolist():
            try:
                self._rows_of(file)
            except (OSError, ValueError) as error:
                broken |= files == file
                path = self._table.paths[file]
                text = f"the table columns in '{path}' do not map ({error}); open the dataset again"
                report.failures.append((np.flatnonzero(files == file), CorruptMedia(text, path=path)))
        return broken

    def _rows_of(self, file: int) -> NDArray[Any]:
        return self._tables.get(file, lambda: _MappedRows(self._table.paths[file])).rows

    def _gather(
        self, name: str, shape: tuple[int, ...], dtype: str, rows: Positions, files: Positions, bad: NDArray[np.bool_]
    ) -> NDArray[Any]:
        """Values of one column, (L, ...); zeros for bad samples."""
        if not bad.any() and (files == files[0]).all():
            return np.asarray(self._rows_of(int(files[0]))[name][rows])
        values = np.zeros(shape, dtype)
        for file in np.unique(files[~bad]).tolist():
            own = (files == file) & ~bad
            values[own] = self._rows_of(file)[name][rows[own]]
        return values

    def _read_camera(
        self, camera: CameraSource, call: _Call, sink: Sink, progress: Progress, report: ReadReport
    ) -> ReadReport:
        positions = window_positions(call.positions, call.lengths, camera.offsets)
        frames = camera.places.at(call.episodes, positions)
        files = camera.places.file_of[call.episodes]
        bad = (frames == NOWHERE).any(axis=1)
        jobs, window = _unique_frames(frames, files, bad)
        write = sink.frame_writer(camera.name, window)
        learned: Learned = []
        for file, first, wanted in jobs:
            place = write if first == 0 else _shifted(write, first)
            failed = self._read_file(camera, file, wanted, place, progress, report, learned)
            for frames_failed, error in failed:
                hit = np.isin(window, frames_failed + first).any(axis=1) & ~bad
                self._blame(camera.name, call, hit, error, report)
        self._explain(camera.places, call, bad, camera.name, report)
        return ReadReport(report.failures, report.counters, learned or None)

    def _read_file(
        self,
        camera: CameraSource,
        file: int,
        wanted: Positions,
        write: FrameWriter,
        progress: Progress,
        report: ReadReport,
        learned: Learned,
    ) -> list[tuple[Positions, DataError]]:
        """Decode frames of one file; positions in `wanted` that failed."""
        try:
            if camera.in_parquet:
                return self._read_images(camera, file, wanted, write, progress, report)
            return self._decode(camera, file, wanted, write, progress, report, learned)
        except DataError as error:
            return [(np.arange(len(wanted)), error)]

    def _decode(
        self,
        camera: CameraSource,
        file: int,
        wanted: Positions,
        write: FrameWriter,
        progress: Progress,
        report: ReadReport,
        learned: Learned,
    ) -> list[tuple[Positions, DataError]]:
        video = self._videos.get((camera.name, file), lambda: self._open_video(camera, file))
        done = decode_frames(
            video,
            wanted,
            write,
            image_size=camera.picture_size if camera.is_resized else None,
            interpolation=camera.interpolation,
            progress=progress,
        )
        if len(done.rows):
            # The table is this reader's own: from now on it also knows these.
            video.table.crc[done.rows] = done.crcs
            video.table.crc_known[done.rows] = True
            learned.append((camera.name, file, done.rows, done.crcs))
        for name in ("packets_fed", "bytes_read", "frames_decoded"):
            report.counters[name] = report.counters.get(name, 0) + int(getattr(done, name))
        return list(done.failures)

    def _open_video(self, camera: CameraSource, file: int) -> VideoFile:
        path = camera.paths[file]
        table, _ = load_table(path, self._store)
        if table.identity != camera.identities[file]:
            raise CorruptMedia(f"'{path}' changed since the dataset was opened; open the dataset again", path=path)
        return VideoFile(path, table)

    def _read_images(
        self,
        camera: CameraSource,
        file: int,
        wanted: Positions,
        write: FrameWriter,
        progress: Progress,
        report: ReadReport,
    ) -> list[tuple[Positions, DataError]]:
        path, identity = camera.paths[file], camera.identities[file]
        images = self._images.get((camera.name, file), lambda: open_image_file(path, camera.name, identity))
        failures: list[tuple[Positions, DataError]] = []
        for j, row in enumerate(wanted.tolist()):
            try:
                data = images.read(row)
                write(j, _fitted(decode_image(data), camera))
                report.counters["bytes_read"] = report.counters.get("bytes_read", 0) + len(data)
            except DataError as error:
                failures.append((np.asarray([j]), retold(error, f"row {row} of '{path}'", path=path)))
            progress()
        report.counters["frames_decoded"] = report.counters.get("frames_decoded", 0) + len(wanted)
        return failures

    def _explain(
        self, places: Places, call: _Call, bad: NDArray[np.bool_], camera: str | None, report: ReadReport
    ) -> None:
        """Give each sample without a place the problem of its episode."""
        if not bad.any():
            return
        for episode in np.unique(call.episodes[bad]).tolist():
            hit = np.flatnonzero(bad & (call.episodes == episode))
            problem = places.problems.get(episode)
            if problem is None:
                number = int(self._episode_index[episode])
                problem = CorruptMedia(f"episode {number} has no place", episode=number, camera=camera)
            report.failures.append((hit, problem))

    def _blame(self, camera: str, call: _Call, hit: NDArray[np.bool_], error: DataError, report: ReadReport) -> None:
        """Tell samples, by episode, of an error in their frames."""
        for episode in np.unique(call.episodes[hit]).tolist():
            number = int(self._episode_index[episode])
            own = np.flatnonzero(hit & (call.episodes == episode))
            told = retold(error, f"episode {number} of camera {camera!r}", episode=number, camera=camera)
            report.failures.append((own, told))


def _unique_frames(
    frames: Positions, files: Positions, bad: NDArray[np.bool_]
) -> tuple[list[tuple[int, int, Positions]], NDArray[np.int32]]:
    """Each frame once: (file, number of its first unique frame, frames ascending), and the window over the numbers."""
    window = np.full(frames.shape, NOWHERE, np.int32)
    jobs: list[tuple[int, int, Positions]] = []
    first = 0
    for file in dict.fromkeys(files[~bad].tolist()):
        own = ~bad & (files == file)
        wanted, inverse = np.unique(frames[own], return_inverse=True)
        window[own] = inverse.reshape(-1, frames.shape[1]) + first
        jobs.append((file, first, wanted))
        first += len(wanted)
    return jobs, window


def _shifted(write: FrameWriter, first: int) -> Callable[[int, NDArray[np.uint8]], None]:
    def write_shifted(j: int, picture: NDArray[np.uint8]) -> None:
        write(first + j, picture)

    return write_shifted


def _fitted(picture: NDArray[np.uint8], camera: CameraSource) -> NDArray[np.uint8]:
    if picture.shape[:2] == camera.picture_size:
        return picture
    if camera.is_resized:
        return resize_image(picture, camera.picture_size, interpolation=camera.interpolation)
    raise CorruptMedia(
        f"a picture of {picture.shape[0]} x {picture.shape[1]}, where the dataset says {camera.picture_size[0]} x "
        f"{camera.picture_size[1]}; give image_size= to make all pictures one size",
        picture_size=picture.shape[:2],
        expected_size=camera.picture_size,
    )
