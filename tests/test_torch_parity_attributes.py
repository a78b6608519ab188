"""Attributes, warnings, length and types of a loader: torch's, held against both classes by the same test."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from fixtures_torch import LoaderMaker

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, default_collate, default_convert  # noqa: E402
from torch.utils.data.dataloader import _BaseDataLoaderIter, _InfiniteConstantSampler  # noqa: E402

from torch_parity import Items, SizedStream, Stream, lists  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


def test_defaults_of_a_loader_without_workers(make_loader: LoaderMaker) -> None:
    loader = make_loader.cls(Items(5))
    names: tuple[str, ...]
    names = ("batch_size", "num_workers", "prefetch_factor", "pin_memory", "pin_memory_device", "timeout", "drop_last")
    assert [getattr(loader, name) for name in names] == [1, 0, None, False, "", 0, False]
    names = ("worker_init_fn", "multiprocessing_context", "generator", "persistent_workers", "in_order")
    assert [getattr(loader, name) for name in names] == [None, None, None, False, True]
    assert type(loader.sampler) is SequentialSampler
    assert type(loader.batch_sampler) is BatchSampler
    assert loader.collate_fn is default_collate


def test_defaults_that_depend_on_other_arguments(make_loader: LoaderMaker) -> None:
    assert make_loader(Items(5), num_workers=1).prefetch_factor == 2
    assert type(make_loader(Items(5), shuffle=True).sampler) is RandomSampler
    unbatched = make_loader(Items(5), batch_size=None)
    assert (unbatched.batch_sampler, unbatched.collate_fn) == (None, default_convert)
    own_batches = make_loader(Items(5), batch_sampler=[[0, 1]])
    assert (own_batches.batch_size, own_batches.drop_last, own_batches.collate_fn) == (None, False, default_collate)
    assert type(make_loader(Stream(lambda _: range(3))).sampler) is _InfiniteConstantSampler


@pytest.mark.parametrize(
    "name", ["batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"]
)
def test_what_decides_the_batches_may_not_be_set(make_loader: LoaderMaker, name: str) -> None:
    loader = make_loader(Items(5))
    with pytest.raises(ValueError, match=f"^{name} attribute should not be set after DataLoader is initialized$"):
        setattr(loader, name, None)


def test_other_attributes_may_be_set_and_count_from_the_next_iterator(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(3), batch_size=3, num_workers=1)
    assert lists(loader) == [[0, 1, 2]]
    loader.collate_fn = sum
    assert lists(loader) == [3]
    loader.num_workers = 0
    loader.timeout = 0
    assert lists(loader) == [3]


def test_the_context_may_be_set_by_name_and_is_checked(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(3), num_workers=1)
    loader.multiprocessing_context = "fork"
    assert loader.multiprocessing_context.get_start_method() == "fork"
    with pytest.raises(ValueError, match="should specify a valid start method"):
        loader.multiprocessing_context = "thread"


def test_workers_may_be_wanted_later(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(3), batch_size=3)
    loader.num_workers, loader.prefetch_factor = 1, 2
    assert lists(loader) == [[0, 1, 2]]


@pytest.mark.filterwarnings("ignore:Exception ignored in. <function _Multi:pytest.PytestUnraisableExceptionWarning")
def test_a_prefetch_factor_of_zero_fails_when_workers_start(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(3), num_workers=1, prefetch_factor=0)
    with pytest.raises(AssertionError, match=r"^prefetch_factor must be greater than 0 for"):
        iter(loader)


def test_a_timeout_without_workers_fails_when_iteration_starts(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(3), timeout=5)
    with pytest.raises(AssertionError, match="_SingleProcessDataLoaderIter requires timeout == 0"):
        iter(loader)


def test_more_workers_than_cores_are_warned_of(make_loader: LoaderMaker) -> None:
    cores = torch._utils.cpu_count()
    with pytest.warns(UserWarning, match=f"^This DataLoader will create {cores + 1} worker processes in total. Our "):
        make_loader(Items(3), num_workers=cores + 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_pinning_without_an_accelerator_is_warned_of(make_loader: LoaderMaker, num_workers: int) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    loader = make_loader(Items(3), batch_size=3, pin_memory=True, num_workers=num_workers)
    with pytest.warns(UserWarning, match="'pin_memory' argument is set as true but no accelerator is found, then dev"):
        assert lists(loader) == [[0, 1, 2]]


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_a_device_to_pin_for_is_deprecated(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(3), pin_memory=True, pin_memory_device="cuda")
    with pytest.warns(UserWarning, match="pin_memory_device is deprecated.*ignore pin_memory_device='cuda'"):
        iter(loader)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loaders_and_iterators_are_of_torchs_types(make_loader: LoaderMaker, num_workers: int) -> None:
    loader = make_loader(Items(3), num_workers=num_workers)
    assert isinstance(loader, torch.utils.data.DataLoader)
    assert isinstance(iter(loader), _BaseDataLoaderIter)
    assert make_loader.cls[int].__origin__ is make_loader.cls
    assert make_loader.cls.__name__ == "DataLoader"


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_may_be_pickled_and_copied(make_loader: LoaderMaker, num_workers: int, again: Any) -> None:
    loader = again(make_loader(Items(5), batch_size=2, num_workers=num_workers))
    assert type(loader) is make_loader.cls
    assert lists(loader) == [[0, 1], [2, 3], [4]]


def test_an_iterator_cannot_be_pickled(make_loader: LoaderMaker) -> None:
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        pickle.dumps(iter(make_loader(Items(3), num_workers=1)))


@pytest.mark.parametrize(
    ("arguments", "length"),
    [
        ({}, 7),
        ({"batch_size": 2}, 4),
        ({"batch_size": 2, "drop_last": True}, 3),
        ({"batch_size": None}, 7),
        ({"sampler": [1, 2, 3], "batch_size": 2}, 2),
        ({"batch_sampler": [[1], [2, 3, 4]]}, 2),
    ],
)
@pytest.mark.parametrize("of_stream", [False, True])
def test_length_is_that_of_torch(
    make_loader: LoaderMaker, arguments: dict[str, Any], length: int, of_stream: bool
) -> None:
    if of_stream and {"sampler", "batch_sampler"} & set(arguments):
        pytest.skip("a stream has no samplers")
    dataset = SizedStream(lambda _: range(7), 7) if of_stream else Items(7)
    assert len(make_loader(dataset, **arguments)) == length


def test_a_stream_without_length_has_none(make_loader: LoaderMaker) -> None:
    with pytest.raises(TypeError, match=r"object of type 'Stream' has no len\(\)"):
        len(make_loader(Stream(lambda _: range(3))))
