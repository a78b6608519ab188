"""What samples become in a batch: torch's collation, held against both classes by the same test."""

from __future__ import annotations

import collections
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fixtures_torch import LoaderMaker

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.data import default_collate, default_convert  # noqa: E402
from torch.utils.data._utils.collate import collate, default_collate_fn_map  # noqa: E402

from torch_parity import Items, Listed, alike, lists  # noqa: E402
from torch_parity_types import Fixed, Gathered, Pair, Point, Row  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


DTYPES = ["uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64", "bool"]
DTYPES += ["uint16", "uint32", "uint64", "complex128"]
NUMPY = ["uint8", "int8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64", "complex64", "bool"]
BATCHES: dict[str, list[Any]] = {
    "int": [1, 2],
    "big int": [2**62, -(2**62)],
    "float": [0.5, float("nan")],
    "bool": [True, False],
    "int, then float": [1, 2.5],
    "str": ["a", "ö"],
    "bytes": [b"a", b""],
    "numpy scalar": [np.float32(1.5), np.float32(2)],
    "numpy bool": [np.bool_(True), np.bool_(False)],
    "numpy int8": [np.int8(1), np.int8(-1)],
    "numpy str": [np.str_("a"), np.str_("b")],
    "dict": [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [3, 4]}],
    "dict with more keys later": [{"a": 1}, {"a": 2, "b": 3}],
    "OrderedDict": [collections.OrderedDict(b=1, a=torch.ones(2)), collections.OrderedDict(b=2, a=torch.zeros(2))],
    "defaultdict": [collections.defaultdict(int, a=1), collections.defaultdict(int, a=2)],
    "UserDict": [collections.UserDict(a=1), collections.UserDict(a=2)],
    "named tuple": [Point(1, torch.ones(3)), Point(2, torch.zeros(3))],
    "tuple": [(1, "a"), (2, "b")],
    "list": [[1, 2.0], [3, 4.0]],
    "empty list": [[], []],
    "range": [range(3), range(3, 6)],
    "own list": [Row([1, 2]), Row([3, 4])],
    "own sequence": [Fixed(1, 2), Fixed(3, 4)],
    "deep": [{"a": [({"b": Point(1, [torch.ones(1)])},)]}, {"a": [({"b": Point(2, [torch.zeros(1)])},)]}],
    "one sample": [{"image": torch.ones(3, 4), "name": "x"}],
    "scalar tensors": [torch.tensor(1), torch.tensor(2)],
    "empty tensors": [torch.empty(0, 3), torch.empty(0, 3)],
    "not contiguous": [torch.arange(6).reshape(2, 3).t(), torch.arange(6).reshape(3, 2)],
    "expanded": [torch.ones(1).expand(4), torch.zeros(1).expand(4)],
    "channels last": [torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)] * 2,
    "numpy not contiguous": [np.arange(6).reshape(2, 3).T, np.zeros((3, 2), np.int64)],
    "numpy without dimensions": [np.array(1.5), np.array(2.5)],
    "numpy empty": [np.zeros((0, 2)), np.zeros((0, 2))],
    "large": [torch.full((3, 300, 200), 7, dtype=torch.uint8)] * 4,
    **{f"torch {name}": list(torch.eye(2).to(getattr(torch, name))) for name in DTYPES},
    **{f"numpy {name}": [np.ones(3, name), np.zeros(3, name)] for name in NUMPY},
}
BAD_BATCHES: dict[str, list[Any]] = {
    "None": [None, None],
    "an object": [Pair(1, 2), Pair(3, 4)],
    "a set": [{1}, {2}],
    "numpy strings": [np.array(["a"]), np.array(["b"])],
    "numpy objects": [np.array([None]), np.array([None])],
    "unequal lists": [[1], [1, 2]],
    "unequal tensors": [torch.ones(2), torch.ones(3)],
    "a missing key": [{"a": 1}, {"b": 1}],
    "mixed": [1, "a"],
    "tensors of mixed types": [torch.ones(2, dtype=torch.int64), torch.ones(2)],
    "tensors with gradients": [torch.ones(2, requires_grad=True), torch.ones(2)],
    "large tensors with gradients": [torch.ones(20_000, requires_grad=True), torch.ones(20_000)],
    "sparse": [torch.ones(2).to_sparse(), torch.ones(2).to_sparse()],
    "nested": [torch.nested.nested_tensor([torch.ones(1)], layout=torch.jagged)],
    "too big an int": [2**70, 1],
}
CONVERTED: dict[str, Any] = {
    "int": 1,
    "str": "a",
    "numpy": np.ones((2, 2), np.float32),
    "numpy strings": np.array(["a", "b"]),
    "tensor": torch.arange(3),
    "dict": {"a": np.zeros(2), "b": "c"},
    "tuple": (1, np.ones(1)),
    "named tuple": Point(np.ones(1), None),
    "list": [np.ones(1), [np.zeros(1)]],
    "None": None,
    "numpy scalar": np.float64(2.5),
}


