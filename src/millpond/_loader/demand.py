"""What a loader asks of the memory plan, read off a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._arena.layout import SlotLayout, SlotPool
from millpond._arena.memory import ArenaMemory
from millpond._datasets.base import Dataset
from millpond._loader.work import WINDOW_SUFFIX, ReadTask, Transform, Work, check_transformed
from millpond._plan.memory import Demand
from millpond._plan.segments import Segments
from millpond._values import Field
from millpond.errors import DataError

PROBED_SAMPLES = 16
"""A transform is tried on the first good sample among so many."""


def steps_of(field: Field) -> int:
    """Pictures of one sample of a field of frames."""
    return int(np.prod(field.shape[:-3]))


def demand_of(
    dataset: Dataset,
    *,
    batch_size: int,
    outlet_fields: tuple[Field, ...] | None,
    shuffle: bool,
    drop_last: bool,
    seed: int,
    held_batches: int,
    num_workers: int,
) -> Demand:
    """Everything that the memory plan must know."""
    cameras = [field for field in dataset.fields if field.frames]
    copies = sum(steps_of(field) for field in cameras) / len(cameras) if cameras else 1.0
    return Demand(
        cuts=dataset.cuts(),
        groups=dataset.groups,
        decoded_frames=dataset.cut_costs,
        block_bytes=lambda starts, stops: block_layout(dataset, Segments(starts, stops)).slot_bytes,
        batch_size=batch_size,
        sample_bytes=-(-SlotLayout.of([(field, batch_size) for field in dataset.fields]).slot_bytes // batch_size),
        outlet_sample_bytes=None
        if outlet_fields is None
        else -(-SlotLayout.of([(field, batch_size) for field in outlet_fields]).slot_bytes // batch_size),
        num_cameras=len(cameras),
        num_parts=len(dataset.parts),
        window_copies=copies,
        shuffle=shuffle,
        drop_last=drop_last,
        seed=seed,
        held_batches=held_batches,
        num_workers=num_workers,
        num_samples=len(dataset),
    )


def block_layout(dataset: Dataset, segments: Segments) -> SlotLayout:
    """A block that holds any of the segments: unique frames, which sample shows which, and the other fields."""
    rows = int(segments.lengths.max())
    most_frames = int(dataset.unique_frames(segments.starts, segments.stops).max())
    fields: list[tuple[Field, int]] = []
    for field in dataset.fields:
        if field.frames:
            fields.append((Field(field.name, (most_frames, *field.shape[-3:]), field.dtype, frames=True), 1))
            fields.append((Field(field.name + WINDOW_SUFFIX, (steps_of(field),), "int32"), rows))
        else:
            fields.append((field, rows))
    return SlotLayout.of(fields)


def probe_transform(dataset: Dataset, transform: Transform) -> dict[str, Field]:
    """The fields that a transform gives, learned from the first good sample, here in the training process."""
    layout = SlotLayout.of([(field, 1) for field in dataset.fields])
    arena = ArenaMemory.create(layout.slot_bytes)
    pool = SlotPool(layout, 0, 1)
    work = Work(
        dataset.reader(), dataset.fields, pool, None, gathered=False, transform=None, arena_bytes=arena.size_bytes
    )
    work.use(arena)
    try:
        for sample in range(min(PROBED_SAMPLES, len(dataset))):
            error = _read_one(work, dataset.parts, sample)
            if error is None:
                given = transform({field.name: work.sample(0, 0, field.name) for field in dataset.fields})
                check_transformed(given)
                return {name: _field_of(name, np.asarray(value)) for name, value in given.items()}
        raise error or DataError("the dataset has no samples")
    finally:
        work.close()


def _read_one(work: Work, parts: tuple[str, ...], sample: int) -> Exception | None:
    samples, zero = np.asarray([sample]), np.asarray([0])
    outcome = work.carry_out(ReadTask(parts, 0, samples, zero, zero), _unwatched)
    return outcome.failures[0][1] if outcome.failures else None


def _unwatched() -> None:
    """Progress of a task that nobody watches."""


def _field_of(name: str, value: NDArray[Any]) -> Field:
    if value.dtype.hasobject or value.dtype.kind not in "biufc":
        raise TypeError(f"transform gave {name!r} as {value.dtype}; every value must be an array of numbers")
    return Field(name, value.shape, value.dtype.str)
