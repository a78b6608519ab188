"""What the loader asks of a dataset, and what a dataset asks of the loader.

A dataset lives in the training process: it knows its samples, where a segment may start and what that costs, and does
no decoding. Its `reader()` is pickled once per worker and does all the reading; a task names a part and a run of
consecutive samples, and the reader gives what it read to a `Sink`, which knows the place of every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from millpond._values import Field
from millpond.errors import DataError, MillpondError

FrameWriter = Callable[[int, NDArray[np.uint8]], None]
"""`write(j, picture)`: unique frame j of a call, uint8 (H, W, 3) RGB, a view valid only during the call."""

Progress = Callable[[], None]
"""Called at least once per frame or table; a task that stops calling it is taken for hung."""


VALIDITY_FIELD = "is_valid"
"""bool (B,), which the loader adds to every batch under "placeholder": False for rows of zeros that stand for a bad
sample. No field of a dataset has this name."""


class Sink(Protocol):
    """Where a reader puts what it read; one call of `read` uses one sink, from one thread."""

    def frame_writer(self, field: str, window: NDArray[np.int32]) -> FrameWriter:
        """Open a field of pictures.

        Args:
            field: The name of a field whose `frames` is True.
            window: int32, (L, T): sample s shows unique frame window[s, t] at step t; -1 where the frame could not be
                read, and then the whole sample is among the failures of the report.

        Returns:
            The callable that takes each unique frame j once, in any order. Where a frame fails it is not called.
        """
        ...

    def put(self, field: str, values: NDArray[Any]) -> None:
        """Fill a field of numbers: (L, ...) in the field's shape and dtype; rows of failed samples are zero."""
        ...


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What became of one call of `Reader.read`; picklable.

    `failures` names positions within the call's `samples` (int64, ascending), each with the error that they share; a
    position may be in several. Whatever is in none was written in full. `learned` goes to `Dataset.learn`.
    """

    failures: list[tuple[NDArray[np.int64], MillpondError]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    learned: object | None = None


class WantedRange(NamedTuple):
    """Bytes that a task will read.

    Attributes:
        part: Of the dataset.
        file: Number of the file among those of the part.
        start: First byte of the file.
        stop: One past the last.
    """

    part: str
    file: int
    start: int
    stop: int


class FetchedRange(NamedTuple):
    """What came of a wanted range.

    Attributes:
        wanted: It.
        outcome: The bytes, which stay where they are while the task runs; or why there are none.
    """

    wanted: WantedRange
    outcome: memoryview | DataError


class ByteSource(Protocol):
    """What a loader asks of a dataset whose media lie behind a network: which bytes a task will read, and the bytes."""

    def wanted(self, parts: Sequence[str], samples: NDArray[np.int64]) -> list[WantedRange]:
        """What readers will read for some parts of consecutive samples, none overlapping; one thread at a time."""
        ...

    def submit(self, wanted: WantedRange) -> Future[Any]:
        """Begin to fetch a range, or a part of one: a buffer, or a DataError. Callbacks must be quick. Any thread."""
        ...

    def segment_bytes(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): about how many bytes the samples start to stop of each pair take, over all parts."""
        ...

    def forget(self, wanted: WantedRange) -> None:
        """What was submitted came, and is not what should be there: keep it no longer."""
        ...

    def interrupt(self) -> None:
        """End what is under way, `wanted` included; used again, it goes on. Any thread."""
        ...

    def counters(self) -> dict[str, int]:
        """What was fetched so far: requests, retries, hedges, bytes_fetched, bytes_from_cache."""
        ...


@runtime_checkable
class Reader(Protocol):
    """Reads samples in a worker; picklable and small. Used by one thread at a time."""

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        """Read one part of consecutive samples into the sink.

        Args:
            part: One of `Dataset.parts`; fills the fields in `Dataset.part_fields[part]`.
            samples: int64, (L,), ascending sample indices.
            sink: Takes the frames and the numbers.
            progress: Called per frame.

        Returns:
            The failures by sample. Bad data never raises; anything that does raise is a bug or a lack of resources.
        """
        ...

    def attributes(self, sample: int) -> dict[str, Any]:
        """What of a sample is no array, for the user's transform; {} where there is nothing such."""
        ...

    def close(self) -> None:
        """Close every open descriptor and map. Idempotent; a later `read` opens them again."""
        ...


