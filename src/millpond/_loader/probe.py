"""What a transform gives, found by trying it on a sample: in a worker, since the sample or the function may hang."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from millpond._arena.layout import SlotLayout, SlotPool
from millpond._arena.memory import ArenaMemory
from millpond._datasets.base import Dataset, Progress, Reader
from millpond._loader.work import ReadTask, Transform, Work, delivered
from millpond._values import Field
from millpond._workers.supervisor import Completed, Supervisor
from millpond._workers.verdicts import TaskLimits
from millpond.errors import DataError, DeadlineExceeded, WorkerDied

PROBED_SAMPLES = 16
"""A transform is tried on the first good sample among so many, spread over the dataset."""


@dataclass(frozen=True, slots=True)
class Transformed:
    """What a transform gives.

    Attributes:
        fields: The arrays, by name.
        kept: Names of what is no array (text) and was given back as it came.
    """

    fields: dict[str, Field]
    kept: tuple[str, ...] = ()

    @property
    def kept_by_dataset(self) -> tuple[str, ...]:
        """What the dataset presents in a batch of these: text, and fields of varying length with their lengths."""
        varying = [field for field in self.fields.values() if field.length is not None]
        return (*self.kept, *(name for field in varying for name in (field.name, str(field.length))))


def probe_transform(dataset: Dataset, transform: Transform, *, in_worker: bool, limits: TaskLimits) -> Transformed:
    """Learn what a transform gives from the first good sample.

    Raises:
        DataError: No sample among `PROBED_SAMPLES`, the first one included, is good: the last one's error, or
            `DeadlineExceeded` or `WorkerDied`, if it hung or killed its worker.
        Exception: The transform's own; TypeError if it gives what is no array.
    """
    probe = Probe(dataset.reader(), dataset.fields, dataset.parts, transform)
    error: Exception = DataError("the dataset has no samples")
    samples = np.unique(np.linspace(0, len(dataset) - 1, PROBED_SAMPLES, dtype=np.int64)).tolist()
    answers = _from_worker(probe, samples, dataset, limits) if in_worker else _from_here(probe, samples)
    for answer in answers:
        if isinstance(answer, Transformed):
            return answer
        error = answer
    raise error


def _from_here(probe: Probe, samples: list[int]) -> Iterator[Transformed | Exception]:
    for sample in samples:
        yield probe(sample, _unwatched)


def _from_worker(
    probe: Probe, samples: list[int], dataset: Dataset, limits: TaskLimits
) -> Iterator[Transformed | Exception]:
    with Supervisor(
        cloudpickle.dumps(probe),
        num_workers=1,
        preload=preload_of(dataset),
        limits=limits,
        max_attempts=1,
    ) as supervisor:
        for sample in samples:
            supervisor.submit(sample, sample)
            (event,) = supervisor.wait()
            if isinstance(event, Completed):
                yield event.result
            elif isinstance(event.error, DeadlineExceeded | WorkerDied):
                yield event.error
            else:
                raise event.error


def preload_of(dataset: Dataset) -> tuple[str, ...]:
    """What the zygote of a loader's workers imports."""
    return ("millpond._loader.work", *dataset.reader_modules)


@dataclass(frozen=True, slots=True)
class Probe:
    """Reads one sample and transforms it; a handler for a worker."""

    reader: Reader
    fields: tuple[Field, ...]
    parts: tuple[str, ...]
    transform: Transform

    def __call__(self, sample: int, progress: Callable[[], None]) -> Transformed | Exception:
        """What came of a sample: the transform's fields, or why the sample has no data."""
        layout = SlotLayout.of([(field, 1) for field in self.fields])
        arena = ArenaMemory.create(layout.slot_bytes)
        pool = SlotPool(layout, 0, 1)
        work = Work(
            self.reader, self.fields, pool, None, gathered=False, transform=self.transform, arena_bytes=arena.size_bytes
        )
        work.use(arena)
        try:
            return self._read_one(work, sample, progress) or self._transformed(work, sample)
        finally:
            work.close()

    def _read_one(self, work: Work, sample: int, progress: Progress) -> Exception | None:
        samples, zero = np.asarray([sample]), np.asarray([0])
        outcome = work.carry_out(ReadTask(self.parts, 0, samples, zero, zero), progress)
        return outcome.failures[0][1] if outcome.failures else None

    def _transformed(self, work: Work, sample: int) -> Transformed:
        attributes = self.reader.attributes(sample)
        given = work.transformed(sample, 0, 0)
        kept = tuple(name for name, value in given.items() if _is_kept(value, attributes.get(name)))
        arrays = {name: np.asarray(value) for name, value in given.items() if name not in kept}
        varying = {field.name: field for field in self.fields if field.length in arrays}
        fields = {name: _field_of(name, array, varying.get(name)) for name, array in arrays.items()}
        return Transformed(fields, kept)


def _unwatched() -> None:
    """Progress of a sample that nobody watches."""


def _is_kept(value: object, attribute: object) -> bool:
    return attribute is not None and type(value) is type(attribute) and value == attribute


def _field_of(name: str, value: NDArray[Any], varying: Field | None) -> Field:
    """What a transform gave under this name; `varying`: the sample's own field of this name, if its length varies."""
    if varying is not None:
        longest = delivered(np.empty(varying.shape, varying.dtype), varying)
        if value.dtype == longest.dtype and value.shape[1:] == longest.shape[1:] and len(value) <= len(longest):
            return Field(name, longest.shape, varying.dtype, length=varying.length)
    if value.dtype.hasobject or value.dtype.kind not in "biufc":
        raise TypeError(
            f"transform gave {name!r} as {value.dtype}; every value must be an array of numbers, or a text of the "
            "sample as it came"
        )
    return Field(name, value.shape, value.dtype.str)
