"""What tests say of the datasets of `fixtures_datasets`: names, sizes, how to break them, and who each picture is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from millpond._datasets.base import FrameWriter, Reader, ReadReport
from millpond._datasets.lerobot import LeRobotDataset
from millpond._synth import read_pattern
from millpond.errors import MillpondError

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
SIZE = (96, 128)
LENGTHS = (10, 21, 13, 8, 17)
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
DATA_PATH = "data/chunk-000/file-000.parquet"
FRONT_PATH = f"videos/{FRONT}/chunk-000/file-000.mp4"


class MakeDataset(Protocol):
    """Give a dataset that `write_dataset` makes of these keywords; the defaults are tiny."""

    def __call__(self, **options: Any) -> Path: ...


def open_dataset(root: Path, **options: Any) -> LeRobotDataset:
    """Open with sidecars beside the data, so that nothing is written elsewhere."""
    return LeRobotDataset(root, **{"cache_dir": "beside", **options})


def zero_the_middle(root: Path) -> None:
    """400 bytes amid the media of the first camera's first video."""
    video = root / FRONT_PATH
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + 400] = bytes(400)
    video.write_bytes(data)


def edit_table(path: Path, change: Callable[[dict[str, list[Any]]], object]) -> None:
    """Rewrite a parquet file after `change` had its columns as lists; dtypes stay."""
    table = pq.read_table(path, partitioning=None)
    columns = table.to_pydict()
    change(columns)
    pq.write_table(pa.table(columns, schema=table.schema), path)


class MemorySink:
    """Keeps everything: `pictures[field][j]`, `windows[field]`, `values[field]`."""

    def __init__(self) -> None:
        self.pictures: dict[str, dict[int, NDArray[np.uint8]]] = {}
        self.windows: dict[str, NDArray[np.int32]] = {}
        self.values: dict[str, NDArray[Any]] = {}

    def frame_writer(self, field: str, window: NDArray[np.int32]) -> FrameWriter:
        kept = self.pictures.setdefault(field, {})
        self.windows[field] = window

        def write(j: int, picture: NDArray[np.uint8]) -> None:
            kept[j] = picture.copy()

        return write

    def put(self, field: str, values: NDArray[Any]) -> None:
        self.values[field] = values.copy()

    def shown(self, field: str, position: int, step: int = 0) -> NDArray[np.uint8]:
        """The picture of a sample's step."""
        return self.pictures[field][int(self.windows[field][position, step])]


def read_all(dataset: LeRobotDataset, part: str, segment: int = 16) -> list[tuple[MemorySink, ReadReport]]:
    """Read a part of the whole dataset by segments."""
    reader: Reader = dataset.reader()
    results = []
    for start in range(0, len(dataset), segment):
        sink = MemorySink()
        samples = np.arange(start, min(start + segment, len(dataset)))
        results.append((sink, reader.read(part, samples, sink, lambda: None)))
    reader.close()
    return results


def identities(dataset: LeRobotDataset, camera: str) -> dict[int, tuple[int, int, int]]:
    """Sample to the (episode, camera, frame) that its picture says, for the samples that have not failed."""
    found, start = {}, 0
    for sink, report in read_all(dataset, camera):
        failed = {int(p) for positions, _ in report.failures for p in positions}
        for position in range(len(sink.windows[camera])):
            if position not in failed:
                found[start + position] = read_pattern(sink.shown(camera, position))
        start += len(sink.windows[camera])
    return found


def expected_identities(dataset: LeRobotDataset, number: int) -> dict[int, tuple[int, int, int]]:
    """What every sample of a camera must show."""
    told = (dataset.describe(sample) for sample in range(len(dataset)))
    return {facts["sample"]: (facts["episode_index"], number, facts["frame_index"]) for facts in told}


def failures_of(dataset: LeRobotDataset, part: str) -> dict[int, MillpondError]:
    """Sample to the error it failed with."""
    found: dict[int, MillpondError] = {}
    start = 0
    for sink, report in read_all(dataset, part):
        for positions, error in report.failures:
            found.update({start + int(position): error for position in positions})
        start += len(next(iter(sink.windows.values() or sink.values.values())))
    return found
