"""Iterable datasets and data pipes in a loader: torch's ways, held against both classes by the same test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fixtures_torch import LoaderMaker

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.data import MapDataPipe, get_worker_info  # noqa: E402
from torch.utils.data.datapipes.iter import IterableWrapper  # noqa: E402
from torch.utils.data.datapipes.map import SequenceWrapper  # noqa: E402

from torch_parity import SizedStream, Stream, lists  # noqa: E402
from torch_parity_types import shard, unequal, whole  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


CASES: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {
    "one worker": (whole, {"num_workers": 1, "batch_size": 2}, [[0, 1], [2, 3], [4]]),
    "no worker": (whole, {"batch_size": 2}, [[0, 1], [2, 3], [4]]),
    "no worker, whole batches": (whole, {"batch_size": 2, "drop_last": True}, [[0, 1], [2, 3]]),
    "no sharding": (whole, {"num_workers": 2, "batch_size": 3}, [[0, 1, 2], [0, 1, 2], [3, 4], [3, 4]]),
    "sharding": (shard, {"num_workers": 2, "batch_size": 2}, [[0, 2], [1, 3], [4, 6], [5]]),
    "sharding, whole batches": (
        shard,
        {"num_workers": 2, "batch_size": 2, "drop_last": True},
        [[0, 2], [1, 3], [4, 6]],
    ),
    "unequal": (unequal, {"num_workers": 2}, [[0], [10], [11], [12], [13]]),
    "three, unequal": (
        unequal,
        {"num_workers": 3, "batch_size": 2},
        [[0], [10, 11], [20, 21], [12, 13], [22, 23], [24, 25], [26]],
    ),
    "far ahead": (unequal, {"num_workers": 2, "prefetch_factor": 5}, [[0], [10], [11], [12], [13]]),
    "unbatched": (unequal, {"num_workers": 2, "batch_size": None}, [0, 10, 11, 12, 13]),
    "nothing": (lambda _: (), {"num_workers": 2}, []),
    "nothing of one": (lambda worker: [[], [7]][worker], {"num_workers": 2}, [[7]]),
    "whole batches of too little": (whole, {"num_workers": 2, "batch_size": 9, "drop_last": True}, []),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("persistent", [False, True])
def test_two_epochs_of_a_stream(make_loader: LoaderMaker, name: str, persistent: bool) -> None:
    items, options, expected = CASES[name]
    if persistent and not options.get("num_workers"):
        pytest.skip("no worker could persist")
    loader = make_loader(Stream(items), persistent_workers=persistent, **options)
    assert [lists(loader), lists(loader)] == [expected, expected]


def test_out_of_order_a_stream_loses_nothing(make_loader: LoaderMaker) -> None:
    loader = make_loader(Stream(unequal), num_workers=2, in_order=False)
    assert sorted(lists(loader)) == [[0], [10], [11], [12], [13]]


def test_a_stream_that_was_left_begins_anew(make_loader: LoaderMaker) -> None:
    loader = make_loader(Stream(whole), num_workers=1)
    assert next(iter(loader)).tolist() == [0]
    assert lists(loader) == [[0], [1], [2], [3], [4]]


def test_the_init_function_may_shard_a_stream(make_loader: LoaderMaker) -> None:
    def shard_it(worker: int) -> None:
        info = get_worker_info()
        assert info is not None
        info.dataset.items = lambda _: range(worker, 6, info.num_workers)

    loader = make_loader(Stream(whole), num_workers=3, worker_init_fn=shard_it)
    assert lists(loader) == [[0], [1], [2], [3], [4], [5]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_longer_than_it_said_is_warned_of(make_loader: LoaderMaker, num_workers: int) -> None:
    loader = make_loader(SizedStream(whole, 4), num_workers=num_workers)
    assert len(loader) == 4
    with pytest.warns(UserWarning, match=r"was reported to be 4\(when accessing len\(dataloader\)\), but 5 samples ha"):
        assert lists(loader) == [[0], [1], [2], [3], [4]]


def test_with_workers_the_warning_says_what_may_be_the_cause(make_loader: LoaderMaker) -> None:
    loader = make_loader(SizedStream(whole, 5), num_workers=2)
    assert len(loader) == 5
    with pytest.warns(UserWarning, match="not properly configuring the IterableDataset replica at each worker"):
        assert len(lists(loader)) == 10


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_length_that_nobody_asked_for_is_not_held_against_a_stream(
    make_loader: LoaderMaker, num_workers: int
) -> None:
    assert len(lists(make_loader(SizedStream(whole, 2), num_workers=num_workers))) == 5


def test_streams_are_read_in_batches_only_as_far_as_asked(make_loader: LoaderMaker) -> None:
    def endless(_: int) -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    batches = iter(make_loader(Stream(endless), 3, num_workers=1))
    assert [next(batches).tolist() for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterable_pipes_are_shuffled_and_sharded_like_torchs(
    make_loader: LoaderMaker, make_torchs: LoaderMaker, num_workers: int
) -> None:
    def two_epochs(make: LoaderMaker) -> list[Any]:
        torch.manual_seed(4)
        pipe = IterableWrapper(range(12)).shuffle().sharding_filter()
        loader = make(pipe, 2, shuffle=True, num_workers=num_workers)
        return lists(loader) + lists(loader)

    ours = two_epochs(make_loader)
    assert ours == two_epochs(make_torchs)
    assert sorted(item for batch in ours for item in batch) == sorted([*range(12), *range(12)])


def test_persistent_workers_shuffle_a_pipe_anew_each_epoch(make_loader: LoaderMaker, make_torchs: LoaderMaker) -> None:
    def two_epochs(make: LoaderMaker) -> list[Any]:
        torch.manual_seed(4)
        pipe = IterableWrapper(range(12)).shuffle().sharding_filter()
        loader = make(pipe, 2, shuffle=True, num_workers=2, persistent_workers=True)
        return [lists(loader), lists(loader)]

    ours = two_epochs(make_loader)
    assert ours == two_epochs(make_torchs)
    assert ours[0] != ours[1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_map_pipes_are_read_like_datasets(make_loader: LoaderMaker, num_workers: int) -> None:
    pipe = SequenceWrapper(range(4)).map(float)
    assert isinstance(pipe, MapDataPipe)
    assert lists(make_loader(pipe, 2, num_workers=num_workers)) == [[0.0, 1.0], [2.0, 3.0]]
