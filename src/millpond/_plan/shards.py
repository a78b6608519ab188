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
class Quotas:
    """What one shard gives of each member of a mix by ratio.

    The samples of an epoch are counted through the members, and dealt out to the shards in turn, from one shard further
    in each epoch. So an epoch has what each member is to give, to the sample; shards differ by one sample; and after as
    many epochs as there are shards each has given as much of each member as any other.

    Attributes:
        of_members: Samples of each member in an epoch, of all shards together.
        num_shards: Among which they are dealt out.
        shard: The number of this one.
    """

    of_members: tuple[int, ...]
    num_shards: int
    shard: int

    def places(self, member: int, epoch: int) -> tuple[int, int]:
        """The places of an epoch, start to stop, in the sequence of passes over this shard's run of a member."""
        rounds = epoch // self.num_shards
        before = sum(self._given(member, earlier) for earlier in range(rounds * self.num_shards, epoch))
        start = rounds * self.of_members[member] + before
        return start, start + self._given(member, epoch)

    def most(self, member: int) -> int:
        """Samples of a member that any epoch has, at most."""
        return -(-self.of_members[member] // self.num_shards)

    def _given(self, member: int, epoch: int) -> int:
        first = sum(self.of_members[:member])
        return self._dealt(first + self.of_members[member], epoch) - self._dealt(first, epoch)

    def _dealt(self, samples: int, epoch: int) -> int:
        """Of so many, the first of which goes to shard `epoch` (modulo their number)."""
        turn = (self.shard - epoch) % self.num_shards
        return (samples + self.num_shards - 1 - turn) // self.num_shards


@dataclass(frozen=True, slots=True)
class Shard:
    """What one shard gives in every epoch.

    Attributes:
        number: Among all shards; with seed and epoch, all that its order depends on.
        runs: Half-open runs of samples, one of each member of a mix.
        quotas: What an epoch takes of each run; None: every sample, once.
    """

    number: int
    runs: tuple[tuple[int, int], ...]
    quotas: Quotas | None = None

    @property
    def num_samples(self) -> int:
        """Of an epoch; by quotas it may be one less."""
        if self.quotas is None:
            return sum(stop - start for start, stop in self.runs)
        return -(-sum(self.quotas.of_members) // self.quotas.num_shards)


@dataclass(frozen=True, slots=True)
class Sharding:
    """How an epoch is shared out.

    Attributes:
        rank: Of this process, 0 to world_size - 1.
        world_size: Ranks.
        num_shards: Of all ranks; a multiple of `world_size`.
        shard_rows: Rows of each batch that one shard fills.
        drops: Whether a last batch that is not full on all ranks is left out.
        fills_up: Whether every batch is filled up, so that ranks stay in step; else a last one may be short.
        horizon_batches: Of orders that depend neither on ranks nor on their memory; None: they do.
    """

    rank: int
    world_size: int
    num_shards: int
    shard_rows: int
    drops: bool
    fills_up: bool = True
    horizon_batches: int | None = None

    @property
    def is_canonical(self) -> bool:
        """Whether the order of global batches is the same on any number of ranks."""
        return self.horizon_batches is not None

    @property
    def is_sharded(self) -> bool:
        """Whether there are several shards, or may be: what one rank knows of itself alone is in no state."""
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