class StreamedReader(Reader, Protocol):
    """A reader of a dataset with a byte source."""

    def provide(self, ranges: Sequence[FetchedRange]) -> None:
        """Bytes that were fetched for the next calls of `read`, in place of those provided before."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """A map-style dataset that knows its own GOPs. Samples are 0 to `len(dataset)`, in storage order."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every array of a sample, as delivered."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """What tasks are made of; a segment is complete when every part is read."""
        ...

    @property
    def part_fields(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the fields that each part fills; each field is filled by exactly one part."""
        ...

    @property
    def groups(self) -> NDArray[np.int64]:
        """int64, (N,): the episode of each sample, for mixing."""
        ...

    @property
    def fingerprint(self) -> str:
        """A digest of what the samples are and how they are numbered; a checkpoint must match it."""
        ...

    @property
    def reader_modules(self) -> tuple[str, ...]:
        """Modules that a worker had better import before it is forked: those of the reader."""
        ...

    @property
    def byte_source(self) -> ByteSource | None:
        """Fetches bytes ahead of the tasks that read them; None where they are at hand. Its reader has `provide`."""
        ...

    @property
    def lost(self) -> Sequence[DataError]:
        """Data that is there and that no sample stands for, such as rows of an episode that the metadata lacks."""
        ...

    def __len__(self) -> int: ...

    def cuts(self) -> NDArray[np.int64]:
        """int64, (S + 1,): ascending samples where a segment may start for free, 0 and N included."""
        ...

    def cut_costs(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): frames to decode, all cameras, to serve the samples start to stop of each pair."""
        ...

    def unique_frames(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): the most frames of any one camera that the samples start to stop of each pair show."""
        ...

    def reader(self) -> Reader:
        """A fresh, picklable reader for one worker."""
        ...

    def describe(self, sample: int) -> dict[str, Any]:
        """What a sample is, for errors and for the quarantine file: `episode_index`, `frame_index`, ..."""
        ...

    def decorate(self, batch: dict[str, Any], samples: NDArray[np.int64]) -> None:
        """Add what is no array, in place: `task` is a list of n strings; cut what varies in length.

        After a transform `batch` has nothing but fields that vary in length.
        """
        ...

    def learn(self, learned: object) -> None:
        """Take what a reader learned (`ReadReport.learned`), to be kept for later epochs and runs."""
        ...

    def keep_learned(self) -> bool:
        """Write what was learned, so that readers which open their files anew know it; whether there was anything."""
        ...

    def close(self) -> None:
        """Write what was learned; idempotent."""
        ...


@runtime_checkable
class PartlyOpened(Protocol):
    """A dataset that can be opened in part: what a rank does not read, it does not look at."""

    @property
    def is_surveyed(self) -> bool:
        """Whether all of it was looked at already."""
        ...

    def opened_for(self, start: int, stop: int) -> tuple[Dataset, int]:
        """A dataset that has at least samples `start` to `stop`, and the number here of its sample 0."""
        ...


@runtime_checkable
class Mixture(Protocol):
    """A dataset that consists of others, numbered one after the other.

    Attributes:
        members: They.
        weights: The share that each has of an epoch, in all 1; None: every sample is in every epoch.
        epoch_samples: Samples of an epoch.
    """

    members: tuple[Dataset, ...]
    weights: tuple[float, ...] | None
    epoch_samples: int

    def quotas(self, num_samples: int) -> tuple[int, ...]:
        """Samples of each member among so many, by weight."""
        ...

    def with_members(self, members: Sequence[Dataset]) -> Dataset:
        """The same mix of other datasets, such as shares of the members."""
        ...


def total_counters(counters: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Add counters of many reports up, name by name."""
    total: dict[str, int] = {}
    for one in counters:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value
    return total
