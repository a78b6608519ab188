"""`dataset[i]`: samples by number, read in this process by the reader that the loader's workers have.

A reader is one thread's at a time, and decoding lets go of the GIL: so each call takes a reader that is idle, or a new
one, and there are as many as threads have read at once. Videos are open for all of them, in a `VideoDecoderCache`.
"""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import ByteSource, FetchedRange, WantedRange
from millpond._datasets.cached_videos import CachedVideos, close_videos
from millpond._datasets.decoders.cache import VideoDecoderCache
from millpond._datasets.frame_batch import as_array
from millpond._datasets.lerobot_reader import LeRobotReader, ReaderArguments
from millpond._datasets.sinks import SampleSink
from millpond._values import Field, no_progress
from millpond.errors import DataError, MillpondError

_MAX_REQUESTS = 32
"""Under way at once for one call."""


@dataclass(frozen=True)
class SamplesRead:
    """What came of one call.

    Attributes:
        samples: Field to tensor or array, of each.
        failures: Position in the call to why there is no such sample; what `samples` has there is no data.
        learned: For `LeRobotDataset.learn`, one by one.
    """

    samples: list[dict[str, Any]]
    failures: dict[int, MillpondError]
    learned: list[object]


class SampleReaders:
    """The readers of one dataset in this process. Any thread; a forked child makes its own.

    Args:
        arguments: Of readers.
        cache: Where videos are open.
        fields: Of a sample.

    Attributes:
        pid: Of the process.
    """

    def __init__(self, arguments: ReaderArguments, cache: VideoDecoderCache, fields: Sequence[Field]) -> None:
        self.pid = os.getpid()
        self._arguments = arguments
        self._cache = cache
        self._owner = object()
        self._videos = {
            part: CachedVideos(source, arguments.store, cache, self._owner)
            for part, source in arguments.cameras.items()
        }
        self._parts = tuple(arguments.cameras) or (arguments.table_part,)
        self._fields = {field.name: field for field in fields}
        self._axes = {field.name: field.delivered_axes for field in fields}
        self._lock = threading.Lock()
        self._idle: list[LeRobotReader] = []
        self._closings = 0
        weakref.finalize(self, _close_all, self._idle, cache, self._owner).atexit = False

    def read(self, samples: NDArray[np.int64], source: ByteSource | None) -> SamplesRead:
        """Read some samples, each frame of them once.

        Args:
            samples: int64, (L,), in any order, repetitions allowed.
            source: Of a dataset in a store: all bytes are fetched at once.
        """
        sink = SampleSink(self._fields, len(samples))
        fetched = [] if source is None else _fetched(source, self._parts, samples)
        with self._reader() as reader:
            if fetched:
                reader.provide(fetched)
            try:
                reports = [reader.read(part, samples, sink, no_progress) for part in self._parts]
            finally:
                if fetched:
                    reader.provide(())
        failures: dict[int, MillpondError] = {}
        for report in reports:
            for positions, error in report.failures:
                for position in positions.tolist():
                    failures.setdefault(position, error)
        if failures and source is not None:
            for one in fetched:
                source.forget(one.wanted)
        learned = [report.learned for report in reports if report.learned is not None]
        return SamplesRead([self._delivered(sample) for sample in sink.samples], failures, learned)

    def close(self) -> None:
        """Close every file: at once, or when the call that reads it ends. Idempotent; used again, they are opened."""
        with self._lock:
            self._closings += 1
            idle = self._idle[:]
            self._idle.clear()
        _close_all(idle, self._cache, self._owner)

    @contextmanager
    def _reader(self) -> Iterator[LeRobotReader]:
        """One for this thread alone."""
        with self._lock:
            closings = self._closings
            reader = self._idle.pop() if self._idle else None
        reader = reader or LeRobotReader(self._arguments, self._videos)
        try:
            yield reader
        finally:
            with self._lock:
                is_kept = closings == self._closings
                if is_kept:
                    self._idle.append(reader)
            if not is_kept:
                reader.close()

    def _delivered(self, sample: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """As the loader delivers a row: frames (..., C, H, W), in the order of the fields."""
        return {
            name: as_array(sample[name] if axes is None else sample[name].transpose(axes))
            for name, axes in self._axes.items()
        }


def checked_sample(index: Any, count: int) -> int:
    """The number of a sample, by an index as a list takes it: an integer of Python's, numpy's, or a tensor of one.

    Raises:
        TypeError: It is no integer.
        IndexError: There is no such sample.
    """
    if isinstance(index, bool) or str(getattr(index, "dtype", "")).endswith("bool"):
        raise TypeError(f"a sample is asked for by an integer, not {index!r}")
    try:
        sample = operator.index(index)
    except TypeError:
        raise TypeError(f"a sample is asked for by an integer, not by {type(index).__name__}") from None
    if not -count <= sample < count:
        raise IndexError(f"sample {sample} of {count}")
    return sample % count


def _fetched(source: ByteSource, parts: Sequence[str], samples: NDArray[np.int64]) -> list[FetchedRange]:
    """All that some samples are made of, of all cameras and files at once."""
    waiting: deque[tuple[WantedRange, Future[Any]]] = deque()
    found: list[FetchedRange] = []

    def take_first() -> None:
        wanted, future = waiting[0]
        try:
            found.append(FetchedRange(wanted, memoryview(future.result()).cast("B")))
        except DataError as error:
            found.append(FetchedRange(wanted, error))
        except CancelledError:  # by who closed the dataset: the reader asks again
            pass
        waiting.popleft()

    try:
        for wanted in source.wanted(parts, samples):
            if len(waiting) == _MAX_REQUESTS:
                take_first()
            waiting.append((wanted, source.submit(wanted)))
        while waiting:
            take_first()
    finally:
        for _, future in waiting:  # after an interrupt
            future.cancel()
    return found


def _close_all(readers: list[LeRobotReader], cache: VideoDecoderCache, owner: object) -> None:
    """Also amid garbage collection, in any thread."""
    while readers:
        readers.pop().close()
    close_videos(cache, owner)
