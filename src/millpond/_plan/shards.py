"""Who gives what of an epoch: runs of samples for shards, shards for ranks. Pure arithmetic.

Theory of operation. An epoch is shared out among a number of shards, each of which has a contiguous run of samples (of
every member of a mix), the same in every epoch. A rank takes neighbouring shards, so that what it reads lies together:
it needs the sample tables of its own files alone, and what a host has cached is asked for again.

Runs are equally long, to the sample, and known from numbers of samples alone. So a bound may lie within a GOP, of which
both sides decode their part: half a GOP more, where runs of whole GOPs would cost every rank batches of padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """What one shard gives in every epoch.

    Attributes:
        number: Among all shards; with seed and epoch, all that its order depends on.
        runs: Half-open runs of samples, one of each member of a mix.
        quotas: Samples of each run that an epoch takes; None: every one, once.
    """

    number: int
    runs: tuple[tuple[int, int], ...]
    quotas: tuple[int, ...] | None = None

    @property
    def num_samples(self) -> int:
        """Of an epoch."""
        return sum(stop - start for start, stop in self.runs) if self.quotas is None else sum(self.quotas)


@dataclass(frozen=True, slots=True)
class Sharding:
    """How an epoch is shared out.

    Attributes:
        rank: Of this process, 0 to world_size - 1.
        world_size: Ranks.
        num_shards: Of all ranks; a multiple of `world_size`.
        shard_rows: Rows of each batch that one shard fills.
        drops: Whether a last batch that is not full on all ranks is left out, rather than padded.
        horizon_batches: Of orders that depend neither on ranks nor on their memory; None: they do.
    """

    rank: int
    world_size: int
    num_shards: int
    shard_rows: int
    drops: bool
    horizon_batches: int | None = None

    @property
    def is_canonical(self) -> bool:
        """Whether the order of global batches is the same on any number of ranks."""
        return self.horizon_batches is not None

    @property
    def is_sharded(self) -> bool:
        """Whether all batches are full, so that ranks stay in step; else a single rank's last one may be short."""
        return self.world_size > 1 or self.is_canonical

    @property
    def shards(self) -> range:
        """Numbers of this rank's shards."""
        each = self.num_shards // self.world_size
        return range(self.rank * each, (self.rank + 1) * each)


def run_starts(sizes: Sequence[int], num_shards: int, shard: int) -> list[int]:
    """The first sample of a shard's run, of each member; of the shard behind the last, the numbers of samples.

    What does not divide goes round: to the shards behind those that had the member before's. So all of a shard's runs
    together are as long as another's, but for one sample.
    """
    starts, before = [], 0
    for size in sizes:
        each, rest = divmod(size, num_shards)
        extra = min(max(shard - before, 0), rest) + min(shard, max(0, before + rest - num_shards))
        starts.append(each * shard + extra)
        before = (before + rest) % num_shards
    return starts


def num_steps(num_samples: int, num_shards: int, shard_rows: int, *, drops: bool) -> int:
    """Batches of every rank.

    Args:
        num_samples: Of an epoch.
        num_shards: Among which they are shared out.
        shard_rows: Rows of a batch that a shard fills.
        drops: Whether a last batch that is not full on all ranks is left out, rather than padded.
    """
    return num_samples // (num_shards * shard_rows) if drops else -(-num_samples // (num_shards * shard_rows))
