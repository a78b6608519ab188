"""What the files under meta/ of a LeRobot v3.0 dataset say, read and checked for form; nothing here is believed yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.dataset_files import DatasetFiles
from millpond._datasets.episode_columns import read_episodes
from millpond._datasets.parquet_files import ParquetReader
from millpond._media.heap import give_back_freed_memory
from millpond._media.sidecars import SidecarStore
from millpond._once import computed_once
from millpond.errors import CorruptMedia, MillpondError, ObjectMissing, UnsupportedFormat

SUPPORTED_VERSION = "v3.0"

_MANY_EPISODES = 100_000
"""Of so many, what reading them has left on the heap is given back: 15 MB of a million."""

_CAMERA_DTYPES = ("video", "image")
_TEXT_DTYPE = "string"
_NUMBER_KINDS = "biuf"


@dataclass(frozen=True, slots=True)
class Feature:
    """One entry of `features` in info.json. `shape` is that of one frame, () for LeRobot's (1,)."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_camera(self) -> bool:
        """Pictures, in MP4 or in parquet."""
        return self.dtype in _CAMERA_DTYPES

    @property
    def is_text(self) -> bool:
        """Strings."""
        return self.dtype == _TEXT_DTYPE

    @property
    def is_number(self) -> bool:
        """An array of numbers."""
        return not self.is_camera and not self.is_text


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the episodes lie in the files of one kind (the data parquets, or the MP4s of one camera).

    Attributes:
        paths: The places of the files that an episode names.
        file_of: int32, (E,), position in `paths`.
        from_seconds: float64, (E,), where the episode starts in its MP4, NaN where it is not told; zeros for parquet.
        to_seconds: float64, (E,), where it ends.
    """

    paths: tuple[str, ...]
    file_of: NDArray[np.int32]
    from_seconds: NDArray[np.float64]
    to_seconds: NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """The metadata of a dataset; E episodes, ascending by `episode_index`.

    Attributes:
        root: The place of the dataset.
        fps: Frames per second.
        features: In the order of info.json.
        episode_index: int64, (E,).
        lengths: int64, (E,), frames.
        from_index: int64, (E,), `dataset_from_index`.
        to_index: int64, (E,), `dataset_to_index`.
        data: The data parquets.
        videos: Camera to its MP4s.
        tasks: Sentence of each task index.
        totals: `total_episodes` and `total_frames` of info.json, where it has them.
    """

    root: str
    fps: float
    features: tuple[Feature, ...]
    episode_index: NDArray[np.int64]
    lengths: NDArray[np.int64]
    from_index: NDArray[np.int64]
    to_index: NDArray[np.int64]
    data: Placement
    videos: dict[str, Placement]
    tasks: Mapping[int, str]
    totals: Mapping[str, int]

    @computed_once
    def cameras(self) -> tuple[Feature, ...]:
        """Features that are pictures."""
        return tuple(feature for feature in self.features if feature.is_camera)


def read_layout(files: DatasetFiles, store: SidecarStore) -> Layout:
    """Read the metadata.

    Args:
        files: Of the dataset.
        store: Where footers of remote files are kept.

    Raises:
        ObjectMissing: No dataset there, or no episodes in it.
        UnsupportedFormat: Another version, or features of a kind that is not read.
        CorruptMedia: A file under meta/ does not parse, or lacks what it must have.
    """
    root = files.root
    info = _read_info(files)
    features = tuple(_feature(name, of, root) for name, of in info["features"].items())
    with ThreadPoolExecutor(1, "millpond-tasks") as pool:  # in a store each file costs some round trips
        tasks = pool.submit(_read_tasks, files, store)
        columns = read_episodes(files, store, [feature.name for feature in features if feature.dtype == "video"])
    videos = {
        feature.name: _placement(files, info["video_path"], columns, feature.name)
        for feature in features
        if feature.dtype == "video"
    }
    layout = Layout(
        root=root,
        fps=float(info["fps"]),
        features=features,
        episode_index=columns["episode_index"],
        lengths=columns["length"],
        from_index=columns["dataset_from_index"],
        to_index=columns["dataset_to_index"],
        data=_placement(files, info["data_path"], columns, None),
        videos=videos,
        tasks=tasks.result(),
        totals={name: int(info[name]) for name in ("total_episodes", "total_frames") if name in info},
    )
    if len(layout.lengths) >= _MANY_EPISODES:
        give_back_freed_memory()
    return layout


def _read_info(files: DatasetFiles) -> dict[str, Any]:
    root, path = files.root, files.place_of("meta/info.json")
    try:
        info = json.loads(files.read(path).decode("utf-8"))
    except ObjectMissing:
        raise ObjectMissing(
            f"no LeRobot dataset at '{root}': there is no meta/info.json; give the folder that holds meta/ and data/",
            path=path,
        ) from None
    except MillpondError:
        raise
    except (OSError, ValueError) as error:
        raise CorruptMedia(f"'{path}' does not read as JSON: {error}", path=path) from error
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if version != SUPPORTED_VERSION:
        remedy = (
            "convert it with `python -m lerobot.datasets.v30.convert_dataset_v21_to_v30`"
            if str(version).startswith("v2")
            else "use a version of millpond that reads it"
        )
        raise UnsupportedFormat(
            f"'{root}' is a LeRobot dataset of version {version!r}; millpond reads {SUPPORTED_VERSION}: {remedy}",
            path=path,
            version=version,
            supported=SUPPORTED_VERSION,
        )
    missing = [name for name in ("fps", "features", "data_path") if not info.get(name)]
    if missing or not isinstance(info["features"], dict):
        raise CorruptMedia(f"'{path}' lacks {', '.join(missing) or 'a usable features table'}", path=path)
    if any(of.get("dtype") == "video" for of in info["features"].values()) and not info.get("video_path"):
        raise CorruptMedia(f"'{path}' has features of video, but no video_path", path=path)
    return {"video_path": None, **info}


def _feature(name: str, of: Mapping[str, Any], root: str) -> Feature:
    dtype, shape = str(of.get("dtype")), tuple(int(size) for size in of.get("shape", ()))
    if dtype in _CAMERA_DTYPES:
        names = of.get("names") or []
        if len(shape) == 3 and list(names[:1]) in (["channels"], ["channel"]):
            shape = (*shape[1:], shape[0])
        return Feature(name, dtype, shape)
    if dtype != _TEXT_DTYPE and _number_dtype(dtype) is None:
        raise UnsupportedFormat(
            f"feature {name!r} of '{root}' has dtype {dtype!r}; millpond reads video, image, string and numpy's "
            "booleans, integers and floats: remove the feature from the dataset",
            path=root,
            feature=name,
            dtype=dtype,
        )
    return Feature(name, dtype, () if shape == (1,) else shape)


def _number_dtype(dtype: str) -> np.dtype[Any] | None:
    try:
        found = np.dtype(dtype)
    except TypeError:
        return None
    return found if found.kind in _NUMBER_KINDS else None


def _placement(files: DatasetFiles, pattern: str, columns: Mapping[str, NDArray[Any]], camera: str | None) -> Placement:
    prefix = "data" if camera is None else f"videos/{camera}"
    unique, file_of = _numbered_files(columns[f"{prefix}/chunk_index"], columns[f"{prefix}/file_index"])
    names = {} if camera is None else {"video_key": camera}
    try:
        named = [pattern.format(chunk_index=c, file_index=f, **names) for c, f in unique]
    except (KeyError, IndexError, ValueError) as error:
        raise CorruptMedia(
            f"'{files.root}/meta/info.json' has an unusable path {pattern!r}: {error}", path=files.root
        ) from error
    zeros = np.broadcast_to(0.0, len(file_of))  # which take no memory
    return Placement(
        tuple(map(files.place_of, named)),
        file_of,
        zeros if camera is None else columns[f"{prefix}/from_timestamp"],
        zeros if camera is None else columns[f"{prefix}/to_timestamp"],
    )


def _numbered_files(
    chunks: NDArray[np.int32], files: NDArray[np.int32]
) -> tuple[list[tuple[int, int]], NDArray[np.int32]]:
    """The different pairs of a chunk and a file, ascending, and which of them each episode has, int32 (E,)."""
    keys = chunks.astype(np.int64) << 32 | files
    starts = np.flatnonzero(np.diff(keys, prepend=-1))  # episodes of a file follow each other: few are left to sort
    unique, file_of = np.unique(keys[starts], return_inverse=True)
    runs = np.diff(starts, append=len(keys))
    return [divmod(key, 1 << 32) for key in unique.tolist()], np.repeat(file_of.reshape(-1).astype(np.int32), runs)


def _read_tasks(files: DatasetFiles, store: SidecarStore) -> dict[int, str]:
    """Sentences by index; they are pandas' index, so their column has one of several names."""
    import pyarrow as pa

    path = files.place_of("meta/tasks.parquet")
    try:
        version = files.version(path)
    except ObjectMissing:
        return {}
    try:
        with ParquetReader(files.open(version, store), path) as parquet:
            table = parquet.read()
        indices = table.column("task_index").to_pylist()
        texts = next(c for c, f in zip(table.columns, table.schema, strict=True) if f.name != "task_index").to_pylist()
        return {int(index): str(text) for index, text in zip(indices, texts, strict=True)}
    except MillpondError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise CorruptMedia(f"'{path}' does not read as a table of tasks: {error}", path=path) from error