def told_by(act: Callable[[], object]) -> tuple[type, str]:
    """Type and last line of the error of a worker."""
    with pytest.raises(Exception, match=r"^Caught [A-Za-z]+ in DataLoader worker process 0") as error:
        act()
    return error.type, str(error.value).rstrip().splitlines()[-1]


def in_batches(batches: dict[str, list[Any]]) -> dict[str, Any]:
    """Arguments of a loader that gives each list of samples as one batch."""
    samples = [sample for batch in batches.values() for sample in batch]
    numbers = iter(range(len(samples)))
    return {"dataset": Listed(samples), "batch_sampler": [[next(numbers) for _ in batch] for batch in batches.values()]}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_type_is_collated_as_by_torchs(
    make_loader: LoaderMaker, make_torchs: LoaderMaker, num_workers: int
) -> None:
    expected = list(make_torchs(**in_batches(BATCHES), num_workers=num_workers))
    given = list(make_loader(**in_batches(BATCHES), num_workers=num_workers))
    assert [name for name, *pair in zip(BATCHES, given, expected, strict=True) if not alike(*pair)] == []


def test_batches_are_right_when_none_is_kept(make_loader: LoaderMaker, make_torchs: LoaderMaker) -> None:
    wrong, expected = [], iter(make_torchs(**in_batches(BATCHES), num_workers=1))
    for name, batch in zip(BATCHES, make_loader(**in_batches(BATCHES), num_workers=1), strict=True):
        if not alike(batch, next(expected)):
            wrong.append(name)
    assert wrong == []


def test_every_type_is_converted_as_here(make_loader: LoaderMaker) -> None:
    given = make_loader(Listed(list(CONVERTED.values())), None, num_workers=1)
    expected = map(default_convert, CONVERTED.values())
    assert [name for name, *pair in zip(CONVERTED, given, expected, strict=True) if not alike(*pair)] == []


def test_what_cannot_be_collated_is_told_as_by_torchs(make_loader: LoaderMaker, make_torchs: LoaderMaker) -> None:
    def told(make: LoaderMaker) -> dict[str, tuple[type, str]]:
        batches = iter(make(**in_batches(BAD_BATCHES), num_workers=1))
        found = {name: told_by(lambda: next(batches)) for name in BAD_BATCHES}
        assert next(batches, None) is None
        return found

    assert told(make_loader) == told(make_torchs)


def test_a_mapping_that_cannot_be_copied_is_collated_as_here(make_loader: LoaderMaker) -> None:
    def proxy(index: int) -> Any:
        return types.MappingProxyType({"a": index})

    loader = make_loader(Items(2, proxy), 2, num_workers=1, collate_fn=lambda batch: dict(default_collate(batch)))
    assert lists(loader) == [{"a": [0, 1]}]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_own_collate_function_gets_the_list_of_samples(make_loader: LoaderMaker, num_workers: int) -> None:
    def show(samples: Any) -> Any:
        return type(samples).__name__, samples

    loader = make_loader(Items(3, str), 2, collate_fn=show, num_workers=num_workers)
    assert list(loader) == [("list", ["0", "1"]), ("list", ["2"])]


def test_without_batching_it_gets_the_sample(make_loader: LoaderMaker) -> None:
    assert list(make_loader(Items(2), None, collate_fn=lambda sample: -sample, num_workers=1)) == [0, -1]


def test_an_own_collate_function_may_call_torchs(make_loader: LoaderMaker) -> None:
    def labelled(samples: Any) -> dict[str, Any]:
        return {"batch": default_collate(samples), "again": default_collate(samples) * 2, "count": len(samples)}

    loader = make_loader(Items(4, lambda index: torch.full((2,), index)), 2, collate_fn=labelled, num_workers=1)
    assert lists(loader) == [
        {"batch": [[0, 0], [1, 1]], "again": [[0, 0], [2, 2]], "count": 2},
        {"batch": [[2, 2], [3, 3]], "again": [[4, 4], [6, 6]], "count": 2},
    ]


def test_a_collate_function_may_add_types_of_its_own(make_loader: LoaderMaker) -> None:
    def pairs(batch: Any, *, collate_fn_map: Any = None) -> Any:
        return collate([pair.one for pair in batch], collate_fn_map=collate_fn_map)

    def with_pairs(batch: Any) -> Any:
        return collate(batch, collate_fn_map={Pair: pairs, **default_collate_fn_map})

    loader = make_loader(Items(4, lambda index: (Pair(index, 0), index)), 2, collate_fn=with_pairs, num_workers=1)
    assert lists(loader) == [[[0, 1], [0, 1]], [[2, 3], [2, 3]]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_dataset_may_fetch_a_batch_at_once(make_loader: LoaderMaker, num_workers: int) -> None:
    assert list(make_loader(Gathered(3), 2, collate_fn=tuple, num_workers=num_workers)) == [
        (("list", 0), ("list", 1)),
        (("list", 2),),
    ]


def test_a_dataset_may_switch_that_off(make_loader: LoaderMaker) -> None:
    dataset = Gathered(2)
    dataset.__getitems__ = None  # type: ignore[assignment, method-assign]
    assert lists(make_loader(dataset, 2, num_workers=1)) == [[0, 1]]
