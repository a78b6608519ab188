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
from millpond._plan.shards import Shard, Sharding, is_even, num_steps, run_start
from millpond._workers.cores import usable_cores

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


def rank_and_world_size(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """As given; else of torch.distributed where it is initialized; else of RANK and WORLD_SIZE; else 0 of 1.

    Raises:
        ValueError: One is given without the other, or they do not fit.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank={rank} and world_size={world_size}: give both, or neither")
    if rank is None or world_size is None:
        rank, world_size = _of_torch() or _of_environment()
    check_integer("world_size", world_size, least=1)
    check_integer("rank", rank, least=0)
    if rank >= world_size:
        raise ValueError(f"rank={rank} is none of world_size={world_size} ranks: they count from 0")
    return rank, world_size


def _of_torch() -> tuple[int, int] | None:
    distributed = sys.modules.get("torch.distributed")  # who initialized it has imported it
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _of_environment() -> tuple[int, int]:
    found = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    if found["WORLD_SIZE"] in (None, "", "1"):
        return 0, 1
    try:
        return int(found["RANK"] or ""), int(found["WORLD_SIZE"] or "")
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
    rank: int,
    world_size: int,
    *,
    batch_size: int,
    drop_last: bool,
    uneven: Literal["pad", "drop", "error"],
    canonical_shards: int | None,
    horizon_batches: int | None,
) -> Sharding:
    """Who fills which rows.

    Raises:
        ValueError: Shards, ranks and rows do not divide.
    """
    drops = drop_last or (uneven == "drop" and (world_size > 1 or canonical_shards is not None))
    if horizon_batches is not None:
        check_integer("horizon_batches", horizon_batches, least=1)
        if canonical_shards is None:
            raise ValueError("horizon_batches= fixes what memory= decides otherwise: it goes with canonical_shards=")
    if canonical_shards is None:
        return Sharding(rank, world_size, world_size, batch_size, drops)
    check_integer("canonical_shards", canonical_shards, least=1)
    if canonical_shards % world_size:
        raise ValueError(
            f"canonical_shards={canonical_shards} cannot be shared out evenly to {world_size} ranks: give a multiple"
        )
    rows = batch_size * world_size
    if rows % canonical_shards:
        raise ValueError(
            f"a global batch of {rows} rows (batch_size={batch_size} on {world_size} ranks) cannot be shared out "
            f"evenly to canonical_shards={canonical_shards}: the nearest batch_size that can is "
            f"{max(1, round(rows / canonical_shards)) * canonical_shards // world_size}"
        )
    horizon_batches = horizon_batches or DEFAULT_HORIZON_BATCHES
    return Sharding(rank, world_size, canonical_shards, rows // canonical_shards, drops, horizon_batches)


def ration_of(dataset: Dataset, sharding: Sharding) -> Ration:
    """What this rank reads and gives. Of a dataset that was not opened yet, only its own part is.

    Args:
        dataset: The whole.
        sharding: Who fills which rows.

    Raises:
        ValueError: There are fewer samples than shards.
    """
    num_shards, rows = sharding.num_shards, sharding.shard_rows
    members = dataset.members if isinstance(dataset, Mixture) else (dataset,)
    quotas, sizes = _quotas(dataset, num_shards), _epoch_sizes(dataset, num_shards)
    _require_samples(dataset, members, quotas, num_shards)
    num_batches = num_steps(sizes, num_shards, rows, drops=sharding.drops)
    if not sharding.is_sharded:
        runs = [[(0, len(member))] for member in members]
        return Ration(dataset, _shards(range(1), members, runs, quotas), num_batches)
    taken = [_take(member, sharding) for member in members]
    shares = [share for share, _ in taken]
    mine = dataset.with_members(shares) if isinstance(dataset, Mixture) else shares[0]
    return Ration(mine, _shards(sharding.shards, shares, [runs for _, runs in taken], quotas), num_batches)


def require_even(dataset: Dataset, sharding: Sharding) -> None:
    """ValueError unless every batch of every rank is full."""
    sizes = _epoch_sizes(dataset, sharding.num_shards)
    if not is_even(sizes, sharding.num_shards, sharding.shard_rows):
        rows = sharding.num_shards * sharding.shard_rows
        raise ValueError(
            f"{sum(sizes)} samples are no whole number of global batches of {rows} rows, shared out evenly to "
            f'{sharding.num_shards} shards: choose another batch_size=, or uneven="pad" or "drop"'
        )


def knows_all_cuts(dataset: Dataset) -> bool:
    """Whether telling where its segments may start opens no more files."""
    if isinstance(dataset, Mixture):
        return all(knows_all_cuts(member) for member in dataset.members)
    return not isinstance(dataset, PartlyOpened) or dataset.is_surveyed


def _quotas(dataset: Dataset, num_shards: int) -> tuple[int, ...] | None:
    """Samples that an epoch of one shard takes of each member of a mix by ratio."""
    if not isinstance(dataset, Mixture) or dataset.weights is None:
        return None
    return dataset.quotas(-(-dataset.epoch_samples // num_shards))


def _require_samples(
    dataset: Dataset, members: Sequence[Dataset], quotas: tuple[int, ...] | None, num_shards: int
) -> None:
    """ValueError where a shard would have none, or none of a member that it is to take some of."""
    small = [len(member) < num_shards for member in members]
    if quotas is None:
        refused = [dataset] if all(small) else []
    else:
        refused = [member for member, quota, is_small in zip(members, quotas, small, strict=True) if quota and is_small]
    for some in refused[:1]:
        raise ValueError(f"{len(some)} samples of {some!r} cannot be shared out to {num_shards} shards")


def _epoch_sizes(dataset: Dataset, num_shards: int) -> list[int]:
    """Samples of an epoch, of each member of a mix."""
    quotas = _quotas(dataset, num_shards)
    if quotas is not None:
        return [quota * num_shards for quota in quotas]
    return [len(member) for member in (dataset.members if isinstance(dataset, Mixture) else (dataset,))]


def _take(dataset: Dataset, sharding: Sharding) -> tuple[Share, list[tuple[int, int]]]:
    """This rank's samples of a dataset, and the run of each of its shards in them."""
    shards = sharding.shards
    starts = [run_start(len(dataset), sharding.num_shards, shard) for shard in (*shards, shards.stop)]
    start, stop = starts[0], starts[-1]
    opened, first = dataset.opened_for(start, stop) if isinstance(dataset, PartlyOpened) else (dataset, 0)
    share = Share(opened, start - first, stop - first, first_sample=first)
    return share, [(begin - start, end - start) for begin, end in pairwise(starts)]


def _shards(
    numbers: range,
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
    return tuple(Shard(number, its, quotas) for number, its in zip(numbers, of_shards, strict=True))
