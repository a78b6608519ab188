"""What the files of a LeRobot dataset turned out to be, as one value; and what finds it out once it is needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.columns import ColumnStore
from millpond._datasets.dataset_files import DatasetFiles
from millpond._datasets.layout import Feature, Layout
from millpond._datasets.survey import Surveyor, TableSurvey, select_episodes, survey_images
from millpond._datasets.video_survey import VideoSurvey
from millpond._media.sidecars import SidecarStore
from millpond.errors import DataError

FileProgress = Callable[[int, int], None]
"""`progress(files_done, files)`."""


@dataclass(frozen=True)
class Surveyed:
    """What was found out.

    Attributes:
        columns: Owns the files that `table` names, where they are temporary.
        table: The data parquets.
        seen: Each camera's pictures.
        remarks: What is odd, but concerns no single episode.
        lost: See `LeRobotDataset.lost`.
    """

    columns: ColumnStore
    table: TableSurvey
    seen: Mapping[str, VideoSurvey]
    remarks: list[DataError]
    lost: list[DataError]

    def episode_errors(self) -> list[DataError]:
        """Of all kinds, each once, by episode."""
        sources = [self.table.places.problems, *(s.places.problems for s in self.seen.values()), self.table.orphans]
        unique = {id(error): error for problems in sources for error in problems.values()}
        return sorted(unique.values(), key=lambda error: int(error.episode))

    def texts_of(self, samples: NDArray[np.int64], tasks: Mapping[int, str]) -> dict[str, Any]:
        """`task`, where there are any, and the columns of text, each a list of n strings."""
        found: dict[str, Any] = {}
        if tasks:
            found["task"] = [tasks.get(task, "") for task in self.table.task_of[samples].tolist()]
        for name, codes in self.table.text_codes.items():
            found[name] = _spelled(codes[samples].tolist(), self.table.texts[name])
        return found


def _spelled(codes: Any, texts: Sequence[str]) -> Any:
    return [_spelled(code, texts) for code in codes] if isinstance(codes, list) else texts[codes] if texts else ""


@dataclass(frozen=True)
class Survey:
    """Which files to look at, and what for.

    Attributes:
        files: Of the dataset.
        store: Of sidecars.
        around: All episodes of the files that those selected lie in, or of more files.
        selected: int64, (E,), positions in `around`, ascending.
        known: int64, ascending: numbers of episodes that have samples, whoever serves them; None where rows of others
            are not missed.
        cameras: Taken.
        tolerance_s: For times.
        image_size: That pictures are resized to, if they are.
        picture_sizes: Camera of MP4s to the (height, width) that its files must have; those of others must be alike.
        remarks: Of the metadata.
        progress: Told of files.
    """

    files: DatasetFiles
    store: SidecarStore
    around: Layout
    selected: NDArray[np.int64]
    known: NDArray[np.int64] | None
    cameras: tuple[Feature, ...]
    tolerance_s: float
    image_size: tuple[int, int] | None
    picture_sizes: Mapping[str, tuple[int, int]]
    remarks: tuple[DataError, ...]
    progress: FileProgress | None

    def make(self) -> Surveyed:
        """Look at them."""
        layout = select_episodes(self.around, self.selected)
        videos = [camera.name for camera in self.cameras if camera.dtype == "video"]
        placements = [layout.data, *(layout.videos[name] for name in videos)]
        count = _Counter(sum(len(np.unique(placement.file_of)) for placement in placements), self.progress)
        surveyor = Surveyor(
            self.files, self.around, self.selected, self.tolerance_s, self.store, count, self.picture_sizes
        )
        columns = ColumnStore(self.files, self.store, self.around.features)
        table, of_videos = surveyor.survey(columns, videos, required_size=self.image_size)
        num_samples = len(table.task_of)
        seen = {
            camera.name: of_videos[camera.name]
            if camera.dtype == "video"
            else survey_images(table, camera.name, num_samples)
            for camera in self.cameras
        }
        remarks = [*self.remarks, *(remark for one in seen.values() for remark in one.remarks)]
        return Surveyed(columns, table, seen, remarks, self._lost(table))

    def _lost(self, table: TableSurvey) -> list[DataError]:
        if self.known is None:
            return []
        episodes = np.asarray(sorted(table.orphans), np.int64)
        at = np.minimum(np.searchsorted(self.known, episodes), len(self.known) - 1)
        return [table.orphans[episode] for episode in episodes[self.known[at] != episodes].tolist()]

    def narrowed(self, first: int, stop: int) -> Survey:
        """Of the selected episodes first to stop alone, and of no files but theirs; files have other numbers then."""
        own = self.selected[first:stop]
        names = [camera.name for camera in self.cameras if camera.dtype == "video"]
        positions = _neighbours(self.around, own, names)
        around = _without_other_files(select_episodes(self.around, positions), names)
        return replace(self, around=around, selected=np.searchsorted(positions, own))


def _neighbours(layout: Layout, episodes: NDArray[np.int64], cameras: Sequence[str]) -> NDArray[np.int64]:
    """Positions of all episodes that have a file in common with some of them, int64, ascending."""
    is_near = np.zeros(len(layout.lengths), np.bool_)
    for placement in (layout.data, *(layout.videos[camera] for camera in cameras)):
        is_own = np.zeros(len(placement.paths), np.bool_)
        is_own[placement.file_of[episodes]] = True
        is_near |= is_own[placement.file_of]
    return np.flatnonzero(is_near)


def _without_other_files(layout: Layout, cameras: Sequence[str]) -> Layout:
    """The same metadata, which knows only the files that an episode lies in."""

    def of(placement: Any) -> Any:
        used, file_of = np.unique(placement.file_of, return_inverse=True)
        paths = tuple(placement.paths[file] for file in used.tolist())
        return replace(placement, paths=paths, file_of=file_of.reshape(-1).astype(np.int32))

    videos = {camera: of(layout.videos[camera]) for camera in cameras}
    return replace(layout, data=of(layout.data), videos=videos)


class SurveyOnce:
    """A survey that is made when it is first asked for: once, by whichever thread is first; others wait for it.

    A copy in another process has what was found out, or makes the survey itself. So does a child that was forked amid
    it, for the lock that its parent's thread holds would never open.

    Args:
        survey: To be made.
    """

    def __init__(self, survey: Survey) -> None:
        self._survey: Survey | None = survey
        self._surveyed: Surveyed | None = None
        self._locks: dict[int, threading.Lock] = {}  # by process

    def __getstate__(self) -> dict[str, Any]:
        survey = self._survey and replace(self._survey, progress=None)
        return vars(self) | {"_survey": survey, "_locks": {}}

    @property
    def is_made(self) -> bool:
        """Whether it is known what the files are."""
        return self._surveyed is not None

    @property
    def pending(self) -> Survey | None:
        """The survey, before it is made."""
        return self._survey

    def result(self) -> Surveyed:
        """What was found out; raises what kept it from being found out, and then it can be tried again."""
        surveyed = self._surveyed
        if surveyed is not None:
            return surveyed
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if self._surveyed is None:
                assert self._survey is not None
                self._surveyed = self._survey.make()
                self._survey = None
            return self._surveyed


class _Counter:
    """Counts files for a progress bar."""

    def __init__(self, total: int, progress: FileProgress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)
