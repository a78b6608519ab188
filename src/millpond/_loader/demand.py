"""What a loader asks of the memory plan, read off a dataset."""

from __future__ import annotations

import numpy as np

from millpond._arena.layout import SlotLayout
from millpond._datasets.base import Dataset
from millpond._loader.ranks import Ration
from millpond._loader.work import WINDOW_SUFFIX
from millpond._plan.demand import Demand
from millpond._plan.segments import Segments
from millpond._values import Field


def steps_of(field: Field) -> int:
    """Pictures of one sample of a field of frames."""
    return int(np.prod(field.shape[:-3]))


def demand_of(
    ration: Ration,
    *,
    batch_size: int,
    outlet_fields: tuple[Field, ...] | None,
    shuffle: bool,
    seed: int,
    horizon_batches: int | None,
    held_batches: int,
    num_workers: int,
    fetch_workers: int,
) -> Demand:
    """Everything that the memory plan must know."""
    dataset = ration.dataset
    source = dataset.byte_source
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
        seed=seed,
        held_batches=held_batches,
        num_workers=num_workers,
        shards=ration.shards,
        num_batches=ration.num_batches,
        horizon_batches=horizon_batches,
        fetched_bytes=None if source is None else source.segment_bytes,
        fetch_workers=fetch_workers,
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
