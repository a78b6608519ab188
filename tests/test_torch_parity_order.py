"""Which samples come, in which order: torch's, held against both classes by the same test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures_torch import LoaderMaker

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.data import (  # noqa: E402
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from torch_parity import Gate, Items, Stream, lists, plain  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


def seeded(seed: int = 5) -> Any:
    return torch.Generator().manual_seed(seed)


class Drawn:
    """A sampler that counts how far it was drawn."""

    def __init__(self, length: int, bad: int = -1) -> None:
        self.length, self.bad, self.count = length, bad, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        for index in range(self.length):
            if index == self.bad:
                raise LookupError("nothing more to draw")
            self.count += 1
            yield index


# Made anew for each loader, because generators and samplers have a state.
WAYS: dict[str, Any] = {
    "in a row": dict,
    "in batches": lambda: {"batch_size": 3},
    "whole batches": lambda: {"batch_size": 3, "drop_last": True},
    "shuffled": lambda: {"batch_size": 3, "shuffle": True},
    "shuffled by a generator": lambda: {"batch_size": 3, "shuffle": True, "generator": seeded()},
    "a sampler": lambda: {"sampler": SubsetRandomSampler([1, 5, 8], generator=seeded()), "batch_size": 2},
    "a list as sampler": lambda: {"sampler": [9, 3, 3, 0], "batch_size": 3},
    "an endless sampler, cut": lambda: {"sampler": RandomSampler(range(10), num_samples=23, generator=seeded())},
    "replacement": lambda: {"sampler": RandomSampler(range(10), replacement=True, generator=seeded())},
    "weights": lambda: {"sampler": WeightedRandomSampler(torch.arange(10.0), 8, generator=seeded())},
    "a share": lambda: {"sampler": DistributedSampler(range(10), num_replicas=3, rank=1, seed=4), "batch_size": 2},
    "own batches": lambda: {"batch_sampler": [[1, 2], [9], [4, 4, 4]]},
    "batches of a sampler": lambda: {"batch_sampler": BatchSampler(SequentialSampler(range(7)), 4, drop_last=False)},
    "batches as tuples": lambda: {"batch_sampler": [(1, 2), (3,)]},
    "unbatched": lambda: {"batch_size": None},
    "unbatched, sampled": lambda: {"batch_size": None, "sampler": [3, 1]},
    "no samples": lambda: {"sampler": []},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_epochs_are_in_the_order_of_torchs_own(
    make_loader: LoaderMaker, make_torchs: LoaderMaker, way: str, num_workers: int
) -> None:
    torch.manual_seed(11)
    loader = make_torchs(Items(10), **WAYS[way]())
    expected = lists(loader) + lists(loader), torch.rand(())
    torch.manual_seed(11)
    loader = make_loader(Items(10), **WAYS[way](), num_workers=num_workers)
    assert (lists(loader) + lists(loader), torch.rand(())) == expected  # and as much is drawn from the generator


@pytest.mark.parametrize(
    "dataset",
    [
        Items(0),
        range(7),
        {0: 5, 1: 6},
        TensorDataset(torch.arange(5), torch.ones(5, 2)),
        Subset(Items(9), [8, 2, 4]),
        ConcatDataset([Items(3), Items(4, lambda index: -index)]),
        StackDataset(a=Items(4), b=Items(4, float)),
        ChainDataset([Stream(lambda _: range(3)), Stream(lambda _: range(4))]),
        random_split(Items(9), [6, 3], generator=seeded())[1],
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_torchs_datasets_and_plain_containers_are_read(
    make_loader: LoaderMaker, make_torchs: LoaderMaker, dataset: Any
) -> None:
    assert lists(make_loader(dataset, 2, num_workers=1)) == lists(make_torchs(dataset, 2))


def test_indices_may_be_anything_that_the_dataset_takes(make_loader: LoaderMaker) -> None:
    loader = make_loader({"a": 1, ("b", 2): 2}, sampler=["a", ("b", 2)], batch_size=2, num_workers=1)
    assert lists(loader) == [[1, 2]]


def test_a_sampler_of_batches_without_batching_gives_the_dataset_lists(make_loader: LoaderMaker) -> None:
    sampler = BatchSampler(SequentialSampler(range(5)), 2, drop_last=False)
    loader = make_loader(Items(5, lambda indices: torch.tensor(indices) * 2), None, sampler=sampler, num_workers=1)
    assert lists(loader) == [[0, 2], [4, 6], [8]]


def test_a_distributed_sampler_follows_its_epoch(make_loader: LoaderMaker, make_torchs: LoaderMaker) -> None:
    def two_epochs(make: LoaderMaker, **options: Any) -> list[Any]:
        loader = make(Items(9), sampler=DistributedSampler(Items(9), 2, 1), **options)
        first = lists(loader)
        loader.sampler.set_epoch(1)
        return [first, lists(loader)]

    ours = two_epochs(make_loader, num_workers=1)
    assert ours == two_epochs(make_torchs)
    assert ours[0] != ours[1]


def test_batches_keep_their_order_when_a_later_one_is_ready_first(make_loader: LoaderMaker, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")

    def item(index: int) -> int:
        (gate.wait if index == 0 else gate.let_through)()
        return index

    try:
        assert lists(make_loader(Items(2, item), num_workers=2)) == [[0], [1]]
    finally:
        gate.close()


def test_out_of_order_the_batch_that_is_ready_comes_first(make_loader: LoaderMaker, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")

    def item(index: int) -> int:
        if index == 0:
            gate.wait()
        return index

    try:
        batches = iter(make_loader(Items(4, item), num_workers=2, in_order=False, prefetch_factor=1))
        early = [next(batches).item() for _ in range(2)]
        gate.let_through()
        assert sorted(early + [batch.item() for batch in batches]) == [0, 1, 2, 3]
        assert early == [1, 2]  # the second worker does the others while the first is at its own
    finally:
        gate.close()


def test_out_of_order_is_in_order_with_one_worker(make_loader: LoaderMaker) -> None:
    assert lists(make_loader(Items(5), num_workers=1, in_order=False)) == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize(("num_workers", "prefetch_factor"), [(1, 1), (1, 3), (2, 2)])
def test_the_sampler_is_drawn_as_far_ahead_as_is_prefetched(
    make_loader: LoaderMaker, num_workers: int, prefetch_factor: int
) -> None:
    sampler = Drawn(20)
    loader = make_loader(Items(20), sampler=sampler, num_workers=num_workers, prefetch_factor=prefetch_factor)
    batches = iter(loader)
    ahead = num_workers * prefetch_factor
    assert sampler.count == ahead
    assert [plain(next(batches)) for _ in range(2)] == [[0], [1]]
    assert sampler.count == ahead + 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_the_sampler_is_raised_as_it_is(make_loader: LoaderMaker, num_workers: int) -> None:
    with pytest.raises(LookupError, match=r"^nothing more to draw$"):
        lists(make_loader(Items(9), sampler=Drawn(9, bad=5), num_workers=num_workers))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_iterators_of_one_loader_do_not_disturb_each_other(make_loader: LoaderMaker, num_workers: int) -> None:
    loader = make_loader(Items(4), num_workers=num_workers)
    assert [(plain(one), plain(other)) for one, other in zip(loader, loader, strict=True)] == [
        ([0], [0]),
        ([1], [1]),
        ([2], [2]),
        ([3], [3]),
    ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_iterator_at_its_end_stays_there(make_loader: LoaderMaker, num_workers: int) -> None:
    batches = iter(make_loader(Items(2), num_workers=num_workers))
    assert iter(batches) is batches
    assert len(batches) == 2
    assert lists(batches) == [[0], [1]]
    assert [next(batches, "end"), next(batches, "end")] == ["end", "end"]
