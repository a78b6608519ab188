"""What a plan must know of a dataset and of the user's wishes, and the order of an epoch that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from millpond._plan.canonical import order_shard
from millpond._plan.epoch import DecodeOrder, EpochPlan, decode_order, merge_plans, order_epoch
from millpond._plan.passes import take_passes
from millpond._plan.segments import Segments, cut_segments, join_segments
from millpond._plan.shards import Shard

_ASKED_CUTS = 10_000
"""Of samples that are segments of their own, whose frames are counted."""

Cutting = tuple[tuple[Segments, ...], ...]
"""The segments of every run of every shard."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the plan must know of a dataset and of the user's wishes.

    Attributes:
        cuts: int64 (S + 1,), where segments may start for free.
        groups: int64 (N,), the episode of each sample.
        decoded_frames: (starts, stops) -> int64 (K,), frames decoded over all cameras to serve each run of samples.
        block_bytes: (starts, stops) -> bytes of the largest decoded segment, kept as a block.
        batch_size: Rows of a batch.
        sample_bytes: Bytes of one row of an open batch.
        outlet_sample_bytes: Bytes of one row as the transform leaves it; None: no transform.
        num_cameras: Frames of one sample and step.
        num_parts: Tasks per segment.
        window_copies: How often a frame is written: the mean number of (sample, step) pairs that show it.
        shuffle: Whether the order is shuffled.
        seed: Of the order.
        held_batches: Batches that the user may hold.
        num_workers: Worker processes.
        shards: What an epoch consists of; each fills its part of every batch.
        num_batches: Of an epoch: later ones are dropped, missing ones have no rows; None: as many as there are.
        horizon_batches: Fixed, so that the order does not depend on memory; None: what memory has room for.
        fetched_bytes: (starts, stops) -> int64 (K,), about how many bytes must be fetched for each run of samples; None
            where they are at hand.
        fetch_workers: Requests under way at once.
    """

    cuts: NDArray[np.int64]
    groups: NDArray[np.int64]
    decoded_frames: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
    block_bytes: Callable[[NDArray[np.int64], NDArray[np.int64]], int]
    batch_size: int
    sample_bytes: int
    outlet_sample_bytes: int | None
    num_cameras: int
    num_parts: int
    window_copies: float
    shuffle: bool
    seed: int
    held_batches: int
    num_workers: int
    shards: tuple[Shard, ...]
    num_batches: int | None = None
    horizon_batches: int | None = None
    fetched_bytes: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]] | None = None
    fetch_workers: int = 0

    @property
    def num_samples(self) -> int:
        """Of an epoch."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def shard_rows(self) -> int:
        """Rows of a batch that each shard fills."""
        return self.batch_size // len(self.shards)

    @property
    def frames_per_sample(self) -> float:
        """Frames of one sample and camera: 1, or a clip's where every sample is one of its own. Never 0."""
        if len(self.cuts) - 1 != len(self.groups):
            return 1.0
        cuts = self.cuts[:_ASKED_CUTS]
        alone = int(self.decoded_frames(cuts[:-1], cuts[1:]).sum())
        together = int(self.decoded_frames(cuts[:1], cuts[-1:]).sum())
        return alone / ((len(cuts) - 1) * max(self.num_cameras, 1)) if alone == together > 0 else 1.0

    def prefix(self, most_samples: int) -> Demand:
        """The same with the first samples of each run, in proportion, about `most_samples` in all."""
        kept = most_samples / max(self.num_samples, 1)
        if kept >= 1:
            return self
        return replace(self, shards=tuple(self._prefix_of(shard, kept) for shard in self.shards), num_batches=None)

    def _prefix_of(self, shard: Shard, kept: float) -> Shard:
        runs = []
        for start, stop in shard.runs:
            cuts = cuts_within(self.cuts, start, stop)
            last = int(np.searchsorted(cuts, start + kept * (stop - start))) - 1
            runs.append((start, int(cuts[min(max(last, 1), len(cuts) - 1)])))
        if shard.quotas is None:
            return replace(shard, runs=tuple(runs))
        fewer = tuple(max(1, int(kept * quota)) for quota in shard.quotas.of_members)
        return replace(shard, runs=tuple(runs), quotas=replace(shard.quotas, of_members=fewer))

    def cut(self, *, target_samples: int, split: bool) -> Cutting:
        """Cut every run into segments; see `cut_segments`."""
        return tuple(
            tuple(
                cut_segments(cuts_within(self.cuts, *run), target_samples=target_samples, split=split)
                for run in shard.runs
            )
            for shard in self.shards
        )

    def lengths_of_any_epoch(self, cutting: Cutting) -> NDArray[np.int64]:
        """int64: of the segments that an epoch has at most; where there are quotas, with those cut at their ends."""
        found = []
        for shard, runs in zip(self.shards, cutting, strict=True):
            for member, segments in enumerate(runs):
                if shard.quotas is None:
                    found.append(segments.lengths)
                elif len(segments):
                    passes = shard.quotas.most(member) // int(segments.lengths.sum()) + 2
                    found += [np.repeat(segments.lengths, passes), np.ones(2, np.int64)]
        return np.concatenate(found)

    def decode_orders(self, cutting: Cutting, epoch: int) -> tuple[DecodeOrder, ...]:
        """What chance decides of one epoch, for each shard."""
        return tuple(
            decode_order(
                self._segments_of(shard, runs, epoch),
                self.groups,
                shuffle=self.shuffle,
                seed=self.seed,
                epoch=epoch,
                shard=shard.number,
            )
            for shard, runs in zip(self.shards, cutting, strict=True)
        )

    def order(self, of_shards: Sequence[DecodeOrder], horizon_batches: int) -> EpochPlan:
        """The order of the epoch that `decode_orders` are of."""
        order = order_epoch if self.horizon_batches is None else order_shard
        plan = merge_plans(
            [order(one, batch_size=self.shard_rows, horizon_batches=horizon_batches) for one in of_shards]
        )
        return plan if self.num_batches is None else plan.with_batches(self.num_batches)

    def _segments_of(self, shard: Shard, runs: tuple[Segments, ...], epoch: int) -> Segments:
        if shard.quotas is None:
            return join_segments(runs)
        taken = []
        for member, segments in enumerate(runs):
            start, stop = shard.quotas.places(member, epoch)
            seed = (self.seed, shard.number, member)
            taken.append(take_passes(segments, start=start, stop=stop, shuffle=self.shuffle, seed=seed))
        return join_segments(taken)


def all_segments(cutting: Cutting) -> Segments:
    """Those of every run of every shard."""
    return join_segments([segments for runs in cutting for segments in runs])


def cuts_within(cuts: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """The free cuts within a run of samples, and its ends."""
    if start == stop:
        return np.asarray([start], np.int64)
    inner = cuts[np.searchsorted(cuts, start, side="right") : np.searchsorted(cuts, stop, side="left")]
    return np.concatenate(([start], inner, [stop])).astype(np.int64)
