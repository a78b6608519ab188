"""Reads samples of a LeRobot dataset in a worker. Imports neither pyarrow (except for pictures in parquet) nor torch.

A reader knows, by a few numbers per episode, where every sample lies; tables and descriptors are opened as they are
needed and closed as others are. A task is 16 to 30 samples of about a millisecond each, so what is done besides
decoding is done with arrays, for all samples of the task at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import FetchedRange, Progress, ReadReport, Sink
from millpond._datasets.camera_reader import CameraReader
from millpond._datasets.sources import Call, CameraSource, Positions, TableSource
from millpond._datasets.table_reader import TableReader
from millpond._datasets.videos import OwnVideos, Videos
from millpond._media.sidecars import SidecarStore

MAX_OPEN_FILES = 16
"""Of each kind and camera in one reader. A table of 3,000 rows takes 0.2 MB, a descriptor is one of 1,024."""


class ReaderArguments(NamedTuple):
    """What a reader is made from; picklable.

    Attributes:
        bounds: int64, (E + 1,), first sample of each episode.
        episode_index: int64, (E,), their numbers.
        cameras: Part -> pictures.
        table: The numbers.
        table_part: The part that also fills the numbers.
        store: Sidecars of sample tables.
    """

    bounds: Positions
    episode_index: Positions
    cameras: dict[str, CameraSource]
    table: TableSource
    table_part: str
    store: SidecarStore


class LeRobotReader:
    """See `millpond._datasets.base.Reader`. Picklable at any time: files are opened where it arrives.

    Args:
        arguments: Where everything is.
        videos: Part -> where its videos are open; None: this reader has them to itself. It does not travel.
    """

    def __init__(self, arguments: ReaderArguments, videos: Mapping[str, Videos] | None = None) -> None:
        self._arguments = arguments
        self._bounds, self._episode_index, cameras, table, self._table_part, store = arguments
        self._table = TableReader(table, MAX_OPEN_FILES)
        if videos is None:
            videos = {part: OwnVideos(source, store, MAX_OPEN_FILES) for part, source in cameras.items()}
        self._cameras = {
            part: CameraReader(source, store, videos[part], MAX_OPEN_FILES) for part, source in cameras.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._arguments,)

    def attributes(self, sample: int) -> dict[str, Any]:
        """Nothing: every column of a sample is an array, or is added to the batch."""
        return {}

    def provide(self, ranges: Sequence[FetchedRange]) -> None:
        """See `StreamedReader.provide`."""
        for part, camera in self._cameras.items():
            camera.provide([one for one in ranges if one.wanted.part == part])

    def close(self) -> None:
        """Close every file. Idempotent; a later `read` opens them again."""
        self._table.close()
        for camera in self._cameras.values():
            camera.close()

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        """See `Reader.read`."""
        call = Call.of(samples, self._bounds, self._episode_index)
        report = ReadReport(counters={"samples": len(samples)})
        if part == self._table_part:
            self._table.read(call, sink, report)
            progress()
        if part not in self._cameras:
            return report
        learned = self._cameras[part].read(call, sink, progress, report)
        return ReadReport(report.failures, report.counters, learned or None)
