"""What only the clips themselves can tell, found out when a dataset is opened: the longest, and the size of pictures.

Slots of the arena have fixed shapes. Where the options do not say how long or how large the arrays are, every clip is
looked at once: the header of an MP4, all packets of what has no index; nothing is decoded (see `clip_headers`). That
happens in processes of the guard, under a time limit, since a clip may hang or crash whoever opens it, and is
remembered in one sidecar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.clip_facts import KeptFacts, key_of_row
from millpond._datasets.clip_headers import RowFacts, look_at_row
from millpond._datasets.clip_media import AUDIO, IMAGE, VIDEO, ClipShapes, presentable
from millpond._datasets.clip_reader import ROW_ERRORS, ClipSource, told_of_row, unreadable_is_bad
from millpond._guard.guard import Guard
from millpond._media.sidecars import SidecarStore
from millpond._urls import shortened
from millpond.errors import DecodeTimeout, MillpondError, WorkerDied, retold

DEFAULT_TIMEOUT_SECONDS = 30.0
"""For one clip; reading a header takes milliseconds, so whatever takes longer hangs."""

RowProgress = Callable[[int, int], None]
"""`progress(rows_done, rows)`."""


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        shapes: Of the arrays.
        given_up: Rows that hung, or killed the process that looked at them.
        problems: Every row that could not be looked at, and why.
    """

    shapes: ClipShapes
    given_up: dict[int, MillpondError]
    problems: dict[int, MillpondError]


def survey_rows(
    source: ClipSource, store: SidecarStore, name: str, *, timeout: float | None, progress: RowProgress | None
) -> Survey:
    """Look at every row.

    Args:
        source: The rows; its shapes say what the options say, and are 0 where those leave something open.
        store: Where what is found is kept.
        name: What it is kept under.
        timeout: Seconds for one row; None or 0 takes `DEFAULT_TIMEOUT_SECONDS`.
        progress: Told how many rows are done.

    Raises:
        ValueError: Pictures are of more than one size, or sounds of more than one number of channels.
        DataError: Not a single row can be looked at; or another of `ROW_ERRORS`: the first row's.
    """
    keys = [key_of_row(source, sample) for sample in range(source.table.num_rows)]
    # what cannot be kept is not worth waiting for another process that looks at it
    is_new = KeptFacts(store, name).can_learn(keys)
    with store.making(f"{name}.survey") if is_new else nullcontext():
        return _survey(source, KeptFacts(store, name), keys, timeout, progress)


def _survey(
    source: ClipSource, kept: KeptFacts, keys: list[int], timeout: float | None, progress: RowProgress | None
) -> Survey:
    rows = np.stack([kept.find(key) for key in keys])
    unknown = np.flatnonzero(rows[:, 0] < 0).tolist()
    problems: dict[int, MillpondError] = {}
    total, done = len(keys), len(keys) - len(unknown)
    if progress is not None and done:
        progress(done, total)
    for sample, found in zip(unknown, _look_at_all(source, unknown, timeout), strict=True):
        if isinstance(found, RowFacts):
            rows[sample] = found.to_row()
        else:
            problems[sample] = _named(source, sample, found)
        done += 1
        if progress is not None:
            progress(done, total)
    good = np.asarray([sample for sample in range(total) if sample not in problems], np.int64)
    if not len(good):
        raise told_of_row(*next((error, sample) for sample, error in problems.items()))
    kept.keep([(keys[sample], rows[sample]) for sample in good.tolist()], is_new=bool(set(unknown) - set(problems)))
    given_up: dict[int, MillpondError] = {
        sample: error for sample, error in problems.items() if isinstance(error, DecodeTimeout | WorkerDied)
    }
    told = {sample: told_of_row(error, sample) for sample, error in problems.items()}
    return Survey(_shapes_of(source, rows, good), given_up, told)


def _named(source: ClipSource, sample: int, error: MillpondError) -> MillpondError:
    """Why a row cannot be looked at, with the names of its files and what to do."""
    values = source.table.values(sample)
    named = ", ".join(repr(shortened(str(presentable(values[column])))) for column in source.media.columns.values())
    if isinstance(error, DecodeTimeout):
        error.add_note("a clip that is merely slow needs a larger timeout= when the dataset is opened")
    return retold(error, named)


def _look_at_all(source: ClipSource, samples: list[int], timeout: float | None) -> Iterator[RowFacts | MillpondError]:
    if not samples:
        return
    with Guard(timeout=timeout or DEFAULT_TIMEOUT_SECONDS, preload=("millpond._datasets.clip_survey",)) as guard:
        for found in guard.map(_Looker(source), samples, on_error="return"):
            if isinstance(found, (RowFacts, *ROW_ERRORS)):
                yield found
            else:
                raise found


@dataclass(frozen=True)
class _Looker:
    """`look_at_row` of one dataset."""

    source: ClipSource

    def __call__(self, sample: int) -> RowFacts:
        try:
            with unreadable_is_bad():
                return look_at_row(self.source, sample)
        finally:
            self.source.table.close()


def _shapes_of(source: ClipSource, rows: NDArray[np.int64], good: NDArray[np.int64]) -> ClipShapes:
    """The largest of everything; sizes and channels must be alike."""
    media, shapes = source.media, source.shapes
    facts = RowFacts.from_row(rows[good].max(axis=0).tolist())
    if media.video_size_is_open:
        _require_alike(source, VIDEO, rows[good, 1:3], good)
        shapes = replace(shapes, video_size=facts.video_size)
    if media.image_size_is_open:
        _require_alike(source, IMAGE, rows[good, 5:7], good)
        shapes = replace(shapes, image_size=facts.image_size)
    if media.frames_are_open:
        shapes = replace(shapes, num_frames=facts.num_frames)
    if media.audio_is_open:
        _require_alike(source, AUDIO, rows[good, 4:5], good)
        shapes = replace(shapes, audio_samples=max(facts.audio_samples, 1), audio_channels=facts.audio_channels)
    return shapes


def _require_alike(source: ClipSource, medium: str, values: NDArray[np.int64], samples: NDArray[np.int64]) -> None:
    other = np.flatnonzero((values != values[0]).any(axis=1))
    if not len(other):
        return
    told = []
    for at in (0, int(other[0])):
        sample = int(samples[at])
        path = presentable(source.table.values(sample)[source.media.columns[medium]])
        told.append(f"row {sample}, {path!r}, has {_spelled(values[at].tolist())}")
    remedy = "mono=True to mix them down" if medium == AUDIO else "image_size= to make all pictures one size"
    raise ValueError(f"{medium}: {told[0]}, but {told[1]}; give {remedy}")


def _spelled(values: list[int]) -> str:
    if len(values) == 1:
        return f"{values[0]} channels"
    return f"pictures of {values[0]} x {values[1]} (height x width)"
