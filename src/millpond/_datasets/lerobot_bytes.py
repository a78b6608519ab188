"""Which bytes of a LeRobot dataset in a store a task will read: worked out ahead of it, in the training process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import WantedRange
from millpond._datasets.parquet_files import ParquetReader
from millpond._datasets.remote_files import RemoteFiles
from millpond._datasets.sources import Call, CameraSource, Positions, frames_wanted
from millpond._media.frames import bytes_of_frames
from millpond._media.sidecars import FileVersion, SidecarStore
from millpond._plan.requests import plan_requests
from millpond._plan.sample_table import SampleTable
from millpond._sources.limits import FETCH_LIMITS
from millpond._values import ByteRange
from millpond.errors import ClosedError, DataError

MAX_TABLES = 256
"""Sample tables, and footers of parquet files, kept at once; one of 3,000 rows takes 0.2 MB."""

SegmentBytes = Callable[[Positions, Positions], Positions]


class LeRobotBytes:
    """See `ByteSource`.

    Args:
        files: Of the dataset.
        store: Sidecars of sample tables.
        bounds: int64, (E + 1,), first sample of each episode.
        episode_index: int64, (E,), their numbers.
        cameras: Part -> where its pictures are.
        segment_bytes: See `ByteSource.segment_bytes`.
    """

    def __init__(
        self,
        files: RemoteFiles,
        store: SidecarStore,
        bounds: Positions,
        episode_index: Positions,
        cameras: Mapping[str, CameraSource],
        segment_bytes: SegmentBytes,
    ) -> None:
        self._files = files
        self._store = store
        self._bounds = bounds
        self._episode_index = episode_index
        self._cameras = cameras
        self.segment_bytes = segment_bytes
        self._table = lru_cache(MAX_TABLES)(self._load_table)
        self._chunks = lru_cache(MAX_TABLES)(self._load_chunks)

    def wanted(self, parts: Sequence[str], samples: NDArray[np.int64]) -> list[WantedRange]:
        """See `ByteSource`. Of what cannot be worked out nothing is wanted: who reads it says why."""
        call = Call.of(samples, self._bounds, self._episode_index)
        found: list[WantedRange] = []
        for part in parts:
            camera = self._cameras.get(part)
            for file, _, frames in frames_wanted(camera, call).jobs if camera else ():
                try:
                    ranges = self._ranges(part, file, frames)
                except (DataError, ClosedError):  # closed under another loader of the dataset
                    continue
                joined = plan_requests(ranges, FETCH_LIMITS.max_gap_bytes, sys.maxsize).requests
                found += [WantedRange(part, file, one.start, one.stop) for one in joined]
        return found

    def _ranges(self, part: str, file: int, frames: Positions) -> list[ByteRange]:
        if self._cameras[part].in_parquet:
            bounds, chunks = self._chunks(part, file)
            groups = np.unique(np.searchsorted(bounds, frames, side="right") - 1)
            return [one for group in groups.tolist() for one in chunks[group]]
        table = self._table(part, file)
        return bytes_of_frames(table, frames) if table.backend == "packets" else []

    def _load_table(self, part: str, file: int) -> SampleTable:
        version = self._version(part, file)
        return self._files.load_table(version.name, self._store, version.identity)[0]

    def _load_chunks(self, part: str, file: int) -> tuple[Positions, list[list[ByteRange]]]:
        """First row of each row group, and where each keeps its pictures."""
        version = self._version(part, file)
        with ParquetReader(self._files.open(version, self._store), version.name) as parquet:
            groups = range(len(parquet.bounds) - 1)
            return parquet.bounds, [parquet.ranges(group, [self._cameras[part].name]) for group in groups]

    def _version(self, part: str, file: int) -> FileVersion:
        camera = self._cameras[part]
        identity = camera.identities[file]
        if identity is None:
            raise DataError(f"'{camera.paths[file]}' did not open", path=camera.paths[file])
        return FileVersion(camera.paths[file], identity)

    def submit(self, wanted: WantedRange) -> Future[Any]:
        """See `ByteSource`."""
        version = self._version(wanted.part, wanted.file)
        key = self._files.key_of(version.name)
        return self._files.objects.submit(key, ByteRange(wanted.start, wanted.stop), identity=version.identity)

    def forget(self, wanted: WantedRange) -> None:
        """See `ByteSource`."""
        version = self._version(wanted.part, wanted.file)
        key = self._files.key_of(version.name)
        self._files.objects.forget(key, ByteRange(wanted.start, wanted.stop), identity=version.identity)

    def interrupt(self) -> None:
        """See `ByteSource`."""
        self._files.close()

    def counters(self) -> dict[str, int]:
        """See `ByteSource`."""
        return asdict(self._files.objects.statistics)
