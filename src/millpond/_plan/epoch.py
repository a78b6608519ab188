"""The order of one epoch: which sample stands in which row of which batch. Pure: seed and parameters in, arrays out.

Theory of operation. Segments are decoded one after the other, in an order that spreads each group (episode) evenly
over the epoch. A sample that is decoded when `n` samples came before its segment is given a position
``n - D + H * u`` with u uniform in [0, 1): it leaves somewhere within the horizon H (in samples) that opens when its
segment is decoded. Sorting by position gives the order of delivery; a batch is the next `batch_size` of them. Within a
segment u is stratified (one sample in each of `length` equal strata), so a segment gives every batch of its horizon
the same share.

In the steady state a batch that is due is full, one that was just opened is empty, and those between lie on a line:
the pond is half full. The first D = H / 2 samples fill that triangle at the start (density falling over the horizon),
and the last D samples mirror it, so batches leave at the pace of decoding from the first to the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from millpond._plan.segments import Segments


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """Where every sample of an epoch goes, in the order in which the segments are decoded.

    Attributes:
        segment_bounds: int64 (K + 1,); segment k of the order holds entries [segment_bounds[k], segment_bounds[k + 1]).
        samples: int64 (M,), sample indices.
        batches: int64 (M,), the batch of each.
        rows: int64 (M,), its row in that batch.
        first_batch: Batches before this one were delivered before a resume, and are not in the arrays.
        num_batches: Batches of the whole epoch.
        num_dropped: Samples left out because short batches were not wanted.
        epoch: Its number.
    """

    segment_bounds: NDArray[np.int64]
    samples: NDArray[np.int64]
    batches: NDArray[np.int64]
    rows: NDArray[np.int64]
    first_batch: int
    num_batches: int
    num_dropped: int
    epoch: int

    @property
    def num_segments(self) -> int:
        """Segments that still have samples to give."""
        return len(self.segment_bounds) - 1

    @property
    def batch_sizes(self) -> NDArray[np.int64]:
        """Rows of each batch of the whole epoch, int64 (num_batches,); 0 before `first_batch`."""
        return np.bincount(self.batches, minlength=self.num_batches).astype(np.int64)

    def delivery_order(self) -> NDArray[np.int64]:
        """Sample indices in the order in which the user gets them, int64 (M,)."""
        return self.samples[np.lexsort((self.rows, self.batches))]

    def resumed_at(self, batch: int) -> EpochPlan:
        """The same epoch without what was delivered: nothing before `batch`, every later row where it was."""
        return replace(self._only(self.batches >= batch), first_batch=batch)

    def with_batches(self, num_batches: int) -> EpochPlan:
        """The same epoch with so many batches: what later ones have is dropped, missing ones have no rows."""
        kept = self.batches < num_batches
        if kept.all():
            return replace(self, num_batches=num_batches)
        dropped = self.num_dropped + int((~kept).sum())
        return replace(self._only(kept), num_batches=num_batches, num_dropped=dropped)

    def _only(self, kept: NDArray[np.bool_]) -> EpochPlan:
        """The same with some entries, bool (M,); segments that have none left are gone."""
        entries = np.flatnonzero(kept)
        segment = np.searchsorted(self.segment_bounds, entries, side="right") - 1
        _, counts = np.unique(segment, return_counts=True)
        bounds = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return replace(
            self,
            segment_bounds=bounds,
            samples=self.samples[entries],
            batches=self.batches[entries],
            rows=self.rows[entries],
        )


def plan_epoch(
    segments: Segments,
    groups: NDArray[np.int64],
    *,
    batch_size: int,
    horizon_batches: int,
    shuffle: bool,
    seed: int,
    epoch: int,
    shard: int = 0,
) -> EpochPlan:
    """Order one epoch.

    Args:
        segments: What a task decodes; every sample in one of them.
        groups: int64 (N,), the episode of each sample; segments of one group are spread over the epoch.
        batch_size: Rows of a batch.
        horizon_batches: A segment's samples leave within about so many batches; 0: in the order they are decoded in.
        shuffle: False gives the dataset's own order.
        seed: With `epoch` and `shard`, the only source of randomness.
        epoch: The epoch's number.
        shard: The number of the shard whose segments they are.
    """
    lengths = segments.lengths
    total = int(lengths.sum())
    entropy = [seed, epoch, shard] if shard else [seed, epoch]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    order = _spread_order(groups[segments.starts], rng) if shuffle else np.arange(len(segments))
    lengths = lengths[order]
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    samples = np.repeat(segments.starts[order] - bounds[:-1], lengths) + np.arange(total)
    if shuffle and horizon_batches:
        horizon = min(horizon_batches * batch_size, total)
        positions = _positions(bounds, _stratified_uniform(bounds, rng), horizon)
        rank = np.empty(total, dtype=np.int64)
        rank[np.argsort(positions, kind="stable")] = np.arange(total)
    else:
        rank = np.arange(total, dtype=np.int64)
    return EpochPlan(
        bounds,
        samples,
        rank // batch_size,
        rank % batch_size,
        first_batch=0,
        num_batches=-(-total // batch_size),
        num_dropped=0,
        epoch=epoch,
    )


def merge_plans(plans: Sequence[EpochPlan]) -> EpochPlan:
    """One plan for several shards of a rank: batch k has the rows of each shard's batch k, one shard after the other.

    Segments come in the order of the samples that their shards decode before them, so all shards are decoded in step.
    """
    if len(plans) == 1:
        return plans[0]
    progress = np.concatenate([plan.segment_bounds[:-1] for plan in plans])
    lengths = np.concatenate([np.diff(plan.segment_bounds) for plan in plans])
    order = np.argsort(progress, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[order]  # of each segment's entries, where plans stand one after the other
    bounds = np.concatenate(([0], np.cumsum(lengths[order]))).astype(np.int64)
    entries = np.repeat(starts - bounds[:-1], lengths[order]) + np.arange(bounds[-1])
    num_batches = max(plan.num_batches for plan in plans)
    before = np.zeros(num_batches, np.int64)
    rows = []
    for plan in plans:
        rows.append(plan.rows + before[plan.batches])
        before[: plan.num_batches] += plan.batch_sizes
    return replace(
        plans[0],
        segment_bounds=bounds,
        samples=np.concatenate([plan.samples for plan in plans])[entries],
        batches=np.concatenate([plan.batches for plan in plans])[entries],
        rows=np.concatenate(rows)[entries],
        num_batches=num_batches,
        num_dropped=sum(plan.num_dropped for plan in plans),
    )


def _rank_within(groups: NDArray[np.int64], keys: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank of each entry among those of its group by key, and the size of its group; both int64 (N,)."""
    order = np.lexsort((keys, groups))
    grouped = groups[order]
    starts = np.flatnonzero(np.concatenate(([True], grouped[1:] != grouped[:-1])))
    sizes = np.diff(np.append(starts, len(groups)))
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    size = np.empty(len(groups), dtype=np.int64)
    size[order] = np.repeat(sizes, sizes)
    return rank, size


