"""Reads samples of a mix in a worker: each by the reader of its member, under the names of the mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import (
    FetchedRange,
    FrameWriter,
    Progress,
    Reader,
    ReadReport,
    Sink,
    StreamedReader,
    total_counters,
)
from millpond._datasets.borders import Borders, Run
from millpond._datasets.mixed_bytes import own_range
from millpond._datasets.mixed_fields import DATASET_FIELD, KeyMap, MemberParts
from millpond._datasets.sinks import drop_picture

LearnedOf = list[tuple[int, object]]
"""(member, what its reader learned)."""


class MemberReader(NamedTuple):
    """The reader of one member.

    Attributes:
        reader: It.
        keys: Its names, and the mix's.
        parts: Part of the mix to its own.
        is_streamed: Whether it takes what was fetched ahead.
    """

    reader: Reader
    keys: KeyMap
    parts: Mapping[str, MemberParts]
    is_streamed: bool


@dataclass(frozen=True, slots=True)
class MixedReader:
    """See `millpond._datasets.base.Reader`.

    Attributes:
        members: One reader each.
        borders: Which samples are whose.
        first_part: The part that also fills the number of the member.
        attribute_names: Of what members add to samples that is no array; "" where a member has none of a name.
    """

    members: tuple[MemberReader, ...]
    borders: Borders
    first_part: str
    attribute_names: tuple[str, ...]

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        """See `Reader.read`."""
        if part == self.first_part:
            sink.put(DATASET_FIELD, self.borders.members_of(samples))
        runs = list(self.borders.runs(samples))
        target = sink if len(runs) == 1 else SeamSink(sink, len(samples))
        reports = [(run, report) for run in runs for report in self._read_run(part, run, target, progress)]
        learned = [(run.member, report.learned) for run, report in reports if report.learned is not None]
        return ReadReport(
            [(at + run.rows.start, error) for run, report in reports for at, error in report.failures],
            total_counters([report.counters for _, report in reports]),
            learned or None,
        )

    def _read_run(self, part: str, run: Run, target: Sink | SeamSink, progress: Progress) -> list[ReadReport]:
        member = self.members[run.member]
        rows = target.rows(run.rows) if isinstance(target, SeamSink) else target
        own_sink = MemberSink(rows, member.keys)
        return [member.reader.read(own, run.samples, own_sink, progress) for own in member.parts[part].read]

    def attributes(self, sample: int) -> dict[str, Any]:
        """What of a sample is no array, of the names of all members."""
        number, own_sample = self.borders.place_of(sample)
        member = self.members[number]
        return dict.fromkeys(self.attribute_names, "") | member.keys.renamed(member.reader.attributes(own_sample))

    def provide(self, ranges: Sequence[FetchedRange]) -> None:
        """See `StreamedReader.provide`."""
        of_members: dict[int, list[FetchedRange]] = {}
        for one in ranges:
            number, wanted = own_range(one.wanted)
            of_members.setdefault(number, []).append(one._replace(wanted=wanted))
        for number, member in enumerate(self.members):
            if member.is_streamed:
                cast(StreamedReader, member.reader).provide(of_members.get(number, []))

    def close(self) -> None:
        """Close the readers of all members. Idempotent."""
        for member in self.members:
            member.reader.close()


class MemberSink:
    """Takes what a member gives, by the names of the mix; drops what is not taken."""

    def __init__(self, sink: Sink, keys: KeyMap) -> None:
        self._sink = sink
        self._keys = keys

    def frame_writer(self, field: str, window: NDArray[np.int32]) -> FrameWriter:
        """See `Sink`."""
        name = self._keys.name_of(field)
        return drop_picture if name is None else self._sink.frame_writer(name, window)

    def put(self, field: str, values: NDArray[Any]) -> None:
        """See `Sink`."""
        name = self._keys.name_of(field)
        if name is not None:
            self._sink.put(name, values)


class SeamSink:
    """Puts a call together that crosses a border: each member fills its own rows of the one sink.

    A field is opened anew for each member, with the rows of those before it as they were, and of those to come empty;
    frames are numbered through all of them. So what a member wrote stays where it is.

    Args:
        sink: Of all rows.
        count: Rows.
    """

    def __init__(self, sink: Sink, count: int) -> None:
        self._sink = sink
        self._count = count
        self._windows: dict[str, NDArray[np.int32]] = {}
        self._values: dict[str, NDArray[Any]] = {}

    def rows(self, rows: slice) -> Sink:
        """The sink of one member."""
        return _RowsSink(self, rows)

    def open_rows(self, rows: slice, field: str, window: NDArray[np.int32]) -> FrameWriter:
        """See `Sink.frame_writer`; of some rows."""
        whole = self._windows.setdefault(field, np.full((self._count, window.shape[1]), -1, np.int32))
        first = int(whole.max()) + 1
        whole[rows] = np.where(window < 0, -1, window + first)
        write = self._sink.frame_writer(field, whole.copy())

        def write_shifted(frame: int, picture: NDArray[np.uint8]) -> None:
            write(first + frame, picture)

        return write_shifted

    def put_rows(self, rows: slice, field: str, values: NDArray[Any]) -> None:
        """See `Sink.put`; of some rows."""
        whole = self._values.setdefault(field, np.zeros((self._count, *values.shape[1:]), values.dtype))
        whole[rows] = values
        self._sink.put(field, whole)


@dataclass(frozen=True, slots=True)
class _RowsSink:
    whole: SeamSink
    own: slice

    def frame_writer(self, field: str, window: NDArray[np.int32]) -> FrameWriter:
        return self.whole.open_rows(self.own, field, window)

    def put(self, field: str, values: NDArray[Any]) -> None:
        self.whole.put_rows(self.own, field, values)
