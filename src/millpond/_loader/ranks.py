"""Which rank this process is, of how many, and what a rank reads of a dataset."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from millpond._checks import check_integer
from millpond._datasets.base import Dataset, Mixture, PartlyOpened
from millpond._datasets.share import Share
from millpond._plan.shards import Quotas, Shard, Sharding, num_steps, run_starts
from millpond._workers.cores import usable_cores
from millpond.errors import UsageError

DEFAULT_HORIZON_BATCHES = 32
"""Of canonical shards; a segment is as many samples long, so that it gives each of these batches one. Mixing of real
data at GOP 30 is 1.02 to 1.10 with 32, and 0.80 to 0.87 with 16 (one shard, and eight on one rank and on eight)."""


@dataclass(frozen=True, slots=True)
class Ration:
    """What one rank gives of every epoch.

    Attributes:
        dataset: What it reads; numbered from 0.
        shards: Its own, in those numbers.
        num_batches: Of every rank.
    """

    dataset: Dataset
    shards: tuple[Shard, ...]
    num_batches: int


def rank_and_world_size(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    """As given; else of torch.distributed where it is initialized; else of RANK and WORLD_SIZE.

    Returns:
        None where there are no ranks, as a `world_size` of 1 alone says, too.

    Raises:
        ValueError: One is given without the other, or they do not fit.
    """
    if rank is None and world_size == 1:
        return None
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank={rank} and world_size={world_size}: give both, or neither")
    if rank is None or world_size is None:
        found = _of_torch() or _of_environment()
        if found is None:
            return None
        rank, world_size = found
    check_integer("world_size", world_size, least=1)
    check_integer("rank", rank, least=0)
    if rank >= world_size:
        raise ValueError(f"rank={rank} is none of world_size={world_size} ranks: they count from 0")
    return rank, world_size


def require_same_rank(rank: int, world_size: int) -> None:
    """UsageError where torch.distributed was initialized since, and says otherwise."""
    now = _of_torch()
    if now not in (None, (rank, world_size)):
        raise UsageError(
            f"this loader was made as rank {rank} of {world_size}, and torch.distributed, which was initialized since, "
            f"says {now}: make it after init_process_group, or give rank= and world_size="
        )


def _of_torch() -> tuple[int, int] | None:
    distributed = sys.modules.get("torch.distributed")  # who initialized it has imported it
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _of_environment() -> tuple[int, int] | None:
    found = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")}
    if "" in found.values() and found["RANK"] in ("", "0") and found["WORLD_SIZE"] in ("", "1"):
        return None
    try:
        return int(found["RANK"]), int(found["WORLD_SIZE"])
    except ValueError:
        raise ValueError(
            f"RANK={found['RANK']!r} and WORLD_SIZE={found['WORLD_SIZE']!r} of the environment are no rank and number "
            "of ranks: set both, or give rank= and world_size="
        ) from None


def cores_of_a_rank() -> int:
    """Cores for workers of this process, where torchrun says how many ranks share this machine."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, usable_cores() // max(1, int(told) if told.isdecimal() else 1))


