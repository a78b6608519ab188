"""Clips named by a manifest: one row is one sample, of frames, sound, an image and numbers."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.clip_batches import Padding, present_lengths
from millpond._datasets.clip_manifest import read_manifest
from millpond._datasets.clip_media import (
    AUDIO,
    IMAGE,
    VIDEO,
    ClipMedia,
    asked_columns,
    known_shapes,
    media_fields,
    passed_columns,
    presentable,
    resolve_columns,
)
from millpond._datasets.clip_reader import PART, ClipReader, ClipSource
from millpond._datasets.clip_sidecars import ClipSidecars
from millpond._datasets.clip_survey import RowProgress, survey_rows
from millpond._datasets.media_by_url import UrlAccess
from millpond._datasets.writable_store import store_in
from millpond._guard.timeouts import call_with_timeout, check_timeout
from millpond._media.options import AudioOptions, ImageOptions, VideoOptions
from millpond._media.sidecars import SidecarStore
from millpond._once import computed_once
from millpond._urls import redacted, scheme_of
from millpond._values import Field
from millpond.errors import DataError, MillpondError

CLIP_FRAMES = 128
"""What a clip is taken to cost, in frames decoded, since it is not opened before it is read: some seconds of video. It
is so much more than a task's own cost that tasks hold few clips: four, quickly done, and quickly done again."""


