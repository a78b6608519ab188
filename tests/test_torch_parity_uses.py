"""Ways in which programs use a loader: torch's, held against both classes by the same test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fixtures_torch import LoaderMaker

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.data import default_collate, get_worker_info  # noqa: E402

from torch_parity import Items, Stream, lists  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


def test_changes_of_the_dataset_count_from_the_next_epoch(make_loader: LoaderMaker) -> None:
    dataset = Items(2)
    loader = make_loader(dataset, 2, num_workers=1)
    assert lists(loader) == [[0, 1]]
    dataset.item = lambda index: -index
    assert lists(loader) == [[0, -1]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_indices_keep_their_types(make_loader: LoaderMaker, num_workers: int) -> None:
    indices = [1, np.int64(2), torch.tensor(3), "four", (5, 6), None, slice(7), {"eight": 9}]
    dataset = Items(8, lambda index: type(index).__name__)
    loader = make_loader(dataset, None, sampler=indices, num_workers=num_workers)
    assert list(loader) == [type(index).__name__ for index in indices]


def test_batches_of_arrays_of_indices_are_taken(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(9), batch_sampler=[np.array([1, 2]), torch.tensor([3]), range(4, 6)], num_workers=1)
    assert lists(loader) == [[1, 2], [3], [4, 5]]


def test_a_collate_function_knows_its_worker(make_loader: LoaderMaker) -> None:
    def collate(samples: Any) -> Any:
        info = get_worker_info()
        return None if info is None else info.id, default_collate(samples).tolist()

    assert list(make_loader(Items(2), collate_fn=collate, num_workers=2)) == [(0, [0]), (1, [1])]
    assert list(make_loader(Items(2), collate_fn=collate)) == [(None, [0]), (None, [1])]


def test_a_subclass_may_wrap_the_iteration(make_loader: LoaderMaker) -> None:
    class Doubled(make_loader.cls):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[Any]:
            for batch in super().__iter__():
                yield batch * 2

    context = {} if make_loader.is_ours else {"multiprocessing_context": "fork"}
    loader = Doubled(Items(3), num_workers=1, **context)
    assert lists(loader) == lists(loader) == [[0], [2], [4]]


def test_a_dataset_may_be_a_loader_without_workers(make_loader: LoaderMaker) -> None:
    class Nested(Stream):
        def __iter__(self) -> Iterator[Any]:
            return iter(make_loader(Items(3), 2))

    assert lists(make_loader(Nested(lambda _: ()), None, num_workers=1)) == [[0, 1], [2]]


def test_loaders_of_many_threads_do_not_meet(make_loader: LoaderMaker) -> None:
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        found[number] = lists(make_loader(Items(6, lambda index: index + 10 * number), 3, num_workers=1))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [[10 * number + index + at for at in range(3)] for index in (0, 3)] for number in range(3)}


def test_nested_loops_go_through_one_loader(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(2), num_workers=1)
    assert [(one.item(), other.item()) for one in loader for other in loader] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_many_first_batches_are_taken(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(50), 2, num_workers=2, shuffle=False)
    assert [next(iter(loader)).tolist() for _ in range(5)] == [[0, 1]] * 5


def learn(batch: Any) -> list[float]:
    weight = torch.ones(1, requires_grad=True)
    (batch.float() * weight).sum().backward()
    return [weight.grad.item()]


def in_place(batch: Any) -> Any:
    batch = batch.double().requires_grad_()
    (batch**2).sum().backward()
    return batch.grad.tolist()


USES: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "backward": (learn, [6.0]),
    "gradient of a batch": (in_place, [0.0, 2.0, 4.0, 6.0]),
    "views": (lambda batch: batch.view(2, 2).t().reshape(-1).tolist(), [0, 2, 1, 3]),
    "assignment": (lambda batch: batch.index_fill_(0, torch.tensor([1]), 9).tolist(), [0, 9, 2, 3]),
    "out=": (lambda batch: torch.add(batch, 1, out=batch).tolist(), [1, 2, 3, 4]),
    "buffer": (lambda batch: list(memoryview(batch.numpy())), [0, 1, 2, 3]),
    "smaller": (lambda batch: batch.resize_(2).tolist(), [0, 1]),
    "set": (lambda batch: batch.new_empty(0).set_(batch).tolist(), [0, 1, 2, 3]),
    "half": (lambda batch: batch.half().tolist(), [0, 1, 2, 3]),
}


@pytest.mark.parametrize("use", USES)
def test_batches_are_tensors_like_others(make_loader: LoaderMaker, use: str) -> None:
    (batch,) = make_loader(Items(4), 4, num_workers=1)
    act, expected = USES[use]
    assert act(batch) == expected


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_batches_are_of_the_mode_that_they_are_taken_in(
    make_loader: LoaderMaker, make_torchs: LoaderMaker, mode: Any
) -> None:
    def facts(make: LoaderMaker) -> list[bool]:
        with mode():
            (batch,) = make(Items(20, lambda index: torch.ones(1000)), 20, num_workers=1)
        return [batch.is_inference(), batch.requires_grad, batch.is_leaf]

    assert facts(make_loader) == facts(make_torchs)