def sharding_of(
    ranked: tuple[int, int] | None,
    *,
    batch_size: int,
    drop_last: bool,
    uneven: Literal["pad", "drop", "error"],
    canonical_shards: int | None,
    horizon_batches: int | None,
) -> Sharding:
    """Who fills which rows.

    Args:
        ranked: Rank and world size; None where there are no ranks.

    Raises:
        ValueError: Shards, ranks and rows do not divide.
    """
    rank, world_size = ranked or (0, 1)
    drops = drop_last or uneven == "drop"
    if horizon_batches is not None:
        check_integer("horizon_batches", horizon_batches, least=1)
        if canonical_shards is None:
            raise ValueError("horizon_batches= fixes what memory= decides otherwise: it goes with canonical_shards=")
    if canonical_shards is None:
        return Sharding(rank, world_size, world_size, batch_size, drops, fills_up=ranked is not None)
    check_integer("canonical_shards", canonical_shards, least=1)
    if canonical_shards % world_size:
        raise ValueError(
            f"canonical_shards={canonical_shards} cannot be shared out evenly to {world_size} ranks: take a number of "
            f"ranks that divides it, or a multiple of {world_size} shards, which is another order"
        )
    rows = batch_size * world_size
    if rows % canonical_shards:
        raise ValueError(
            f"a global batch of {rows} rows (batch_size={batch_size} on {world_size} ranks) cannot be shared out "
            f"evenly to canonical_shards={canonical_shards}: the nearest batch_size that can is "
            f"{max(1, round(rows / canonical_shards)) * canonical_shards // world_size}"
        )
    horizon_batches = horizon_batches or DEFAULT_HORIZON_BATCHES
    return Sharding(rank, world_size, canonical_shards, rows // canonical_shards, drops, True, horizon_batches)


def ration_of(dataset: Dataset, sharding: Sharding) -> Ration:
    """What this rank reads and gives. Of a dataset that was not opened yet, only its own part is.

    Args:
        dataset: The whole.
        sharding: Who fills which rows.

    Raises:
        ValueError: There are fewer samples than shards, or than a batch where short ones are dropped.
    """
    members = dataset.members if isinstance(dataset, Mixture) else (dataset,)
    quotas = _quotas(dataset)
    _require_samples(dataset, members, quotas, sharding)
    num_batches = num_steps(_epoch_samples(dataset), sharding.num_shards, sharding.shard_rows, drops=sharding.drops)
    if not sharding.is_sharded:
        runs = [[(0, len(member))] for member in members]
        return Ration(dataset, _shards(range(1), 1, members, runs, quotas), num_batches)
    sizes, shards = [len(member) for member in members], sharding.shards
    starts = [run_starts(sizes, sharding.num_shards, shard) for shard in (*shards, shards.stop)]
    of_members = list(zip(*starts, strict=True))
    shares = [_opened(member, mine[0], mine[-1]) for member, mine in zip(members, of_members, strict=True)]
    runs = [[(start - mine[0], stop - mine[0]) for start, stop in pairwise(mine)] for mine in of_members]
    mine = dataset.with_members(shares) if isinstance(dataset, Mixture) else shares[0]
    return Ration(mine, _shards(shards, sharding.num_shards, shares, runs, quotas), num_batches)


def require_even(dataset: Dataset, sharding: Sharding) -> None:
    """ValueError unless every batch of every rank is full."""
    samples, rows = _epoch_samples(dataset), sharding.num_shards * sharding.shard_rows
    if samples % rows:
        raise ValueError(
            f"{samples} samples are no whole number of global batches of {rows} rows: choose another batch_size=, or "
            'uneven="pad" or "drop"'
        )


def knows_all_cuts(dataset: Dataset) -> bool:
    """Whether telling where its segments may start opens no more files."""
    if isinstance(dataset, Mixture):
        return all(knows_all_cuts(member) for member in dataset.members)
    return not isinstance(dataset, PartlyOpened) or dataset.is_surveyed


def _quotas(dataset: Dataset) -> tuple[int, ...] | None:
    """Samples that an epoch takes of each member of a mix by ratio."""
    if not isinstance(dataset, Mixture) or dataset.weights is None:
        return None
    return dataset.quotas(dataset.epoch_samples)


def _epoch_samples(dataset: Dataset) -> int:
    """Of all shards."""
    return dataset.epoch_samples if isinstance(dataset, Mixture) else len(dataset)


def _require_samples(
    dataset: Dataset, members: Sequence[Dataset], quotas: tuple[int, ...] | None, sharding: Sharding
) -> None:
    """ValueError where a shard has none, or none of a member that it is to take some of; or there is no batch."""
    giving = [dataset] if quotas is None else [member for member, quota in zip(members, quotas, strict=True) if quota]
    for some in giving:
        if len(some) < sharding.num_shards:
            whom = "canonical shards" if sharding.is_canonical else "ranks"
            raise ValueError(
                f"{len(some)} samples of {some!r} cannot be shared out to {sharding.num_shards} {whom}: take fewer"
            )
    samples, rows = _epoch_samples(dataset), sharding.num_shards * sharding.shard_rows
    if sharding.drops and samples < rows:
        raise ValueError(
            f"{samples} samples make no full batch of {rows} rows, and short ones are left out: choose a smaller "
            'batch_size=, or uneven="pad" and drop_last=False'
        )


def _opened(dataset: Dataset, start: int, stop: int) -> Share:
    """Samples of a dataset; of one that was not opened yet, no more of it is than they need."""
    part, first = dataset.opened_for(start, stop) if isinstance(dataset, PartlyOpened) else (dataset, 0)
    return Share(part, start - first, stop - first, first_sample=first)


def _shards(
    numbers: range,
    num_shards: int,
    members: Sequence[Dataset],
    runs: Sequence[Sequence[tuple[int, int]]],
    quotas: tuple[int, ...] | None,
) -> tuple[Shard, ...]:
    """Shards of runs that are numbered through the members."""
    before = np.cumsum([0, *map(len, members)]).tolist()
    of_shards = [
        tuple((first + start, first + stop) for first, (start, stop) in zip(before, its, strict=False))
        for its in zip(*runs, strict=True)
    ]
    return tuple(
        Shard(number, its, None if quotas is None else Quotas(quotas, num_shards, number))
        for number, its in zip(numbers, of_shards, strict=True)
    )
