"""Reads the pictures of samples: frames of MP4s, or images in parquet, each once per call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import FetchedRange, FrameWriter, Progress, ReadReport, Sink
from millpond._datasets.image_files import ImageFile
from millpond._datasets.open_files import OpenFiles
from millpond._datasets.sinks import drop_picture
from millpond._datasets.sources import Call, CameraSource, Positions, explain, frames_wanted
from millpond._datasets.videos import Videos
from millpond._media.frames import COSTS, decode_frames
from millpond._media.images import decode_image, resize_image
from millpond._media.sidecars import SidecarStore
from millpond.errors import CorruptMedia, DataError, retold, without_frames

Learned = list[tuple[str, int, NDArray[np.int64], NDArray[np.uint32]]]
"""(camera, file, rows, CRC-32s) of packets that were read for the first time."""


class CameraReader:
    """One camera of a dataset.

    Args:
        source: Where its pictures are.
        store: Sidecars of sample tables.
        videos: Where they are open.
        max_open_files: Parquets open at once.
    """

    def __init__(self, source: CameraSource, store: SidecarStore, videos: Videos, max_open_files: int) -> None:
        self._source = source
        self._store = store
        self._videos = videos
        self._images: OpenFiles[int, ImageFile] = OpenFiles(max_open_files)
        self._fetched = videos.fetched

    def close(self) -> None:
        """Close all files. Idempotent; they are opened again as needed."""
        self._videos.close()
        self._images.close()

    def provide(self, ranges: Sequence[FetchedRange]) -> None:
        """What was fetched of its files, in place of what was provided before."""
        self._fetched.provide(ranges)

    def read(self, call: Call, sink: Sink, progress: Progress, report: ReadReport) -> Learned:
        """Decode each frame once, whatever the number of samples that show it."""
        camera = self._source
        wanted_frames = frames_wanted(camera, call)
        window, bad = wanted_frames.window, wanted_frames.bad
        write = sink.frame_writer(camera.name, window)
        if write is drop_picture:
            return []
        self._fetched.progress = progress
        learned: Learned = []
        for file, first, wanted in wanted_frames.jobs:
            place = write if first == 0 else _shifted(write, first)
            failed = self._read_file(file, wanted, place, progress, report, learned)
            for frames_failed, error in failed:
                hit = np.isin(window, frames_failed + first).any(axis=1) & ~bad
                self._blame(call, hit, error, report)
        explain(camera.places, call, bad, camera.name, report)
        report.counters.update(self._fetched.counters)
        self._fetched.counters.clear()
        return learned

    def _read_file(
        self,
        file: int,
        wanted: Positions,
        write: FrameWriter,
        progress: Progress,
        report: ReadReport,
        learned: Learned,
    ) -> list[tuple[Positions, DataError]]:
        """Decode frames of one file; positions in `wanted` that failed."""
        try:
            if self._source.in_parquet:
                return self._read_images(file, wanted, write, progress, report)
            return self._decode(file, wanted, write, progress, report, learned)
        except DataError as error:
            return [(np.arange(len(wanted)), without_frames(error))]

    def _decode(
        self,
        file: int,
        wanted: Positions,
        write: FrameWriter,
        progress: Progress,
        report: ReadReport,
        learned: Learned,
    ) -> list[tuple[Positions, DataError]]:
        with self._videos.lease(file) as video:
            done = decode_frames(
                video,
                wanted,
                write,
                image_size=self._source.picture_size if self._source.is_resized else None,
                interpolation=self._source.interpolation,
                progress=progress,
            )
            if len(done.rows):
                # Whoever reads by this table knows these from now on.
                video.table.crc[done.rows] = done.crcs
                video.table.crc_known[done.rows] = True
                learned.append((self._source.name, file, done.rows, done.crcs))
        for name in COSTS:
            report.counters[name] = report.counters.get(name, 0) + int(getattr(done, name))
        return list(done.failures)

    def _open_images(self, file: int) -> ImageFile:
        version = self._source.version(file)
        opened = self._source.files.open(version, self._store, self._fetched, file)
        return ImageFile(opened, version.name, self._source.name)

    def _read_images(
        self,
        file: int,
        wanted: Positions,
        write: FrameWriter,
        progress: Progress,
        report: ReadReport,
    ) -> list[tuple[Positions, DataError]]:
        path = self._source.paths[file]
        images = self._images.get(file, lambda: self._open_images(file))
        failures: list[tuple[Positions, DataError]] = []
        read_ns = 0
        for j, row in enumerate(wanted.tolist()):
            try:
                began_ns = time.monotonic_ns()
                data = images.read(row)
                read_ns += time.monotonic_ns() - began_ns
                write(j, _fitted(decode_image(data), self._source))
                report.counters["bytes_read"] = report.counters.get("bytes_read", 0) + len(data)
            except DataError as error:
                failures.append((np.asarray([j]), retold(error, f"row {row} of '{path}'", path=path)))
            progress()
        report.counters["frames_decoded"] = report.counters.get("frames_decoded", 0) + len(wanted)
        report.counters["read_ns"] = report.counters.get("read_ns", 0) + read_ns
        return failures

    def _blame(self, call: Call, hit: NDArray[np.bool_], error: DataError, report: ReadReport) -> None:
        """Tell samples, by episode, of an error in their frames."""
        for episode in np.unique(call.episodes[hit]).tolist():
            own = np.flatnonzero(hit & (call.episodes == episode))
            number = int(call.numbers[own[0]])
            told = retold(
                error, f"episode {number} of camera {self._source.name!r}", episode=number, camera=self._source.name
            )
            report.failures.append((own, told))


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
