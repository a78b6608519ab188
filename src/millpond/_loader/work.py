"""What a worker does with a task of the loader: read a part into the arena, or finish a batch.

A `Work` is built in the training process, travels once to each worker, is attached to the arena there, and is then
called per task. With no workers the training process calls it itself. It keeps no state between tasks but open files.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from millpond._arena.layout import SlotPool
from millpond._arena.memory import ArenaMemory
from millpond._datasets.base import (
    FetchedRange,
    FrameWriter,
    Progress,
    Reader,
    Sink,
    StreamedReader,
    WantedRange,
    total_counters,
)
from millpond._datasets.sinks import writer_to
from millpond._media.heap import keep_freed_memory
from millpond._values import Field
from millpond.errors import DataError, RemoteError

WINDOW_SUFFIX = "/window"
"""A block keeps, beside the frames of a field, which of them each sample shows at each step."""

_POPULATED_BYTES = 32 << 20
"""Of the arena are mapped before each task, until all of it is: 6 ms."""

Place = tuple[WantedRange, int | DataError]
"""Bytes that a task will read: where in the arena they begin, or why they could not be fetched."""

Transform = Callable[[dict[str, NDArray[Any]]], dict[str, Any]]


class ReadTask(NamedTuple):
    """Read some parts of some consecutive samples; see `pond.SegmentTask`. `fetched`: what of their bytes is there."""

    parts: tuple[str, ...]
    generation: int
    samples: NDArray[np.int64]
    slots: NDArray[np.int64]
    rows: NDArray[np.int64]
    fetched: tuple[Place, ...] = ()


class CopyTask(NamedTuple):
    """Finish a batch; see `pond.FinishTask`."""

    outlet_slot: int
    samples: NDArray[np.int64]
    slots: NDArray[np.int64]
    slot_rows: NDArray[np.int64]
    rows: NDArray[np.int64]


class Ran(NamedTuple):
    """Where and when a task was carried out; times of `time.monotonic_ns()`, which processes share."""

    worker_index: int
    pid: int
    began_ns: int
    ended_ns: int


class Outcome(NamedTuple):
    """What came of a task.

    Attributes:
        failures: (positions in the task's samples, why they have no data).
        counters: Frames decoded, bytes read, ...
        learned: For `Dataset.learn`, one by one.
        ran: Where and when.
    """

    failures: Sequence[tuple[NDArray[np.int64], Exception]]
    counters: dict[str, int]
    learned: Sequence[object] = ()
    ran: Ran = Ran(0, 0, 0, 0)


def pack_task(task: ReadTask | CopyTask) -> bytes:
    """A task as it travels: arrays as their bytes, since numpy's own pickling is most of what a task would cost."""
    plain = tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in task)
    return pickle.dumps((type(task) is ReadTask, plain), protocol=5)


def unpack_task(data: bytes) -> ReadTask | CopyTask:
    """The task again, its arrays read-only."""
    is_read, plain = pickle.loads(data)
    values: list[Any] = [np.frombuffer(value, np.int64) if isinstance(value, bytes) else value for value in plain]
    return ReadTask(*values) if is_read else CopyTask(*values)


