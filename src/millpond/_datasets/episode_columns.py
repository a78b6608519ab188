"""The columns of meta/episodes that place an episode: of a million of them too, in seconds and little more memory."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.arrow_numbers import numbers_of
from millpond._datasets.dataset_files import DatasetFiles
from millpond._datasets.parquet_files import ParquetReader, readable_parquet
from millpond._media.sidecars import SidecarStore
from millpond.errors import CorruptMedia, ObjectMissing

Columns = dict[str, NDArray[Any]]

_DTYPES = {
    "episode_index": "i8",
    "length": "i8",
    "dataset_from_index": "i8",
    "dataset_to_index": "i8",
    "data/chunk_index": "i4",
    "data/file_index": "i4",
}
_VIDEO_DTYPES = {"chunk_index": "i4", "file_index": "i4", "from_timestamp": "f8", "to_timestamp": "f8"}

_LOCAL_THREADS = 2
"""There is no waiting on a disk of this machine, and each thread holds what is read of a file."""

_MANY_GROUPS = 64
"""Of a file with more row groups the columns are kept as a sidecar. LeRobot's recorder writes a group for every ten
episodes, each of a hundred columns, and then it is the footer that takes the time: 1 s, and 0.5 GB, for 40,000."""


def read_episodes(files: DatasetFiles, store: SidecarStore, videos: Sequence[str]) -> Columns:
    """Read them, over all files, ascending by `episode_index`.

    Args:
        files: Of the dataset.
        store: Where footers of remote files are kept.
        videos: Cameras of MP4s.

    Returns:
        Column to (E,): int32 those of chunks and files, float64 times, int64 all else. Equal ones are the same array.

    Raises:
        ObjectMissing: There is no such file.
        CorruptMedia: One does not parse, lacks a column, or has in it what cannot be; or an episode is listed twice.
    """
    dtypes = _DTYPES | {f"videos/{video}/{name}": dtype for video in videos for name, dtype in _VIDEO_DTYPES.items()}
    paths = files.below("meta/episodes", ".parquet")
    if not paths:
        folder = files.place_of("meta/episodes")
        raise ObjectMissing(f"no parquet file under '{folder}'", path=folder)
    threads = files.threads if files.is_remote else _LOCAL_THREADS
    columns = _Growing(dtypes)
    with ThreadPoolExecutor(min(threads, len(paths)), "millpond-episodes") as pool:
        for part in pool.map(lambda path: _read_file(files, store, dtypes, path), paths):
            columns.append(part)
    found = columns.taken()
    _sort(found)
    _refuse_duplicates(found["episode_index"], files.root)
    _keep_equal_once(found)
    return found


class _Growing:
    """Columns that are put together of parts, never twice in memory: pages move.

    They grow by an eighth: numpy fills what is new with zeros, so that memory is taken before there is anything for it.
    """

    def __init__(self, dtypes: dict[str, str]) -> None:
        self._columns: Columns = {name: np.empty(0, dtype) for name, dtype in dtypes.items()}
        self._count = 0

    def append(self, part: Columns) -> None:
        start = self._count
        self._count += len(part["length"])
        for name, values in self._columns.items():
            if self._count > len(values):
                values.resize(self._count + self._count // 8, refcheck=False)
            values[start : self._count] = part[name]

    def taken(self) -> Columns:
        for values in self._columns.values():
            values.resize(self._count, refcheck=False)
        return self._columns


def _read_file(files: DatasetFiles, store: SidecarStore, dtypes: dict[str, str], path: str) -> Columns:
    version = files.version(path)
    kind = f"episodes{zlib.crc32(json.dumps(dtypes).encode()):08x}"
    kept = store.load(version, kind)
    if kept is not None:
        return {name: kept.arrays[name] for name in dtypes}
    import pyarrow as pa

    with ParquetReader(files.open(version, store), path) as parquet, readable_parquet(path):
        table = parquet.read(list(dtypes))
        found = {name: _checked_column(table, name, dtype, path) for name, dtype in dtypes.items()}
    if len(parquet.bounds) > _MANY_GROUPS:
        try:
            store.save(version, kind, found, {})
        except OSError as error:
            store.warn_once("columns of meta/episodes", error)
    pa.default_memory_pool().release_unused()  # else each thread keeps what it once needed
    return found


def _checked_column(table: Any, name: str, dtype: str, path: str) -> NDArray[Any]:
    if name not in table.column_names:
        raise CorruptMedia(f"'{path}' has no column {name!r}", path=path, column=name)
    column = table.column(name)
    if dtype == "f8":
        return numbers_of(column).astype(dtype, copy=False)
    if column.null_count:
        raise CorruptMedia(f"'{path}' has {column.null_count} empty values in column {name!r}", path=path, column=name)
    values = numbers_of(column).astype("i8", copy=False)
    is_bad = (values < (1 if name == "length" else 0)) | (values > np.iinfo(dtype).max)
    if is_bad.any():
        raise CorruptMedia(
            f"'{path}' has {values[is_bad][0]} in column {name!r}, row {int(np.argmax(is_bad))}",
            path=path,
            column=name,
        )
    return values.astype(dtype, copy=False)


def _sort(columns: Columns) -> None:
    """Have episodes ascend, in place; as they are written they do."""
    numbers = columns["episode_index"]
    if (numbers[1:] < numbers[:-1]).any():
        order = np.argsort(numbers, kind="stable")
        for name, values in columns.items():
            columns[name] = values[order]


def _keep_equal_once(columns: Columns) -> None:
    """Have columns that are equal be one array: most cameras lie in their files alike."""
    different: dict[str, list[NDArray[Any]]] = {}
    for name, values in columns.items():
        known = different.setdefault(name.rpartition("/")[2], [])
        same = next((one for one in known if np.array_equal(one, values)), None)
        if same is None:
            known.append(values)
        else:
            columns[name] = same
    starts, stops = columns["dataset_from_index"], columns["dataset_to_index"]
    if np.array_equal(starts[1:], stops[:-1]):  # episodes follow each other: what is one's end is the next one's start
        bounds = np.append(starts, stops[-1:])
        columns["dataset_from_index"], columns["dataset_to_index"] = bounds[:-1], bounds[1:]


def _refuse_duplicates(episode_index: NDArray[np.int64], root: str) -> None:
    twice = episode_index[1:][episode_index[1:] == episode_index[:-1]]
    if len(twice):
        raise CorruptMedia(
            f"'{root}/meta/episodes' lists episode {twice[0]} more than once",
            path=f"{root}/meta/episodes",
            episode=int(twice[0]),
        )
