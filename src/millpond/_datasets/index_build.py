"""Builds an index of episodes: from the headers of the video files, and a dataset's metadata."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.dataset_files import DatasetFiles, LocalFiles
from millpond._datasets.episode_fetcher import split_place
from millpond._datasets.episode_index import EpisodeByteIndex, IndexBuild, IndexFile, IndexParts
from millpond._datasets.episode_spans import ranges_of_frames
from millpond._datasets.index_columns import TableColumns
from millpond._datasets.layout import Layout, read_layout
from millpond._datasets.opening import open_files
from millpond._datasets.places import NOWHERE, Places
from millpond._datasets.selection import selected_cameras, selected_positions
from millpond._datasets.survey import Surveyor, select_episodes
from millpond._media.sidecars import SidecarStore
from millpond._plan.sample_table import SampleTable
from millpond._urls import path_of_file_url, scheme_of
from millpond.errors import CorruptMedia, DataError, retold

FileProgress = Callable[[int, int], None]

_CAMERA = "video"
"""Of single files."""

_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".3gp")
"""By these a URL is known to be a video file and no dataset."""

_ANY_SIZE = (1, 1)
"""Pictures are not resized here: to the surveyor this says that those of different files need not be alike."""

Source = str | os.PathLike[str]


def build_index(
    root_or_url: Source | Sequence[Source],
    *,
    cameras: Sequence[str] | None,
    episodes: Sequence[int] | None,
    storage_options: Mapping[str, Any] | None,
    token: str | None,
    cache_dir: str | os.PathLike[str] | None,
    progress: FileProgress | None,
    workers: int | None,
    fetch_timeout: float,
    tolerance_s: float,
) -> EpisodeByteIndex:
    """See `EpisodeByteIndex.build`."""
    began = time.monotonic()
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    options = {"storage_options": storage_options, "token": token, "cache_dir": cache_dir}
    access = _Access({**options, "fetch_timeout": fetch_timeout}, workers)
    is_one = isinstance(root_or_url, str | os.PathLike)
    sources = [os.fspath(one) for one in cast(Sequence[Source], [root_or_url] if is_one else root_or_url)]
    try:
        if is_one and not _is_file(sources[0]):
            parts, locations = _of_dataset(sources[0], access, cameras, episodes, progress, tolerance_s)
        else:
            if cameras is not None or episodes is not None:
                raise ValueError("cameras= and episodes= are for datasets: of video files, give those that you want")
            parts, locations = _of_files(sources, access, progress)
        built = access.built(len(parts.files), time.monotonic() - began)
    finally:
        access.close()
    return EpisodeByteIndex(parts, locations, storage_options, token, built)


class _Access:
    """Opens places, with the options that a user gave, and remembers what was opened."""

    def __init__(self, options: Mapping[str, Any], workers: int | None) -> None:
        self._options = options
        self._workers = workers
        self._opened: dict[str, tuple[DatasetFiles, SidecarStore]] = {}

    def open(self, location: str) -> tuple[DatasetFiles, SidecarStore]:
        """The files below a place, and the store of their sidecars."""
        if location not in self._opened:
            files, store = open_files(location, **self._options)
            if self._workers is not None:
                files = _with_threads(files, self._workers)
            self._opened[location] = files, store
        return self._opened[location]

    def built(self, num_files: int, seconds: float) -> IndexBuild:
        """What it took."""
        counts = [files.objects.statistics for files, _ in self._opened.values() if hasattr(files, "objects")]
        return IndexBuild(
            num_files=num_files,
            requests=sum(one.requests for one in counts),
            bytes_fetched=sum(one.bytes_fetched for one in counts),
            seconds=seconds,
            sidecars=str(next(iter(self._opened.values()))[1].folder) if self._opened else "",
        )

    def close(self) -> None:
        """End connections."""
        for files, _ in self._opened.values():
            files.close()


def _with_threads(files: DatasetFiles, threads: int) -> DatasetFiles:
    if isinstance(files, LocalFiles):
        return replace(files, threads=threads)
    files.threads = threads  # type: ignore[misc]  # of those in a store it is a plain attribute
    return files


def _is_file(source: str) -> bool:
    scheme = scheme_of(source)
    looks_like_one = source.partition("?")[0].partition("#")[0].lower().endswith(_SUFFIXES)
    if scheme not in (None, "file"):
        return looks_like_one
    path = path_of_file_url(source) if scheme else source
    return os.path.isfile(path) or (looks_like_one and not os.path.isdir(path))


class _KeptTables:
    """The files of a dataset; keeps the sample tables that go through it, which a surveyor looks at and lets go of."""

    def __init__(self, files: DatasetFiles) -> None:
        self._files = files
        self.tables: dict[str, SampleTable] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def load_table(self, place: str, store: SidecarStore) -> tuple[SampleTable, DataError | None]:
        """See `DatasetFiles`."""
        table, cut_short = self._files.load_table(place, store)
        self.tables[place] = table
        return table, cut_short


def _of_dataset(
    root: str,
    access: _Access,
    cameras: Sequence[str] | None,
    episodes: Sequence[int] | None,
    progress: FileProgress | None,
    tolerance_s: float,
) -> tuple[IndexParts, list[str]]:
    files, store = access.open(root)
    whole = read_layout(files, store)
    names = _videos(whole, cameras)
    selected = selected_positions(whole, episodes)
    layout = select_episodes(whole, selected)
    kept = _KeptTables(files)
    total = sum(len(np.unique(layout.videos[name].file_of)) for name in names)
    surveyor = Surveyor(cast(DatasetFiles, kept), whole, selected, tolerance_s, store, _Counter(total, progress))
    surveys = surveyor.survey_videos(names, required_size=_ANY_SIZE)
    parts = _Parts(files.root, names, layout.episode_index)
    for c, name in enumerate(names):
        found = surveys[name].places
        paths = layout.videos[name].paths
        numbers = {
            file: parts.add_file(IndexFile(0, _key_of(files, paths[file]), paths[file]), table)
            for file in np.unique(found.file_of[found.file_of != NOWHERE]).tolist()
            if (table := kept.tables.get(paths[file])) is not None
        }
        for e, length in enumerate(layout.lengths.tolist()):
            _place(parts, found, e, c, length, numbers)
    return parts.result(), [root]


def _place(parts: _Parts, found: Places, e: int, c: int, length: int, numbers: Mapping[int, int]) -> None:
    """One camera of an episode."""
    frames = found.at(np.full(length, e), np.arange(length))
    number = numbers.get(int(found.file_of[e]))
    if number is None or (frames == NOWHERE).any():
        parts.fail(e, c, found.problems.get(e))
    else:
        parts.put(e, c, number, frames)


def _key_of(files: DatasetFiles, place: str) -> str:
    if isinstance(files, LocalFiles):
        return os.path.relpath(place, files.root).replace(os.sep, "/")
    key: str = files.key_of(place)  # type: ignore[attr-defined]  # all that is not local is in a store
    return key


def _videos(layout: Layout, cameras: Sequence[str] | None) -> tuple[str, ...]:
    chosen = selected_cameras(layout, cameras)
    images = [camera.name for camera in chosen if camera.dtype != "video"]
    if cameras is not None and images:
        raise ValueError(f"cameras {images} of '{layout.root}' are pictures in parquet: there is no video to index")
    names = tuple(camera.name for camera in chosen if camera.dtype == "video")
    if not names:
        raise ValueError(f"'{layout.root}' has no videos: there is nothing to index")
    return names


def _of_files(sources: Sequence[str], access: _Access, progress: FileProgress | None) -> tuple[IndexParts, list[str]]:
    if not sources:
        raise ValueError("give at least one video file")
    count = _Counter(len(sources), progress)
    split = [split_place(path_of_file_url(one) if scheme_of(one) == "file" else one) for one in sources]
    locations = list(dict.fromkeys(location for location, _ in split))
    opened = {location: access.open(location) for location in locations}
    threads = max(files.threads for files, _ in opened.values())

    def load(one: tuple[str, str]) -> tuple[IndexFile, SampleTable | DataError]:
        location, key = one
        files, store = opened[location]
        place = files.place_of(key) if key else files.root
        try:
            table, cut_short = files.load_table(place, store)
            outcome: SampleTable | DataError = table if cut_short is None else cut_short
        except DataError as error:
            outcome = error
        except OSError as error:
            outcome = CorruptMedia(f"'{place}' cannot be read: {error.strerror or type(error).__name__}", path=place)
        count()
        return IndexFile(locations.index(location), key, place), outcome

    with ThreadPoolExecutor(min(threads, len(sources)), "millpond-index") as pool:
        loaded = list(pool.map(load, split))
    parts = _Parts("", (_CAMERA,), np.arange(len(sources), dtype=np.int64))
    for e, (file, outcome) in enumerate(loaded):
        if isinstance(outcome, DataError):
            parts.fail(e, 0, outcome)
        else:
            parts.put(e, 0, parts.add_file(file, outcome), np.arange(outcome.num_frames, dtype=np.int64))
    return parts.result(), locations


class _Parts:
    """An index while it is put together."""

    def __init__(self, root: str, video_keys: tuple[str, ...], episodes: NDArray[np.int64]) -> None:
        shape = len(episodes), len(video_keys)
        self._root = root
        self._video_keys = video_keys
        self._episodes = episodes
        self._files: list[IndexFile] = []
        self._tables: list[SampleTable] = []
        self._file_of = np.full(shape, NOWHERE, np.int64)
        self._first, self._lengths = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._spans = np.zeros((*shape, 3), np.int64)
        self._scattered: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._problems: dict[tuple[int, int], DataError] = {}

    def add_file(self, file: IndexFile, table: SampleTable) -> int:
        """Its number."""
        self._files.append(file)
        self._tables.append(table)
        return len(self._files) - 1

    def put(self, e: int, c: int, file: int, frames: NDArray[np.int64]) -> None:
        """Frames of one camera of an episode, ascending."""
        if not len(frames):
            place = self._files[file].place
            self.fail(e, c, CorruptMedia(f"'{place}' shows no frame", path=place))
            return
        ranges = ranges_of_frames(self._tables[file], frames)
        self._file_of[e, c], self._first[e, c], self._lengths[e, c] = file, frames[0], len(frames)
        self._spans[e, c] = ranges[0].start, ranges[-1].stop, sum(map(len, ranges))
        if frames[-1] - frames[0] != len(frames) - 1:
            self._scattered[e, c] = frames

    def fail(self, e: int, c: int, problem: DataError | None) -> None:
        """Nothing of one camera of an episode can be decoded."""
        number, camera = int(self._episodes[e]), self._video_keys[c]
        who = f"episode {number} of camera {camera!r}"
        if problem is None:
            problem = CorruptMedia(f"{who} has no place", episode=number, camera=camera)
        elif "episode" not in problem.facts:
            problem = retold(problem, who, episode=number, camera=camera)
        self._problems[e, c] = problem

    def result(self) -> IndexParts:
        """All of it; raises the first problem if there is nothing else."""
        if (self._file_of == NOWHERE).all():
            raise self._problems[min(self._problems)]
        return IndexParts(
            root=self._root,
            video_keys=self._video_keys,
            episodes=self._episodes,
            files=tuple(self._files),
            tables=TableColumns.of(self._tables),
            file_of=self._file_of,
            first=self._first,
            lengths=self._lengths,
            spans=self._spans,
            scattered=self._scattered,
            problems=self._problems,
        )


class _Counter:
    """Counts files. Any thread; `progress` is called by one at a time."""

    def __init__(self, total: int, progress: FileProgress | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)