class ClipDataset:
    """Clips, sounds and images that a manifest names: a row is a sample. For the `Loader`, and map-style.

    A sample is made of the arrays of the media asked for, of every column of numbers (see below), and of all other
    columns as Python values. Frames are decoded straight into the batch, and resized while they are.

    - `video`: uint8 (B, T, 3, H, W), RGB, channels-last in memory; the frames that `VideoOptions` choose.
    - `video_seconds`: float64 (B, T); when each of them is shown, seconds after the clip's first frame.
    - `video_length`: int64 (B,); how many there are of each clip, where that varies: with `fps`, or a column of times.
    - `audio`: float32 (B, N), -1 to 1; (B, N, channels) with `mono=False`.
    - `audio_length`: int64 (B,); how many samples of it there are of each clip.
    - `image`: uint8 (B, 3, H, W), RGB, channels-last in memory.

    *Alignment.* Sound of the same file as the frames is aligned to them: sample i is heard `i / sampling_rate` seconds
    after the clip's first frame is shown, so `round(video_seconds * sampling_rate)` indexes the sound. Sound that
    begins later is silent before, sound that begins earlier is cut. Sound of a file of its own begins with its first
    sample.

    *Columns.* A column of numbers or bools, or of lists of numbers of one shape, is an array: int64, float64 and bool,
    or what a Parquet file says. Missing values become NaN, and integers with missing values float64. All else is
    passed through as Python values, a list of them per batch (None where a value is missing). Columns of media are
    not passed through.

    *Paths* are relative to the manifest's folder, or absolute, or URLs (https://, s3://, gs://, az://, hf://, any
    scheme that fsspec reads), which are fetched whole at each read. A row whose clip is missing or broken is a bad
    sample at its turn.

    *Opening* reads the manifest, and no clip, as long as the options say how long and how large arrays can be. They
    leave it open with `fps` without `max_frames`, without `max_seconds`, with `mono=False`, and without `image_size`:
    then every clip's header is read, in processes of their own and under `timeout`, and remembered (a URL is fetched
    each time). Clips that fail this are bad samples.

    *Changes.* What was read of a file is remembered by its checksums: from the second read on, bytes that were altered
    are a bad sample, as is a file that was replaced after this dataset had read it (unless another dataset has read
    the new version meanwhile, and its checksums took the place of the old ones).

    Args:
        manifest: A JSONL, CSV or Parquet file; its suffix says which.
        video: Frames, of the column `video` or the one that the options name.
        audio: Sound, of the column `audio`, or the one that the options name, or else that of the clips.
        image: An image, of the column `image` or the one that the options name.
        padding: For lengths that vary within a batch: "pad" cuts the batch to its longest, shorter ones are padded with
            zeros; "list" gives a list of B arrays of true lengths. Both are views, without copies. A transform sees
            arrays of true lengths.
        cache_dir: Where what is remembered goes; "beside" takes the folder .millpond beside the manifest; None takes
            MILLPOND_CACHE_DIR.
        storage_options: Access to what URLs name: fsspec's names, or obstore's; or scheme to such options, say
            {"s3": {"profile": "work"}, "https": {"headers": {...}}}, where they are of several kinds.
        token: A bearer token for http(s), gs and az, the user's token for hf://, a session token for s3. It is sent to
            every host that the manifest names, as headers of plain `storage_options` are.
        timeout: Seconds that a clip may take in `dataset[i]`, and when the dataset is opened (there 30 if None or 0).
            For `dataset[i]` None takes MILLPOND_DECODE_TIMEOUT; if that is not set, or 0, it decodes in this process.
            The `Loader` has limits of its own.
        progress: Called with (rows done, rows) while headers are read.

    Raises:
        ObjectMissing: No manifest there.
        UnsupportedFormat: Its suffix is none of .jsonl, .csv, .parquet.
        CorruptMedia: It does not parse.
        ValueError: It has no rows, lacks a column, or has one twice; or pictures differ in size and `image_size` is not
            given.
    """

    def __init__(
        self,
        manifest: str | os.PathLike[str],
        *,
        video: VideoOptions | None = None,
        audio: AudioOptions | None = None,
        image: ImageOptions | None = None,
        padding: Padding = "pad",
        cache_dir: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        timeout: float | None = None,
        progress: RowProgress | None = None,
    ) -> None:
        _check_options(video, audio, image, padding)
        check_timeout(timeout)
        access = UrlAccess(storage_options, token)
        if scheme_of(os.fspath(manifest)) is not None:
            raise ValueError(
                f"a manifest is a file of this machine, not {redacted(os.fspath(manifest))!r}: download it"
            )
        path = Path(os.path.abspath(manifest))  # also after a chdir, here or in a worker
        self._timeout = timeout
        self._padding = padding
        store = store_in(cache_dir, path.parent)
        asked = asked_columns(video, audio, image)
        as_values = sorted({name for names in asked.values() for name in names})
        self._manifest = read_manifest(path, store, as_values=as_values)  # kept: it may own a temporary folder
        table = self._manifest.table
        media = ClipMedia(video, audio, image, resolve_columns(asked, table.columns))
        shapes = known_shapes(media, table.columns)
        passed = passed_columns(media, table.columns, media_fields(media, shapes))
        source = ClipSource(
            table=table,
            folder=str(path.parent),
            media=media,
            shapes=shapes,
            sidecars=ClipSidecars.opened_now(store),
            passed=tuple(column.name for column in passed),
            given_up={},
            access=access,
        )
        self._problems: dict[int, MillpondError] = {}
        if media.must_survey:
            source = self._survey(source, store, progress)
        self._source = source
        self._own_reader: tuple[int, ClipReader] | None = None

    def _survey(self, source: ClipSource, store: SidecarStore, progress: RowProgress | None) -> ClipSource:
        name = json.dumps([str(self._manifest.path), source.media.decides_survey()])
        survey = survey_rows(source, store, name, timeout=self._timeout, progress=progress)
        self._problems = survey.problems
        return replace(source, shapes=survey.shapes, given_up=survey.given_up)

    def __len__(self) -> int:
        return self._source.table.num_rows

    def __repr__(self) -> str:
        media = ", ".join(f"{medium} of {column!r}" for medium, column in self._source.media.columns.items())
        return f"ClipDataset({str(self._manifest.path)!r}: {len(self)} samples, {media})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the manifest, those of media included."""
        return tuple(column.name for column in self._source.table.columns)

    @property
    def padding(self) -> Padding:
        """How lengths that vary within a batch are presented."""
        return self._padding

    @property
    def problems(self) -> dict[int, MillpondError]:
        """Row to what is wrong with it, of the rows whose headers could not be read when the dataset was opened."""
        return dict(self._problems)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Decode one sample.

        Returns:
            Field to numpy array, of true lengths (video: uint8 (T, 3, H, W), ...), and column to Python value: what a
            transform gets.

        Raises:
            IndexError: There is no such sample.
            DataError: It cannot be read.
            DeadlineExceeded: It took longer than `timeout`, or a URL could not be fetched in time.
        """
        sample = operator.index(index)
        if not -len(self) <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        sample %= len(self)
        item = f"row {sample} of '{self._manifest.path}'"
        found: dict[str, Any] = call_with_timeout(_read_sample, self._here(), sample, timeout=self._timeout, item=item)
        return found

    def _here(self) -> ClipReader:
        """The reader of this process: a forked child must not share what its parent holds open."""
        if self._own_reader is None or self._own_reader[0] != os.getpid():
            self._own_reader = os.getpid(), self.reader()
        return self._own_reader[1]

    def __getstate__(self) -> dict[str, Any]:
        # A temporary folder stays its maker's, and a reader its process's.
        return {**self.__dict__, "_own_reader": None, "_manifest": replace(self._manifest, store=None)}

    @computed_once
    def fields(self) -> tuple[Field, ...]:
        """Every array of a sample, of the greatest lengths there are."""
        return self._source.fields

    @property
    def parts(self) -> tuple[str, ...]:
        """One, since a row is read as a whole."""
        return (PART,)

    @property
    def part_fields(self) -> Mapping[str, tuple[str, ...]]:
        """All fields, which the one part fills."""
        return {PART: tuple(field.name for field in self.fields)}

    @computed_once
    def groups(self) -> NDArray[np.int64]:
        """int64, (N,): every sample is a group of its own."""
        return np.arange(len(self))

    def cuts(self) -> NDArray[np.int64]:
        """int64, (N + 1,): every sample is a segment of its own."""
        return np.arange(len(self) + 1)

    def cut_costs(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): `CLIP_FRAMES` for each sample."""
        return (np.asarray(stops, np.int64) - starts) * CLIP_FRAMES

    def unique_frames(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): the frames of the samples, all counted as different; or their images."""
        return (np.asarray(stops, np.int64) - starts) * max(self._source.shapes.num_frames, 1)

    @property
    def reader_modules(self) -> tuple[str, ...]:
        """What a worker imports before it is forked."""
        return ("millpond._datasets.clip_reader", "millpond._sources.warm")

    def reader(self) -> ClipReader:
        """A fresh reader."""
        return ClipReader(self._source)

    @property
    def byte_source(self) -> None:
        """None, since a clip by URL is fetched whole by the worker that reads it."""

    @property
    def lost(self) -> Sequence[DataError]:
        """Nothing, since every row is a sample."""
        return ()

    def describe(self, sample: int) -> dict[str, Any]:
        """The row, and what it names: paths as they stand in the manifest, URLs without what may be secret."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        values = self._source.table.values(sample)
        media = self._source.media.columns.items()
        return {"row": int(sample), **{medium: presentable(values[column]) for medium, column in media}}

    def decorate(self, batch: dict[str, Any], samples: NDArray[np.int64]) -> None:
        """Cut what varies in length, and add the columns that are no arrays: lists of n Python values."""
        present_lengths(batch, self.fields, self._padding)
        rows = [self._source.values(sample) for sample in samples.tolist()] if self._source.texts else []
        for name in self._source.texts:
            batch[name] = [row[name] for row in rows]

    @computed_once
    def fingerprint(self) -> str:
        """Digest of the manifest's content and of the options; no paths but those that stand in it."""
        media = self._source.media
        options = [repr(options) for options in (media.video, media.audio, media.image)]
        facts = json.dumps([self._manifest.digest, options, sorted(media.columns.items())])
        return hashlib.sha256(facts.encode()).hexdigest()

    def learn(self, learned: object) -> None:
        """Nothing: workers keep what they learn of a clip themselves, see `clip_sidecars`."""

    def keep_learned(self) -> bool:
        """Nothing is waiting."""
        return False

    def close(self) -> None:
        """Unmap the manifest, close what was opened for URLs. Idempotent; the dataset can be used again."""
        self._source.table.close()
        if self._own_reader is not None and self._own_reader[0] == os.getpid():
            self._own_reader[1].close()


def _read_sample(reader: ClipReader, sample: int) -> dict[str, Any]:
    """One sample, in this process or in one of the guard's."""
    return reader.sample(sample, _unwatched)


def _unwatched() -> None:
    pass


def _check_options(video: object, audio: object, image: object, padding: object) -> None:
    kinds = ((VIDEO, video, VideoOptions), (AUDIO, audio, AudioOptions), (IMAGE, image, ImageOptions))
    for name, options, kind in kinds:
        if not isinstance(options, kind | None):
            raise TypeError(f"{name} must be millpond.{kind.__name__}(...) or None, not {options!r}")
    if video is None and audio is None and image is None:
        raise ValueError("nothing is wanted of the clips: give video=, audio= or image=")
    if padding not in ("pad", "list"):
        raise ValueError(f"padding must be 'pad' or 'list', not {padding!r}")
