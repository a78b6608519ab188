"""Go through the files of a dataset once, before the first epoch: where each sample lies, and what is wrong."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.columns import ColumnStore
from millpond._datasets.cut_short import frames_beyond_end
from millpond._datasets.dataset_files import DatasetFiles
from millpond._datasets.frame_match import Claims, match_frames
from millpond._datasets.layout import Layout
from millpond._datasets.parquet_files import ParquetReader
from millpond._datasets.places import NOWHERE, Places, Runs
from millpond._datasets.row_check import RowKeys, orphan_rows, place_rows
from millpond._datasets.video_survey import VideoFacts, VideoSurvey, VideoWork
from millpond._media.sidecars import FileVersion, SidecarStore
from millpond._values import FileIdentity, no_progress
from millpond.errors import CorruptMedia, DataError, ObjectMissing, retold

_logger = logging.getLogger("millpond")

Job = Callable[[], None]

MAX_GROUP_ROWS = 256
"""A longer row group would be a segment that mixes badly."""


@dataclass
class TableSurvey:
    """The data parquets.

    Attributes:
        places: Rows of each episode.
        paths: Column file of each parquet, "" where that did not read.
        identities: Of each parquet, None where it is not there.
        task_of: int32, (N,), task index of each sample; 0 where it has no row.
        text_codes: Feature of text -> int32, (N, ...), positions in `texts`.
        texts: Feature of text -> the texts.
        orphans: Episodes that have rows but no place in the metadata.
        row_group: int32, (N,), the row group of each sample, numbered through the files, -1 where it has no row, or
            one of more than `MAX_GROUP_ROWS`; None where the files are at hand, and it does not matter.
        longest_group: Rows of the longest.
        picture_bytes: Camera of pictures in parquet -> bytes of its values, where the files are not at hand.
    """

    places: Places
    paths: list[str]
    identities: list[FileIdentity | None]
    task_of: NDArray[np.int32]
    text_codes: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    orphans: dict[int, DataError] = field(default_factory=dict)
    row_group: NDArray[np.int32] | None = None
    longest_group: int = 0
    picture_bytes: Counter[str] = field(default_factory=Counter)


class Surveyor:
    """Opens each file once, several at a time.

    Args:
        files: Of the dataset.
        layout: All episodes.
        selected: int64, (E,), positions in `layout`, ascending.
        tolerance_s: For times.
        store: Of sidecars.
        on_file: Called after each file, one call at a time.
        picture_sizes: Camera of MP4s to the (height, width) that info.json says, where its files must have that.
    """

    def __init__(
        self,
        files: DatasetFiles,
        layout: Layout,
        selected: NDArray[np.int64],
        tolerance_s: float,
        store: SidecarStore,
        on_file: Callable[[], None],
        picture_sizes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self._files = files
        self._all = layout
        self._selected = selected
        self._layout = select_episodes(layout, selected)
        self._tolerance_s = tolerance_s
        self._store = store
        self._on_file = on_file
        self._picture_sizes = picture_sizes or {}
        self._lock = threading.Lock()
        self._samples = Runs.of(self._layout.lengths)

    def survey(
        self, columns: ColumnStore, cameras: Sequence[str], *, required_size: tuple[int, int] | None
    ) -> tuple[TableSurvey, dict[str, VideoSurvey]]:
        """Match the rows, and the frames of cameras: all files side by side, since in a store most of it is waiting.

        Args:
            columns: Where columns are kept.
            cameras: Features of video.
            required_size: (height, width) that the files of a camera must have; None asks them to be alike.
        """
        table, works = self._new_table(), {camera: self._new_work(camera) for camera in cameras}
        self._run([*self._table_jobs(table, columns), *self._video_jobs(works)])
        return table, {camera: work.result(required_size) for camera, work in works.items()}

    def survey_videos(self, cameras: Sequence[str], *, required_size: tuple[int, int] | None) -> dict[str, VideoSurvey]:
        """Match the frames of cameras alone; arguments as for `survey`."""
        works = {camera: self._new_work(camera) for camera in cameras}
        self._run(self._video_jobs(works))
        return {camera: work.result(required_size) for camera, work in works.items()}

    def _new_work(self, camera: str) -> VideoWork:
        claims = Claims(camera, self._layout.videos[camera], self._layout)
        all_claims = Claims(camera, self._all.videos[camera], self._all)
        work = VideoWork(camera, claims, all_claims, self._samples, self._picture_sizes.get(camera))
        contradictions = work.all_claims.contradictions()
        for episode, position in enumerate(self._selected.tolist()):
            if position in contradictions:
                work.places.fail(episode, contradictions[position])
        return work

    def _video_jobs(self, works: Mapping[str, VideoWork]) -> list[Job]:
        return [
            partial(self._survey_video, work, file)
            for work in works.values()
            for file in np.unique(work.claims.placement.file_of).tolist()
        ]

    def _survey_video(self, work: VideoWork, file: int) -> None:
        episodes = np.flatnonzero(work.claims.placement.file_of == file)
        path = work.claims.placement.paths[file]
        try:
            table, cut_short = self._files.load_table(path, self._store)
        except PermissionError as error:
            work.fail_file(episodes, CorruptMedia(f"'{path}' may not be read: {error}", path=path))
            return
        except DataError as error:
            work.fail_file(episodes, error)
            return
        fit = np.asarray([e for e in episodes.tolist() if e not in work.places.problems], np.int64)
        with self._lock:
            match_frames(work.claims, file, table, fit, self._tolerance_s, work.places)
            if cut_short is not None:
                work.cut(file, frames_beyond_end(table), fit, cut_short)
            work.note(file, table, episodes)

    def _new_table(self) -> TableSurvey:
        placement, count = self._layout.data, len(self._samples.episode)
        survey = TableSurvey(
            Places.nowhere(len(self._selected)),
            [""] * len(placement.paths),
            [None] * len(placement.paths),
            np.zeros(count, np.int32),
        )
        for feature in self._all.features:
            if feature.is_text:
                survey.text_codes[feature.name] = np.zeros((count, *feature.shape), np.int32)
                survey.texts[feature.name] = []
        if self._files.is_remote and self._pictures:
            survey.row_group = np.full(count, NOWHERE, np.int32)
        return survey

    @property
    def _pictures(self) -> list[str]:
        return [feature.name for feature in self._all.features if feature.dtype == "image"]

    def _table_jobs(self, survey: TableSurvey, columns: ColumnStore) -> list[Job]:
        files = np.unique(self._layout.data.file_of).tolist()
        return [partial(self._survey_rows, survey, columns, file) for file in files]

    def _survey_rows(self, survey: TableSurvey, columns: ColumnStore, file: int) -> None:
        path = self._layout.data.paths[file]
        episodes = np.flatnonzero(self._layout.data.file_of == file)
        try:
            version = self._files.version(path)
            survey.identities[file] = version.identity
            found = columns.load(version, no_progress)
            rows = found.rows()
            keys = RowKeys.of(path, rows)
            chunks = None if survey.row_group is None else self._chunks(version)
        except DataError as error:
            for episode in episodes.tolist():
                number = int(self._layout.episode_index[episode])
                survey.places.fail(episode, retold(error, f"episode {number}", episode=number))
            return
        survey.paths[file] = str(found.path)
        orphans = orphan_rows(keys, self._all, file)
        with self._lock:
            place_rows(keys, file, episodes, self._layout, self._tolerance_s, survey.places)
            survey.orphans.update(orphans)
            self._note_words(survey, rows, found.texts, episodes)
            if chunks is not None:
                self._note_chunks(survey, *chunks, episodes)

    def _chunks(self, version: FileVersion) -> tuple[NDArray[np.int64], Counter[str]]:
        """The first row of each row group of a file, and the bytes of its pictures."""
        pictures = self._pictures
        with ParquetReader(self._files.open(version, self._store), version.name) as parquet:
            groups = range(len(parquet.bounds) - 1)
            sizes = {name: sum(len(r) for group in groups for r in parquet.ranges(group, [name])) for name in pictures}
            return parquet.bounds, Counter(sizes)

    def _note_chunks(
        self, survey: TableSurvey, bounds: NDArray[np.int64], sizes: Counter[str], episodes: NDArray[np.int64]
    ) -> None:
        assert survey.row_group is not None
        samples, places = self._placed(survey, episodes)
        lengths, group = np.diff(bounds), np.searchsorted(bounds, places, side="right")
        is_short = lengths[group - 1] <= MAX_GROUP_ROWS  # of the file, whichever of its samples are taken
        survey.row_group[samples[is_short]] = survey.row_group.max(initial=-1) + group[is_short]
        survey.longest_group = max(survey.longest_group, int(lengths.max(initial=0)))
        survey.picture_bytes.update(sizes)

    def _placed(self, survey: TableSurvey, episodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Samples of some episodes that have a row, and their rows."""
        samples = self._samples.samples_of(episodes)
        places = survey.places.at(self._samples.episode[samples], self._samples.position[samples])
        return samples[places != NOWHERE], places[places != NOWHERE]

    def _note_words(self, survey: TableSurvey, rows: NDArray[Any], texts: Any, episodes: NDArray[np.int64]) -> None:
        """Keep what becomes text: the task and the text columns of each sample."""
        samples, places = self._placed(survey, episodes)
        if "task_index" in (rows.dtype.names or ()):
            survey.task_of[samples] = rows["task_index"][places]
            self._refuse_unknown_tasks(survey, samples)
        for name, codes in survey.text_codes.items():
            codes[samples] = rows[name][places] + len(survey.texts[name])
            survey.texts[name].extend(texts[name])

    def _refuse_unknown_tasks(self, survey: TableSurvey, samples: NDArray[np.int64]) -> None:
        if not self._all.tasks:
            return
        unknown = ~np.isin(survey.task_of[samples], list(self._all.tasks))
        episodes, first = np.unique(self._samples.episode[samples[unknown]], return_index=True)
        for episode, task in zip(episodes.tolist(), survey.task_of[samples[unknown][first]].tolist(), strict=True):
            number = int(self._layout.episode_index[episode])
            path = f"{self._layout.root}/meta/tasks.parquet"
            text = f"episode {number} has task {task}, which '{path}' does not list"
            survey.places.fail(episode, CorruptMedia(text, path=path, episode=number))

    def _run(self, jobs: Sequence[Job]) -> None:
        def run(job: Job) -> None:
            job()
            with self._lock:
                self._on_file()

        with ThreadPoolExecutor(min(self._files.threads, max(len(jobs), 1)), "millpond-survey") as pool:
            try:
                for done in [pool.submit(run, job) for job in jobs]:
                    done.result()
            except BaseException:
                self._files.close(for_good=True)  # what is under way ends, and nothing begins
                pool.shutdown(cancel_futures=True)
                self._files.reopen()  # for who tries again
                raise


