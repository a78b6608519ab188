"""Which rows of a data parquet belong to which sample: asked of the rows themselves, compared with the metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.layout import Layout
from millpond._datasets.places import NOWHERE, Places, Runs
from millpond.errors import CorruptMedia, DataError, FrameTimestampError

KEYS = ("episode_index", "frame_index", "index", "timestamp")
"""Columns that say which sample a row is; LeRobot writes them always."""


@dataclass(frozen=True)
class RowKeys:
    """The columns `KEYS` of one file, (R,), contiguous."""

    path: str
    episode_index: NDArray[np.int64]
    frame_index: NDArray[np.int64]
    index: NDArray[np.int64]
    timestamp: NDArray[np.float64]

    @classmethod
    def of(cls, path: str, rows: NDArray[Any]) -> RowKeys:
        """Copy them out of the rows of a file."""
        absent = [name for name in KEYS if name not in (rows.dtype.names or ())]
        if absent:
            raise CorruptMedia(f"'{path}' has no column {', '.join(absent)}", path=path, columns=absent)
        episode, frame, index = (rows[name].astype(np.int64) for name in KEYS[:3])
        return cls(path, episode, frame, index, rows["timestamp"].astype(np.float64))


def place_rows(
    keys: RowKeys, file: int, episodes: NDArray[np.int64], layout: Layout, tolerance_s: float, places: Places
) -> None:
    """Find the rows of some episodes in one file.

    An episode whose rows are all there and agree with the metadata is a run. Where rows are missing or their times
    are off, just those samples have no place. Where it is unclear what is right (more rows than the metadata says, a
    frame twice, another numbering), the whole episode has none.

    Args:
        keys: Of the file.
        file: Its number.
        episodes: int64, (n,), positions in `layout`.
        layout: The metadata.
        tolerance_s: Greatest distance of `timestamp` from frame / fps, besides float32's own.
        places: Takes the results.
    """
    starts, is_single = _runs_of(keys, layout.episode_index[episodes], layout.lengths[episodes])
    is_run = is_single.copy()
    if is_single.any():
        runs = Runs.of(layout.lengths[episodes[is_single]])
        rows = starts[is_single][runs.episode] + runs.position
        from_index = layout.from_index[episodes[is_single]][runs.episode]
        is_good = keys.frame_index[rows] == runs.position
        is_good &= keys.index[rows] == from_index + runs.position
        is_good &= _is_on_time(keys.timestamp[rows], runs.position, layout.fps, tolerance_s)
        is_run[is_single] = runs.all(is_good)
    is_run &= layout.to_index[episodes] - layout.from_index[episodes] == layout.lengths[episodes]
    places.put(episodes[is_run], file, starts[is_run])
    for episode in episodes[~is_run].tolist():
        _place_one(keys, file, episode, layout, tolerance_s, places)


def orphan_rows(keys: RowKeys, layout: Layout, file: int) -> dict[int, DataError]:
    """Episodes that have rows in a file although the metadata does not place them there."""
    expected = layout.episode_index[layout.data.file_of == file]
    found, counts = np.unique(keys.episode_index, return_counts=True)
    orphans = ~np.isin(found, expected)
    return {
        episode: CorruptMedia(
            f"'{keys.path}' has {count} orphan rows of episode {episode}, which meta/episodes does not place there; "
            "they are never delivered",
            path=keys.path,
            episode=episode,
            rows=count,
        )
        for episode, count in zip(found[orphans].tolist(), counts[orphans].tolist(), strict=True)
    }


def _runs_of(
    keys: RowKeys, ids: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The first row of each episode that is one run of its length, and whether it is."""
    if not len(keys.episode_index):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
    starts = np.flatnonzero(np.diff(keys.episode_index, prepend=keys.episode_index[0] - 1))
    run_lengths = np.diff(np.append(starts, len(keys.episode_index)))
    order = np.argsort(keys.episode_index[starts], kind="stable")
    sorted_ids = keys.episode_index[starts][order]
    left, right = np.searchsorted(sorted_ids, ids, side="left"), np.searchsorted(sorted_ids, ids, side="right")
    run = order[np.minimum(left, len(order) - 1)]
    return starts[run], (right - left == 1) & (run_lengths[run] == lengths)


def _is_on_time(
    timestamp: NDArray[np.float64], position: NDArray[np.int64], fps: float, tolerance_s: float
) -> NDArray[np.bool_]:
    expected = position / fps
    # LeRobot keeps times as float32, which after an hour is 0.1 ms off by itself.
    rounding = np.spacing(expected.astype(np.float32)).astype(np.float64)
    return np.asarray(np.abs(timestamp - expected) <= tolerance_s + rounding)


def _place_one(keys: RowKeys, file: int, episode: int, layout: Layout, tolerance_s: float, places: Places) -> None:
    """An episode that is not as it should be: find out in which way."""
    number, length = int(layout.episode_index[episode]), int(layout.lengths[episode])
    facts = {"path": keys.path, "episode": number}
    rows = np.flatnonzero(keys.episode_index == number)
    frames = keys.frame_index[rows]
    text = _contradiction(keys, rows, layout, episode)
    if text is not None:
        places.fail(episode, CorruptMedia(f"episode {number}: {text} ('{keys.path}')", **facts))
        return
    place_of = np.full(length, NOWHERE, np.int64)
    place_of[frames] = rows
    missing = np.flatnonzero(place_of == NOWHERE)
    is_late = ~_is_on_time(keys.timestamp[rows], frames, layout.fps, tolerance_s)
    place_of[frames[is_late]] = NOWHERE
    problem: DataError | None = None
    if len(missing):
        problem = CorruptMedia(
            f"episode {number}: '{keys.path}' has rows for {length - len(missing)} of its {length} frames; the first "
            f"without is frame {missing[0]}",
            frame=int(missing[0]),
            **facts,
        )
    elif is_late.any():
        worst = int(np.argmax(is_late))
        problem = FrameTimestampError(
            f"episode {number}: {int(is_late.sum())} of its rows in '{keys.path}' have a timestamp that is not frame "
            f"/ fps within {tolerance_s:g} s; frame {frames[worst]} says {keys.timestamp[rows[worst]]:.6f} s instead "
            f"of {frames[worst] / layout.fps:.6f} s",
            frame=int(frames[worst]),
            tolerance_seconds=tolerance_s,
            **facts,
        )
    places.scatter(episode, file, place_of, problem)


def _contradiction(keys: RowKeys, rows: NDArray[np.int64], layout: Layout, episode: int) -> str | None:
    """Why nothing of an episode can be trusted; None if what is there is clear."""
    length, frames = int(layout.lengths[episode]), keys.frame_index[rows]
    start, stop = int(layout.from_index[episode]), int(layout.to_index[episode])
    if stop - start != length:
        return f"meta/episodes gives it {length} frames, but the rows {start} to {stop} of the dataset"
    if not len(rows):
        return f"its parquet file has none of its {length} rows"
    if len(rows) > length or frames.max() >= length or frames.min() < 0:
        return (
            f"its parquet file has {len(rows)} rows, frames {frames.min()} to {frames.max()}, where meta/episodes says "
            f"{length} frames"
        )
    if len(np.unique(frames)) != len(frames):
        return "its parquet file has a frame more than once"
    wrong = np.flatnonzero(keys.index[rows] != start + frames)
    if len(wrong):
        return (
            f"frame {frames[wrong[0]]} has index {keys.index[rows[wrong[0]]]} in its parquet file, where meta/episodes "
            f"says {start + frames[wrong[0]]}"
        )
    return None