class Work:
    """The handler that every worker of a loader runs.

    Args:
        reader: Of the dataset.
        fields: Arrays of a sample as the reader gives them.
        pond: Open batches or blocks.
        outlet: Finished batches, if batches are finished.
        gathered: Whether the pond holds blocks.
        transform: The user's function on one sample, applied when a batch is finished.
        kept: Names of what is no array that the transform gives back as it came; the dataset adds it to batches.
    """

    def __init__(
        self,
        reader: Reader,
        fields: tuple[Field, ...],
        pond: SlotPool,
        outlet: SlotPool | None,
        *,
        gathered: bool,
        transform: Transform | None,
        arena_bytes: int,
        kept: tuple[str, ...] = (),
    ) -> None:
        self._reader = reader
        self._fields = {field.name: field for field in fields}
        self._pond = pond
        self._outlet = outlet
        self._gathered = gathered
        self._transform = transform
        self._arena_bytes = arena_bytes
        self._kept = frozenset(kept)
        self._arena: ArenaMemory | None = None
        self._generation = 0
        self._worker_index = 0

    def attach(self, descriptors: Sequence[int], worker_index: int) -> None:
        """Map the arena in a worker, which owns its descriptor from now on."""
        keep_freed_memory()
        self._worker_index = worker_index
        self.use(ArenaMemory(descriptors[0], self._arena_bytes))

    def use(self, arena: ArenaMemory) -> None:
        """Work on an arena that is mapped here already."""
        self._arena = arena

    def close(self) -> None:
        """Close the reader's files and let go of the arena."""
        self._reader.close()
        if self._arena is not None:
            self._arena.close()
            self._arena = None

    def __call__(self, packed: bytes, progress: Progress) -> tuple[object, ...]:
        """Carry out a packed task, in a worker; the outcome comes back as a plain tuple."""
        assert self._arena is not None
        self._arena.populate(_POPULATED_BYTES)
        return tuple(self.carry_out(unpack_task(packed), progress))

    def carry_out(self, task: ReadTask | CopyTask, progress: Progress) -> Outcome:
        """Carry out a task of this loader."""
        began_ns = time.monotonic_ns()
        outcome = self._read(task, progress) if isinstance(task, ReadTask) else self._finish(task, progress)
        return outcome._replace(ran=Ran(self._worker_index, os.getpid(), began_ns, time.monotonic_ns()))

    def _read(self, task: ReadTask, progress: Progress) -> Outcome:
        if task.generation != self._generation:
            self._reader.close()
            self._generation = task.generation
        if self._gathered:
            sink: Sink = BlockSink(self, int(task.slots[0]), task.rows)
        else:
            sink = BatchSink(self, task.slots, task.rows)
        with self._provided(task.fetched):
            reports = [self._reader.read(part, task.samples, sink, progress) for part in task.parts]
        return Outcome(
            [(at, _without_frames(error)) for report in reports for at, error in report.failures],
            total_counters([report.counters for report in reports]),
            [report.learned for report in reports if report.learned is not None],
        )

    @contextlib.contextmanager
    def _provided(self, fetched: tuple[Place, ...]) -> Iterator[None]:
        """The reader may read what was fetched, while the task runs."""
        if not fetched:
            yield
            return
        reader, arena = cast(StreamedReader, self._reader), self._buffer()
        views = [
            (WantedRange(*wanted), arena[place : place + wanted[3] - wanted[2]] if isinstance(place, int) else place)
            for wanted, place in fetched
        ]
        reader.provide([FetchedRange(*view) for view in views])
        try:
            yield
        finally:
            reader.provide(())

    def _finish(self, task: CopyTask, progress: Progress) -> Outcome:
        failures = []
        for position in range(len(task.rows)):
            slot, row = int(task.slots[position]), int(task.slot_rows[position])
            if self._transform is None:
                self._copy_row(slot, row, task.outlet_slot, int(task.rows[position]))
            else:
                try:
                    self._transform_row(
                        int(task.samples[position]), slot, row, task.outlet_slot, int(task.rows[position])
                    )
                except (KeyboardInterrupt, GeneratorExit):
                    raise  # in the training process itself
                except BaseException as error:  # noqa: BLE001 - the user's code may raise anything; it fails this sample
                    failures.append((np.asarray([position]), _without_frames(error)))
            progress()
        return Outcome(failures, {})

    def pond_view(self, slot: int, name: str) -> NDArray[Any]:
        """Rows of a field in a slot of the pond."""
        return self._pond.view(self._buffer(), slot, name)

    def _outlet_view(self, slot: int, name: str) -> NDArray[Any]:
        assert self._outlet is not None
        return self._outlet.view(self._buffer(), slot, name)

    def _buffer(self) -> memoryview:
        assert self._arena is not None
        return self._arena.buffer

    def _copy_row(self, slot: int, row: int, outlet_slot: int, outlet_row: int) -> None:
        for name, field in self._fields.items():
            target = self._outlet_view(outlet_slot, name)
            if field.frames and self._gathered:
                self._gather(slot, row, name, target[outlet_row])
            else:
                target[outlet_row] = self.pond_view(slot, name)[row]

    def _gather(self, block: int, row: int, name: str, target: NDArray[Any]) -> None:
        window = self.pond_view(block, name + WINDOW_SUFFIX)[row]
        frames = self.pond_view(block, name)[0]
        # mode: "raise" would copy through a buffer; the indices are our own.
        np.take(frames, window, axis=0, out=target.reshape(len(window), *frames.shape[1:]), mode="clip")

    def _transform_row(self, sample: int, slot: int, row: int, outlet_slot: int, outlet_row: int) -> None:
        assert self._outlet is not None
        given = self.transformed(sample, slot, row)
        expected = self._outlet.layout.placements.keys() | self._kept
        if given.keys() != expected:
            raise ValueError(f"transform gave {sorted(given)}, for the first sample it gave {sorted(expected)}")
        self._check_kept(given, sample)
        arrays = {name: np.asarray(value) for name, value in given.items() if name not in self._kept}
        for name, array in arrays.items():
            length = self._outlet.layout.placements[name].field.length
            if length is not None:
                arrays[length] = np.asarray(len(array), arrays[length].dtype)
        for name, array in arrays.items():
            self._put(name, array, self._outlet_view(outlet_slot, name)[outlet_row, ...])

    def _put(self, name: str, array: NDArray[Any], target: NDArray[Any]) -> None:
        """Write one array of a transform; of those that vary in length the rest is zeros."""
        assert self._outlet is not None
        whole = array.shape == target.shape
        if self._outlet.layout.placements[name].field.length is not None:
            whole = array.shape[1:] == target.shape[1:] and len(array) <= len(target)
        if not whole or array.dtype != target.dtype:
            raise ValueError(
                f"transform gave {name!r} as {array.dtype} {array.shape}, for the first sample it was "
                f"{target.dtype} {target.shape}; every sample must have the same shape and dtype: pad what varies"
            )
        if array.ndim:
            target[len(array) :] = 0
            target[: len(array)] = array
        else:
            target[...] = array

    def _check_kept(self, given: dict[str, Any], sample: int) -> None:
        attributes = self._reader.attributes(sample) if self._kept else {}
        for name in self._kept:
            if given[name] != attributes[name]:
                raise ValueError(
                    f"transform gave {name!r} another text than the sample's; text that a transform makes does not "
                    "travel: give an array of numbers under another name, or the text as it came"
                )

    def transformed(self, sample: int, slot: int, row: int) -> dict[str, Any]:
        """What the user's function makes of a sample; TypeError if it is no dict."""
        assert self._transform is not None
        given = self._transform(self._whole_sample(sample, slot, row))
        if not isinstance(given, dict):
            raise TypeError(f"transform must return a dict of arrays, not {type(given).__name__}")
        return given

    def _whole_sample(self, sample: int, slot: int, row: int) -> dict[str, Any]:
        """A sample as the user's function sees it: copies that are theirs, as long as the sample's own data is."""
        values = {name: self._field_of_sample(slot, row, name) for name in self._fields}
        for name, field in self._fields.items():
            if field.length is not None:
                values[name] = values[name][: int(values[field.length])]
        return {**values, **self._reader.attributes(sample)}

    def _field_of_sample(self, slot: int, row: int, name: str) -> NDArray[Any]:
        field = self._fields[name]
        if field.frames and self._gathered:
            value = np.empty(field.shape, field.dtype)
            self._gather(slot, row, name, value)
        else:
            value = self.pond_view(slot, name)[row].copy()
        return delivered(value, field)


