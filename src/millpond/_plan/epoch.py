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

_BLOCK_SAMPLES = 1 << 16
"""Arrays that are needed for a moment are so long: they stay in a core's cache, and out of the peak."""


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """Where every sample of an epoch goes, in the order in which the segments are decoded.

    Attributes:
        segment_bounds: int64 (K + 1,); segment k of the order holds entries [segment_bounds[k], segment_bounds[k + 1]).
        samples: int64 (M,), sample indices.
        batches: int32 (M,), the batch of each.
        rows: int32 (M,), its row in that batch.
        first_batch: Batches before this one were delivered before a resume, and are not in the arrays.
        num_batches: Batches of the whole epoch.
        num_dropped: Samples left out because short batches were not wanted.
        epoch: Its number.
    """

    segment_bounds: NDArray[np.int64]
    samples: NDArray[np.int64]
    batches: NDArray[np.int32]
    rows: NDArray[np.int32]
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
        width = int(self.rows.max(initial=0)) + 1
        delivered: NDArray[np.int64] = self.samples[np.argsort(self.batches.astype(np.int64) * width + self.rows)]
        return delivered

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
        counts = np.add.reduceat(kept, self.segment_bounds[:-1], dtype=np.int64)
        return replace(
            self,
            segment_bounds=_bounds_of(counts[counts > 0]),
            samples=self.samples[kept],
            batches=self.batches[kept],
            rows=self.rows[kept],
        )


@dataclass(frozen=True, slots=True)
class DecodeOrder:
    """What an epoch takes from chance: all of its order that the horizon does not change.

    Attributes:
        starts: int64 (K,), first sample of each segment, in the order in which they are decoded.
        bounds: int64 (K + 1,), samples decoded before each segment, and all.
        leaving: float64 (M,), where in the horizon each sample leaves, in [0, 1); None: in the order of decoding.
        epoch: The epoch's number.
    """

    starts: NDArray[np.int64]
    bounds: NDArray[np.int64]
    leaving: NDArray[np.float64] | None
    epoch: int


def decode_order(
    segments: Segments, groups: NDArray[np.int64], *, shuffle: bool, seed: int, epoch: int, shard: int = 0
) -> DecodeOrder:
    """Draw all that is chance in an epoch.

    Args:
        segments: What a task decodes; every sample in one of them.
        groups: int64 (N,), the episode of each sample; segments of one group are spread over the epoch.
        shuffle: False gives the dataset's own order.
        seed: With `epoch` and `shard`, the only source of randomness.
        epoch: The epoch's number.
        shard: The number of the shard whose segments they are.
    """
    if not shuffle:
        return DecodeOrder(segments.starts, _bounds_of(segments.lengths), None, epoch)
    entropy = [seed, epoch, shard] if shard else [seed, epoch]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    order = _spread_order(groups[segments.starts], rng)
    bounds = _bounds_of(segments.lengths[order])
    return DecodeOrder(segments.starts[order], bounds, _stratified_uniform(bounds, rng), epoch)


