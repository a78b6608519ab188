"""A run of samples of a dataset, as a dataset of its own: what a rank of a training run, or a read task, is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import (
    ByteSource,
    Dataset,
    FetchedRange,
    Progress,
    Reader,
    ReadReport,
    Sink,
    StreamedReader,
    WantedRange,
)
from millpond._once import computed_once, without_computed
from millpond._values import Field
from millpond.errors import DataError


class Share:
    """Samples `start` to `stop` of a dataset, numbered from 0. Errors and the quarantine file name the whole's numbers.

    Args:
        dataset: What is shared out.
        start: The first sample taken.
        stop: One past the last.
        first_sample: What sample 0 of `dataset` is in the whole, where `dataset` itself is a part of one.
    """

    def __init__(self, dataset: Dataset, start: int, stop: int, *, first_sample: int = 0) -> None:
        if not 0 <= start <= stop <= len(dataset):
            raise ValueError(f"samples {start} to {stop} are no run of a dataset of {len(dataset)}")
        self.dataset = dataset
        self.start = start
        self.stop = stop
        self._first_sample = first_sample

    def __len__(self) -> int:
        return self.stop - self.start

    def __repr__(self) -> str:
        return f"Share({self.dataset!r}, samples {self._first_sample + self.start} to {self._first_sample + self.stop})"

    def __getstate__(self) -> dict[str, Any]:
        return without_computed(self)  # a copy makes its own byte source

    @property
    def fields(self) -> tuple[Field, ...]:
        """The dataset's."""
        return self.dataset.fields

    @property
    def parts(self) -> tuple[str, ...]:
        """The dataset's."""
        return self.dataset.parts

    @property
    def part_fields(self) -> Mapping[str, tuple[str, ...]]:
        """The dataset's."""
        return self.dataset.part_fields

    @property
    def fingerprint(self) -> str:
        """Of the dataset and the run."""
        return f"{self.dataset.fingerprint}[{self.start}:{self.stop}]"

    @property
    def reader_modules(self) -> tuple[str, ...]:
        """The dataset's."""
        return self.dataset.reader_modules

    @property
    def lost(self) -> Sequence[DataError]:
        """The dataset's."""
        return self.dataset.lost

    @property
    def groups(self) -> NDArray[np.int64]:
        """int64, (n,): the episode of each sample."""
        return self.dataset.groups[self.start : self.stop]

    @computed_once
    def byte_source(self) -> ByteSource | None:
        """The dataset's, asked by the numbers here."""
        source = self.dataset.byte_source
        return None if source is None else _ShareBytes(source, self.start)

    def cuts(self) -> NDArray[np.int64]:
        """int64, (S + 1,): the dataset's within the run, and its ends."""
        cuts = self.dataset.cuts()
        first, last = np.searchsorted(cuts, (self.start, self.stop), side="right")
        inner = cuts[first:last]
        ends = [self.start], inner[inner < self.stop], [self.stop]
        return np.concatenate(ends).astype(np.int64) - self.start if len(self) else np.zeros(1, np.int64)

    def cut_costs(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Dataset`."""
        return self.dataset.cut_costs(starts + self.start, stops + self.start)

    def unique_frames(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Dataset`."""
        return self.dataset.unique_frames(starts + self.start, stops + self.start)

    def reader(self) -> ShareReader:
        """A fresh reader."""
        return ShareReader(self.dataset.reader(), self.start)

    def describe(self, sample: int) -> dict[str, Any]:
        """What the dataset says of it, by its number in the whole."""
        told = self.dataset.describe(sample + self.start)
        return {**told, "sample": told.get("sample", sample + self.start) + self._first_sample}

    def decorate(self, batch: dict[str, Any], samples: NDArray[np.int64]) -> None:
        """See `Dataset`."""
        self.dataset.decorate(batch, samples + self.start)

    def learn(self, learned: object) -> None:
        """See `Dataset`."""
        self.dataset.learn(learned)

    def keep_learned(self) -> bool:
        """See `Dataset`."""
        return self.dataset.keep_learned()

    def close(self) -> None:
        """Close the dataset."""
        self.dataset.close()


@dataclass(frozen=True, slots=True)
class ShareReader:
    """Reads by the numbers of a share.

    Attributes:
        reader: Of the dataset.
        start: The first sample of the share.
    """

    reader: Reader
    start: int

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        """See `Reader`."""
        return self.reader.read(part, samples + self.start, sink, progress)

    def attributes(self, sample: int) -> dict[str, Any]:
        """See `Reader`."""
        return self.reader.attributes(sample + self.start)

    def provide(self, ranges: Sequence[FetchedRange]) -> None:
        """See `StreamedReader`."""
        cast(StreamedReader, self.reader).provide(ranges)

    def close(self) -> None:
        """See `Reader`."""
        self.reader.close()


@dataclass(frozen=True, slots=True)
class _ShareBytes:
    source: ByteSource
    start: int

    def wanted(self, parts: Sequence[str], samples: NDArray[np.int64]) -> list[WantedRange]:
        return self.source.wanted(parts, samples + self.start)

    def submit(self, wanted: WantedRange) -> Future[Any]:
        return self.source.submit(wanted)

    def segment_bytes(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.source.segment_bytes(starts + self.start, stops + self.start)

    def forget(self, wanted: WantedRange) -> None:
        self.source.forget(wanted)

    def interrupt(self) -> None:
        self.source.interrupt()

    def counters(self) -> dict[str, int]:
        return self.source.counters()