def _without_frames(error: BaseException) -> Exception:
    """The error as it can travel, its traceback a note: frames keep alive whatever their callers held, batches too."""
    try:
        cloudpickle.dumps(error)
        can_travel = isinstance(error, Exception)  # what would end the interpreter ends a sample
    except BaseException:  # noqa: BLE001 - the user's own __reduce__ may raise anything
        can_travel = False
    if not can_travel or not isinstance(error, Exception):
        text = "".join(traceback.format_exception(error))
        name = type(error).__qualname__
        return RemoteError(f"{name}: {error}", type_name=name, text=str(error), traceback_text=text)
    if error.__traceback__ is not None:
        error.add_note("".join(traceback.format_tb(error.__traceback__)).rstrip())
    error.__cause__ = error.__context__ = None  # they have frames as well; the message says what they said
    return error.with_traceback(None)


def delivered(value: NDArray[Any], field: Field) -> NDArray[Any]:
    """Stored (..., H, W, C) frames as (..., C, H, W), the same memory; other fields as they are."""
    return np.moveaxis(value, -1, -3) if field.frames else value


class BatchSink:
    """Writes frames straight into every row of every open batch that shows them."""

    def __init__(self, work: Work, slots: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self._work = work
        self._slots = slots
        self._rows = rows

    def _targets(self, field: str) -> list[NDArray[Any]]:
        views = {slot: self._work.pond_view(slot, field) for slot in set(self._slots.tolist())}
        return [views[slot][row, ...] for slot, row in zip(self._slots.tolist(), self._rows.tolist(), strict=True)]

    def frame_writer(self, field: str, window: NDArray[np.int32]) -> FrameWriter:
        """See `Sink`."""
        return writer_to(self._targets(field), window)

    def put(self, field: str, values: NDArray[Any]) -> None:
        """See `Sink`."""
        for target, value in zip(self._targets(field), values, strict=True):
            target[...] = value


class BlockSink:
    """Keeps a decoded segment: every frame once, and which of them each sample shows."""

    def __init__(self, work: Work, slot: int, rows: NDArray[np.int64]) -> None:
        self._work = work
        self._slot = slot
        self._rows = rows

    def frame_writer(self, field: str, window: NDArray[np.int32]) -> FrameWriter:
        """See `Sink`."""
        self._work.pond_view(self._slot, field + WINDOW_SUFFIX)[self._rows] = window
        frames = self._work.pond_view(self._slot, field)[0]

        def write(frame: int, picture: NDArray[np.uint8]) -> None:
            frames[frame] = picture

        return write

    def put(self, field: str, values: NDArray[Any]) -> None:
        """See `Sink`."""
        self._work.pond_view(self._slot, field)[self._rows] = values
