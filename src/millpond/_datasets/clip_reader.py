"""Reads rows of a manifest in a worker: imports neither pyarrow nor torch, holds nothing open between two clips.

What travels to a worker is where the manifest's table is, not the table: it is as small for a million rows as for ten.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import Progress, ReadReport, Sink
from millpond._datasets.clip_decode import ClipDecoder, RowSink
from millpond._datasets.clip_manifest import ManifestTable
from millpond._datasets.clip_media import ClipMedia, ClipShapes, media_fields
from millpond._datasets.clip_rows import OwnRow, SinkRows
from millpond._datasets.clip_sidecars import ClipSidecars
from millpond._datasets.media_by_url import NO_ACCESS, MediaByUrl, UrlAccess
from millpond._values import Field
from millpond.errors import (
    DataError,
    DeadlineExceeded,
    ErrorT,
    MillpondError,
    UnsupportedFormat,
    WorkerDied,
    retold,
)

PART = "clip"
"""The one part: everything of a row is read together."""

ROW_ERRORS = (DataError, DeadlineExceeded, UnsupportedFormat, WorkerDied)
"""What concerns one row; anything else is a bug, or a lack of resources."""

_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def unreadable_is_bad() -> Iterator[None]:
    """What the file system says of a file (EIO, a stale handle, a name that is none) is DataError: its row is bad."""
    try:
        yield
    except MillpondError:
        raise
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno in _RESOURCES:
            raise
        raise DataError(f"a file of it cannot be read: {error}") from error


@dataclass(frozen=True)
class ClipSource:
    """All that a reader knows; picklable, and small.

    Attributes:
        table: The manifest's rows.
        folder: Relative paths are relative to it.
        media: What is read of each row.
        shapes: Of the arrays.
        sidecars: What is remembered of files.
        passed: Columns that go into samples as they are.
        given_up: Rows that hung or killed the process that looked at them when the dataset was opened.
        access: To what URLs name.
    """

    table: ManifestTable
    folder: str
    media: ClipMedia
    shapes: ClipShapes
    sidecars: ClipSidecars
    passed: tuple[str, ...]
    given_up: Mapping[int, MillpondError]
    access: UrlAccess = NO_ACCESS

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every array of a sample."""
        numbers = [Field(c.name, c.shape, str(c.dtype)) for c in self.table.numbers if c.name in self.passed]
        return (*media_fields(self.media, self.shapes), *numbers)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns of numbers that go into samples."""
        return tuple(column.name for column in self.table.numbers if column.name in self.passed)

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of Python values that go into samples."""
        return tuple(name for name in self.table.others if name in self.passed)

    def values(self, sample: int) -> dict[str, Any]:
        """Column of `texts` to its value in a row."""
        values = self.table.values(sample)
        return {name: values[name] for name in self.texts}

    def times(self, sample: int) -> Any:
        """What the column of times holds in a row; None where there is no such column."""
        name = self.media.times_column
        if name is None:
            return None
        if name in self.table.others:
            return self.table.values(sample)[name]
        return self.table.take(name, np.asarray([sample]))[0]


class ClipReader:
    """See `millpond._datasets.base.Reader`.

    Args:
        source: Where everything is.
    """

    def __init__(self, source: ClipSource) -> None:
        self._source = source
        self._fields = {field.name: field for field in source.fields}
        self._urls = MediaByUrl(source.access)
        self._decoder = ClipDecoder(source.media, source.shapes, source.folder, source.sidecars, self._urls)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._source,)

    def close(self) -> None:
        """Unmap the manifest, close what was opened for URLs. Idempotent; both are opened again as needed."""
        self._source.table.close()
        self._urls.close()

    def attributes(self, sample: int) -> dict[str, Any]:
        """Text and whatever else is no array."""
        return self._source.values(sample)

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        """See `Reader.read`."""
        rows = SinkRows(self._fields, len(samples), sink)
        report = ReadReport(counters={"samples": len(samples)})
        self._decoder.counters.clear()
        for position, sample in enumerate(samples.tolist()):
            try:
                self._decode(sample, rows.row(position), progress)
            except ROW_ERRORS as error:
                report.failures.append((np.asarray([position]), told_of_row(error, sample)))
            progress()
        failed = [int(position[0]) for position, _ in report.failures]
        rows.finish(np.asarray(failed, np.int64), self._numbers(samples))
        report.counters.update(self._decoder.counters)
        return report

    def sample(self, sample: int, progress: Progress) -> dict[str, Any]:
        """One row as arrays of true lengths, and its other values.

        Raises:
            DataError: It cannot be read; or another of `ROW_ERRORS`.
        """
        own = OwnRow(self._fields)
        try:
            self._decode(sample, own, progress)
        except ROW_ERRORS as error:
            raise told_of_row(error, sample) from error.__cause__
        numbers = {name: values[0, ...] for name, values in self._numbers(np.asarray([sample])).items()}
        return {**own.arrays, **numbers, **self.attributes(sample)}

    def _decode(self, sample: int, sink: RowSink, progress: Progress) -> None:
        source = self._source
        if sample in source.given_up:
            raise source.given_up[sample].with_traceback(None)
        with unreadable_is_bad():
            self._decoder.decode(source.table.values(sample), source.times(sample), sink, progress)

    def _numbers(self, samples: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {name: self._source.table.take(name, samples) for name in self._source.numbers}


def told_of_row(error: ErrorT, sample: int) -> ErrorT:
    """The same error told of its row."""
    return retold(error, f"row {sample}", row=sample)