def order_epoch(order: DecodeOrder, *, batch_size: int, horizon_batches: int) -> EpochPlan:
    """Put the samples of segments that are decoded in this order into batches.

    Args:
        order: Of the segments.
        batch_size: Rows of a batch.
        horizon_batches: A segment's samples leave within about so many batches; 0: in the order they are decoded in.
    """
    total = int(order.bounds[-1])
    if order.leaving is not None and horizon_batches:
        horizon = min(horizon_batches * batch_size, total)
        place = _inverse(stable_order(_positions(order.bounds, order.leaving, horizon)))
    else:
        place = np.arange(total, dtype=np.int32)
    batches, rows = np.divmod(place, np.int32(batch_size))
    del place
    num_batches = -(-total // batch_size)
    return EpochPlan(order.bounds, _samples_of(order), batches, rows, 0, num_batches, num_dropped=0, epoch=order.epoch)


def _samples_of(order: DecodeOrder) -> NDArray[np.int64]:
    """int64 (M,), as they are decoded."""
    samples = np.repeat(order.starts - order.bounds[:-1], np.diff(order.bounds))
    for at in range(0, len(samples), _BLOCK_SAMPLES):
        some = samples[at : at + _BLOCK_SAMPLES]
        some += np.arange(at, at + len(some))
    return samples


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
    before = np.zeros(num_batches, np.int32)
    rows = []
    for plan in plans:
        rows.append(plan.rows + before[plan.batches])
        before[: plan.num_batches] += plan.batch_sizes.astype(np.int32)
    return replace(
        plans[0],
        segment_bounds=bounds,
        samples=np.concatenate([plan.samples for plan in plans])[entries],
        batches=np.concatenate([plan.batches for plan in plans])[entries],
        rows=np.concatenate(rows)[entries],
        num_batches=num_batches,
        num_dropped=sum(plan.num_dropped for plan in plans),
    )


def _bounds_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _inverse(order: NDArray[np.int64]) -> NDArray[np.int32]:
    """The place of each entry in an order."""
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place


def stable_order(keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """A stable order. Keys that nearly never are equal are sorted four times as fast as numpy's stable sort does."""
    order = np.argsort(keys)
    is_unsure = any(
        np.any(np.diff(keys[order[at : at + _BLOCK_SAMPLES + 1]]) == 0) for at in range(0, len(keys), _BLOCK_SAMPLES)
    )
    return np.argsort(keys, kind="stable") if is_unsure else order


def _rank_in_runs(bounds: NDArray[np.int64], keys: NDArray[np.float64]) -> NDArray[np.int32]:
    """Rank of each key among those of its run [bounds[k], bounds[k + 1]), int32 (M,); of equal ones the first is first.

    Runs of one length are sorted as the rows of a table, which takes a tenth of a sort of all.
    """
    rank = np.zeros(len(keys), np.int32)
    lengths = np.diff(bounds)
    by_length = np.argsort(lengths, kind="stable")
    for runs in np.split(by_length, np.flatnonzero(np.diff(lengths[by_length])) + 1):
        length = int(lengths[runs[0]]) if len(runs) else 0
        if length < 2:
            continue
        each = max(1, _BLOCK_SAMPLES // length)
        for some in range(0, len(runs), each):
            table = bounds[runs[some : some + each], None] + np.arange(length)
            order = np.argsort(keys[table], axis=1, kind="stable")
            rank[np.take_along_axis(table, order, axis=1)] = np.arange(length, dtype=np.int32)
    return rank


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
    return stable_order((rank + rng.random(len(groups))) / size)


def _stratified_uniform(bounds: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """One number in [0, 1) per sample, one in each of `length` equal strata of its segment, in random order."""
    uniform = rng.random(int(bounds[-1]))
    uniform[:] = _rank_in_runs(bounds, uniform)
    for at in range(0, len(uniform), _BLOCK_SAMPLES):
        some = uniform[at : at + _BLOCK_SAMPLES]
        some += rng.random(len(some))
    uniform /= np.repeat(np.diff(bounds), np.diff(bounds))
    return uniform


def _positions(bounds: NDArray[np.int64], u: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    total = int(bounds[-1])
    fill = horizon / 2
    positions = horizon * u
    positions += np.repeat(bounds[:-1] - fill, np.diff(bounds))
    # Inverse of the cumulative of the falling (1 - x) and of the rising (x) triangle; before the end comes the start.
    start, end = (int(bounds[np.searchsorted(bounds[:-1], edge)]) for edge in (fill, total - fill))
    positions[end:] = total - horizon + horizon * np.sqrt(u[end:])
    positions[:start] = horizon * (1.0 - np.sqrt(1.0 - u[:start]))
    return positions


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


def slots_always_enough(lengths: NDArray[np.int64], batch_size: int, *, gathered: bool) -> int:
    """Slots with which a horizon of 0 runs in every epoch, whatever order segments of these lengths come in."""
    lengths = np.sort(lengths)
    if not gathered:
        return -(-int(lengths[-1]) // batch_size) + 1
    # A batch may begin within one segment, hold the shortest ones whole, and end within another.
    return min(int(np.searchsorted(np.cumsum(lengths), batch_size)) + 2, len(lengths))


def last_segment_of_batches(plan: EpochPlan) -> NDArray[np.int64]:
    """int64 (num_batches,): the last segment, in the order of decoding, of which this or an earlier batch has rows."""
    segment = np.repeat(np.arange(plan.num_segments, dtype=np.int32), np.diff(plan.segment_bounds))
    last = np.zeros(plan.num_batches, dtype=np.int32)
    for at in range(0, len(segment), _BLOCK_SAMPLES):
        np.maximum.at(last, plan.batches[at : at + _BLOCK_SAMPLES], segment[at : at + _BLOCK_SAMPLES])
    return np.maximum.accumulate(last).astype(np.int64)
