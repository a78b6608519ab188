"""Mixes by ratio: shares of an epoch to the sample, passes that are whole, batches near the ratio, ranks in step."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest

from fakes import FakeDataset, identity_of
from millpond import Loader, MixedDataset, mix

SIZES = (60, 90, 40)


def by_ratio(epoch_samples: int = 120) -> MixedDataset:
    """Half of an epoch, a third and a sixth: passes of one, nearly two and two epochs."""
    members = [FakeDataset(size, gop=5, episode_frames=10) for size in SIZES]
    return mix(list(zip(members, (3, 2, 1), strict=True)), epoch_samples=epoch_samples)


def make_loader(dataset: MixedDataset, **changes: Any) -> Loader:
    options: dict[str, Any] = {"batch_size": 12, "shuffle": True, "num_workers": 0, "memory": "300MiB"}
    return Loader(dataset, **options | {"output": "numpy"} | changes)


def rows_of(batch: dict[str, Any]) -> list[tuple[int, int]]:
    """(member, its own sample) of each row, which its pictures say, too."""
    rows = list(zip(batch["dataset_index"].tolist(), batch["index"].tolist(), strict=True))
    assert [identity_of(picture) for picture in batch["wrist"]] == [(sample, 1) for _, sample in rows]
    return rows


def epochs_of(loader: Loader, number: int) -> list[list[tuple[int, int]]]:
    return [[row for batch in loader for row in rows_of(batch)] for _ in range(number)]


def of_member(rows: list[tuple[int, int]], member: int) -> list[int]:
    return [sample for number, sample in rows if number == member]


def test_an_epoch_has_the_share_of_each_member_to_the_sample() -> None:
    with make_loader(by_ratio(), batch_size=7) as loader:
        assert len(loader) == 18
        for rows in epochs_of(loader, 2):
            assert Counter(member for member, _ in rows) == {0: 60, 1: 40, 2: 20}
        assert str(loader.statistics().books) == (
            "120 planned + 0 padded = 120 delivered + 0 skipped + 0 failed + 0 dropped"
        )


@pytest.mark.parametrize(("epoch_samples", "epochs"), [(120, 9), (480, 3), (30, 24)])
def test_no_sample_of_a_member_comes_again_before_all_have_come(epoch_samples: int, epochs: int) -> None:
    with make_loader(by_ratio(epoch_samples)) as loader:
        seen = epochs_of(loader, epochs)
    for member, size in enumerate(SIZES):
        counts: Counter[int] = Counter()
        for rows in seen:
            counts.update(of_member(rows, member))
            taken = counts.total()
            assert set(counts.values()) | ({0} if len(counts) < size else set()) <= {taken // size, -(-taken // size)}


def test_passes_have_orders_of_their_own() -> None:
    with make_loader(by_ratio()) as loader:
        first, second = (of_member(rows, 0) for rows in epochs_of(loader, 2))
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second


def test_batches_are_near_the_ratio() -> None:
    dataset = by_ratio(1200)
    with make_loader(dataset, batch_size=24) as loader:
        shares = [np.bincount(batch["dataset_index"], minlength=3) / 24 for batch in loader]
    assert np.abs(np.mean(shares, axis=0) - dataset.weights).max() < 1e-9
    assert np.std(shares, axis=0).max() < np.sqrt(0.5 * 0.5 / 24)  # no worse than drawing each row by itself


def test_without_shuffling_members_come_one_after_the_other_and_go_on_where_they_stopped() -> None:
    with make_loader(by_ratio(), shuffle=False) as loader:
        first, second = epochs_of(loader, 2)
    assert first == [(0, s) for s in range(60)] + [(1, s) for s in range(40)] + [(2, s) for s in range(20)]
    assert of_member(second, 1) == list(range(40, 80))


@pytest.mark.parametrize("batches", [1, 7])
def test_it_resumes_amid_an_epoch_and_amid_a_pass(batches: int) -> None:
    with make_loader(by_ratio()) as loader:
        whole = epochs_of(loader, 4)
        loader.set_epoch(2)
        for _ in islice(loader, batches):
            state = loader.state_dict()
    with make_loader(by_ratio()) as loader:
        loader.load_state_dict(state)
        assert epochs_of(loader, 2) == [whole[2][12 * batches :], whole[3]]


def test_ranks_together_give_the_ratio_and_whole_passes() -> None:
    options: dict[str, Any] = {"world_size": 2, "batch_size": 6}
    seen: list[list[tuple[int, int]]] = [[] for _ in range(3)]
    for rank in range(2):
        with make_loader(by_ratio(), rank=rank, **options) as loader:
            for epoch, rows in enumerate(epochs_of(loader, 3)):
                seen[epoch] += rows
    assert [Counter(member for member, _ in rows) for rows in seen] == [{0: 60, 1: 40, 2: 20}] * 3
    assert [sorted(of_member(rows, 0)) for rows in seen] == [list(range(60))] * 3
    assert len(set(of_member(seen[0] + seen[1], 1))) == 80


@pytest.mark.parametrize("world_size", [3, 4])
def test_an_epoch_of_ranks_has_the_share_of_each_member_to_the_sample(world_size: int) -> None:
    for epoch in range(3):
        options: dict[str, Any] = {"world_size": world_size, "batch_size": 5}
        counted: Counter[int] = Counter()
        for rank in range(world_size):
            with make_loader(by_ratio(119), rank=rank, **options) as loader:
                loader.set_epoch(epoch)
                valid = [batch["dataset_index"][batch["is_valid"]].copy() for batch in loader]
            counted.update(np.concatenate(valid).tolist())
        assert tuple(counted[member] for member in range(3)) == by_ratio().quotas(119)


def test_canonical_shards_make_the_same_batches_on_any_number_of_ranks() -> None:
    options: dict[str, Any] = {"canonical_shards": 4, "horizon_batches": 4}
    on_one = batches_on(1, **options)
    assert on_one == batches_on(2, **options) == batches_on(4, **options)
    assert Counter(member for rows in on_one for member, _ in rows) == {0: 60, 1: 40, 2: 20}


def batches_on(world_size: int, **options: Any) -> list[list[tuple[int, int]]]:
    """The rows of each batch of all ranks, in order of number."""
    of_ranks = []
    for rank in range(world_size):
        ranks: dict[str, Any] = {"rank": rank, "world_size": world_size, "batch_size": 12 // world_size}
        with make_loader(by_ratio(), **ranks, **options) as loader:
            of_ranks.append([rows_of(batch) for batch in loader])
    return [sorted(row for rows in step for row in rows) for step in zip(*of_ranks, strict=True)]
