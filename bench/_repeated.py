"""A dataset many times over, for epochs that are longer than it is. Workers import this."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import (
    ByteSource,
    FetchedRange,
    Progress,
    Reader,
    ReadReport,
    Sink,
    StreamedReader,
    WantedRange,
)


@dataclass
class RepeatedReader:
    inner: Reader
    length: int

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        return self.inner.read(part, samples % self.length, sink, progress)

    def provide(self, ranges: Sequence[FetchedRange]) -> None:
        cast(StreamedReader, self.inner).provide(ranges)

    def attributes(self, sample: int) -> dict[str, Any]:
        return self.inner.attributes(sample % self.length)

    def close(self) -> None:
        self.inner.close()


@dataclass
class RepeatedBytes:
    """What is fetched for a sample is fetched again for each repetition."""

    inner: ByteSource
    dataset: RepeatedDataset

    def wanted(self, parts: Sequence[str], samples: NDArray[np.int64]) -> list[WantedRange]:
        return self.inner.wanted(parts, samples % len(self.dataset.inner))

    def submit(self, wanted: WantedRange) -> Future[Any]:
        return self.inner.submit(wanted)

    def segment_bytes(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.dataset.added(self.inner.segment_bytes, starts, stops)

    def counters(self) -> dict[str, int]:
        return self.inner.counters()


@dataclass
class RepeatedDataset:
    """Sample s is the inner dataset's sample s modulo its length; whatever else is asked, the inner one answers."""

    inner: Any
    times: int

    def __len__(self) -> int:
        return len(self.inner) * self.times

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def fingerprint(self) -> str:
        return f"{self.inner.fingerprint} x {self.times}"

    @property
    def groups(self) -> NDArray[np.int64]:
        groups = self.inner.groups
        return np.concatenate([groups + turn * (int(groups.max()) + 1) for turn in range(self.times)])

    def cuts(self) -> NDArray[np.int64]:
        cuts = self.inner.cuts()[:-1]
        return np.append(np.concatenate([cuts + turn * len(self.inner) for turn in range(self.times)]), len(self))

    def cut_costs(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.added(self.inner.cut_costs, starts, stops)

    def unique_frames(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.added(self.inner.unique_frames, starts, stops)

    @cached_property
    def byte_source(self) -> RepeatedBytes | None:
        inner = self.inner.byte_source
        return None if inner is None else RepeatedBytes(inner, self)

    def reader(self) -> RepeatedReader:
        return RepeatedReader(self.inner.reader(), len(self.inner))

    def describe(self, sample: int) -> dict[str, Any]:
        return {**self.inner.describe(sample % len(self.inner)), "sample": sample}

    def decorate(self, batch: dict[str, Any], samples: NDArray[np.int64]) -> None:
        self.inner.decorate(batch, samples % len(self.inner))

    def added(self, cost: Any, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """What ranges cost that may go over the end of the inner dataset, once or more."""
        length = len(self.inner)
        first, last = starts // length, (stops - 1) // length
        in_one = cost(starts % length, np.where(first == last, (stops - 1) % length + 1, length))
        zero, whole = np.zeros(1, np.int64), np.array([length])
        rest = cost(np.zeros_like(stops), (stops - 1) % length + 1) + (last - first - 1) * cost(zero, whole)[0]
        return np.where(first == last, in_one, in_one + rest)