def select_episodes(layout: Layout, selected: NDArray[np.int64]) -> Layout:
    """The same metadata for some of the episodes; files keep their numbers."""
    if len(selected) == len(layout.lengths):
        return layout

    def of(placement: Any) -> Any:
        arrays = {n: getattr(placement, n)[selected] for n in ("file_of", "from_seconds", "to_seconds")}
        return replace(placement, **arrays)

    names = ("episode_index", "lengths", "from_index", "to_index")
    return replace(
        layout,
        data=of(layout.data),
        videos={camera: of(placement) for camera, placement in layout.videos.items()},
        **{name: getattr(layout, name)[selected] for name in names},
    )


def survey_images(table: TableSurvey, camera: str, num_samples: int) -> VideoSurvey:
    """A camera of PNGs in the data parquets: every picture is a GOP of its own.

    Where they come over a network a row group is one, since it can only be fetched as a whole; unless it is so long
    that no segment could be.
    """
    size_bytes = table.picture_bytes[camera]
    alone = np.ones(num_samples, np.int64)
    facts = VideoFacts(("image",), ("image",), len(table.paths), size_bytes, num_samples, (0, 0), alone)
    gop = np.arange(num_samples, dtype=np.int32)
    if table.row_group is not None:
        gop = np.where(table.row_group < 0, -2 - gop, table.row_group)
        if table.longest_group > MAX_GROUP_ROWS:
            _logger.warning(
                "the pictures of %r lie in row groups of up to %d rows, and a row group is fetched whole for every "
                "segment that needs one of them: write them as video, or in row groups of at most %d rows",
                camera,
                table.longest_group,
                MAX_GROUP_ROWS,
            )
    return VideoSurvey(table.places, table.identities, gop, np.ones(num_samples, np.int32), facts, [])


def missing_totals(layout: Layout) -> list[DataError]:
    """Where info.json counts other than meta/episodes."""
    path = f"{layout.root}/meta/info.json"
    counted = {"total_episodes": len(layout.lengths), "total_frames": int(layout.lengths.sum())}
    return [
        CorruptMedia(f"'{path}' says {name} is {value}, meta/episodes makes it {counted[name]}", path=path)
        for name, value in layout.totals.items()
        if value != counted[name]
    ]


def require_files(files: DatasetFiles, layout: Layout) -> None:
    """Raise where not a single data parquet is there: then it is the wrong folder, or only its metadata was fetched."""
    if not any(files.exists(path) for path in layout.data.paths):
        path = layout.data.paths[0]
        raise ObjectMissing(f"none of the data files of '{layout.root}' is there, the first is '{path}'", path=path)