def _spread_order(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order in which each group's members lie evenly over the whole.

    Independent keys would leave an episode out for long stretches: at GOP 30 and 27 open batches the mean number of
    distinct episodes per batch rises from 0.91 to 1.06 of a full shuffle's by this alone.
    """
    rank, size = _rank_within(groups, rng.random(len(groups)))
    return np.argsort((rank + rng.random(len(groups))) / size, kind="stable")


def _stratified_uniform(bounds: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """One number in [0, 1) per sample, one in each of `length` equal strata of its segment, in random order."""
    total = int(bounds[-1])
    segment = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    rank, size = _rank_within(segment, rng.random(total))
    return (rank + rng.random(total)) / size


def _positions(bounds: NDArray[np.int64], u: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    total = int(bounds[-1])
    before = np.repeat(bounds[:-1], np.diff(bounds))  # samples decoded before the sample's segment
    fill = horizon / 2
    steady = before - fill + horizon * u
    # Inverse of the cumulative of the falling (1 - x) and of the rising (x) triangle.
    start = horizon * (1.0 - np.sqrt(1.0 - u))
    end = total - horizon + horizon * np.sqrt(u)
    return np.where(before < fill, start, np.where(before >= total - fill, end, steady))


def open_batches_needed(plan: EpochPlan) -> int:
    """The least number of batches open at once with which `plan` cannot come to a standstill.

    Segments are dispatched in order. While batch t waits for its last segment, all segments before that one may have
    opened batches; slots for all of those must exist.
    """
    if plan.num_segments == 0:
        return 1
    last_opened = np.maximum.accumulate(np.maximum.reduceat(plan.batches, plan.segment_bounds[:-1]))
    last_segment = last_segment_of_batches(plan)
    waiting = np.arange(plan.first_batch, plan.num_batches)
    return int((last_opened[last_segment[plan.first_batch :]] - waiting).max()) + 1


def blocks_needed(plan: EpochPlan) -> int:
    """The least number of decoded segments kept at once with which `plan`, gathered, cannot come to a standstill."""
    if plan.num_segments == 0:
        return 1
    freed_after = np.maximum.reduceat(plan.batches, plan.segment_bounds[:-1])
    wanted = last_segment_of_batches(plan)[plan.first_batch :]
    batches = np.arange(plan.first_batch, plan.num_batches)
    # Alive while batch t is gathered: segments up to the last one wanted, less those whose last batch came before t.
    gone = np.searchsorted(np.sort(freed_after), batches, side="left")
    return int((wanted + 1 - gone).max())


def slots_always_enough(segments: Segments, batch_size: int, *, gathered: bool) -> int:
    """Slots with which a horizon of 0 runs in every epoch, whatever order the segments come in."""
    lengths = np.sort(segments.lengths)
    if not gathered:
        return -(-int(lengths[-1]) // batch_size) + 1
    # A batch may begin within one segment, hold the shortest ones whole, and end within another.
    return min(int(np.searchsorted(np.cumsum(lengths), batch_size)) + 2, len(lengths))


def last_segment_of_batches(plan: EpochPlan) -> NDArray[np.int64]:
    """int64 (num_batches,): the last segment, in the order of decoding, of which this or an earlier batch has rows."""
    segment = np.repeat(np.arange(plan.num_segments), np.diff(plan.segment_bounds))
    last = np.zeros(plan.num_batches, dtype=np.int64)
    np.maximum.at(last, plan.batches, segment)
    return np.maximum.accumulate(last)
