"""What a worker is to the code that runs in it: torch's, held against both classes by the same test."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import psutil
import pytest

from fixtures_torch import LoaderMaker
from programs import outlive

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.data import get_worker_info  # noqa: E402

from torch_parity import Items, Stream, draws, lists  # noqa: E402
from torch_parity_types import Counting, begin, whoami  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_batch_i_is_fetched_by_worker_i_modulo_their_number(make_loader: LoaderMaker, num_workers: int) -> None:
    ids = [ids.tolist() for ids, _ in make_loader(Items(8, whoami), 2, num_workers=num_workers)]
    assert ids == [[batch % num_workers] * 2 for batch in range(4)]


def test_workers_are_processes_and_zero_of_them_are_this_one(make_loader: LoaderMaker) -> None:
    pids = {pid.item() for _, pid in make_loader(Items(4, whoami), num_workers=2)}
    assert len(pids - {os.getpid()}) == 2
    assert {(i.item(), pid.item()) for i, pid in make_loader(Items(4, whoami))} == {(-1, os.getpid())}


@pytest.mark.parametrize("of_generator", [False, True])
def test_worker_info_has_the_base_seed_plus_the_id(make_loader: LoaderMaker, of_generator: bool) -> None:
    def facts(_: int) -> tuple[int, int, int, str]:
        info = get_worker_info()
        assert info is not None
        return info.id, info.num_workers, info.seed, type(info.dataset).__name__

    torch.manual_seed(21)
    generator = torch.Generator().manual_seed(22) if of_generator else None
    loader = make_loader(Items(2, facts), None, collate_fn=None, num_workers=2, generator=generator)
    found = list(loader)
    drawn = torch.Generator().manual_seed(22 if of_generator else 21)
    base_seed = torch.empty((), dtype=torch.int64).random_(generator=drawn).item()
    assert found == [[0, 2, base_seed, "Items"], [1, 2, base_seed + 1, "Items"]]
    assert get_worker_info() is None


def test_random_numbers_of_workers_are_those_of_torchs(make_loader: LoaderMaker, make_torchs: LoaderMaker) -> None:
    torch.manual_seed(3)
    loader = make_torchs(Items(4, draws), None, num_workers=2)
    expected = list(loader) + list(loader)
    torch.manual_seed(3)
    loader = make_loader(Items(4, draws), None, num_workers=2)
    assert list(loader) + list(loader) == expected
    assert len({tuple(numbers) for numbers in expected}) == 8


def test_random_numbers_of_this_process_are_not_touched_by_workers(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(2, draws), None, num_workers=1, generator=torch.Generator())
    torch.manual_seed(3)
    expected = draws(0)[0]
    torch.manual_seed(3)
    assert len(list(loader)) == 2
    assert draws(0)[0] == expected


def test_a_worker_computes_with_one_thread(make_loader: LoaderMaker) -> None:
    assert lists(make_loader(Items(1, lambda _: torch.get_num_threads()), num_workers=1)) == [[1]]


def test_the_init_function_is_called_once_in_each_worker_after_seeding(make_loader: LoaderMaker) -> None:
    calls: list[Any] = []

    def init(worker: int) -> None:
        calls.append((worker, torch.initial_seed()))

    loader = make_loader(Items(4, lambda _: list(calls)), None, num_workers=2, worker_init_fn=init)
    torch.manual_seed(1)
    found = list(loader)
    base_seed = found[0][0][1]
    assert found == [[[index % 2, base_seed + index % 2]] for index in range(4)]
    assert calls == []


def test_the_init_function_may_change_the_dataset_of_its_worker(make_loader: LoaderMaker) -> None:
    def shift(worker: int) -> None:
        info = get_worker_info()
        assert info is not None
        info.dataset.item = lambda index: 100 * worker + index

    assert lists(make_loader(Items(3), num_workers=2, worker_init_fn=shift)) == [[0], [101], [2]]


def test_the_init_function_is_not_called_without_workers(make_loader: LoaderMaker) -> None:
    called: list[int] = []
    assert lists(make_loader(Items(1), worker_init_fn=called.append)) == [[0]]
    assert called == []


def test_workers_of_an_epoch_end_with_it(make_loader: LoaderMaker) -> None:
    loader = make_loader(Counting(4), None, num_workers=1, worker_init_fn=begin)
    first, second = list(loader), list(loader)
    assert [row[:2] for row in first] == [row[:2] for row in second] == [[1, 1], [2, 1], [3, 1], [4, 1]]
    assert first[0][2] != second[0][2]


def test_workers_end_when_their_iterator_is_let_go_of(make_loader: LoaderMaker) -> None:
    batches = iter(make_loader(Items(9, whoami), None, num_workers=2))
    workers = [psutil.Process(next(batches)[1]) for _ in range(2)]
    gc.disable()  # it is no matter of garbage
    try:
        del batches
        assert outlive(workers, 10) == []
    finally:
        gc.enable()


def test_persistent_workers_go_on_with_their_datasets(make_loader: LoaderMaker) -> None:
    loader = make_loader(Counting(3), None, num_workers=1, worker_init_fn=begin, persistent_workers=True)
    first, second = list(loader), list(loader)
    assert [row[:2] for row in first + second] == [[asked, 1] for asked in range(1, 7)]
    assert len({row[2] for row in first + second}) == 1


def test_persistent_workers_survive_a_break(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(6, whoami), None, num_workers=2, persistent_workers=True)
    first = next(row for row in loader)
    rows = list(loader)
    assert [row[0] for row in rows] == [0, 1, 0, 1, 0, 1]
    assert rows[0] == first


def test_persistent_workers_have_one_iterator_and_one_seed(make_loader: LoaderMaker, make_torchs: LoaderMaker) -> None:
    torch.manual_seed(8)
    loader = make_torchs(Items(2, draws), None, num_workers=2, persistent_workers=True)
    expected = list(loader) + list(loader)
    torch.manual_seed(8)
    loader = make_loader(Items(2, draws), None, num_workers=2, persistent_workers=True)
    assert list(loader) + list(loader) == expected
    assert iter(loader) is iter(loader)


def test_persistent_workers_begin_a_stream_anew_each_epoch(make_loader: LoaderMaker) -> None:
    loader = make_loader(Stream(lambda worker: range(2 + worker)), num_workers=2, persistent_workers=True)
    assert lists(loader) == lists(loader) == [[0], [0], [1], [1], [2]]


def test_more_workers_than_batches_do_no_harm(make_loader: LoaderMaker) -> None:
    assert lists(make_loader(Items(1), num_workers=3)) == [[0]]


def test_a_loader_works_in_any_thread(make_loader: LoaderMaker) -> None:
    found: list[Any] = []
    loader = make_loader(Items(3), num_workers=1)
    thread = threading.Thread(target=lambda: found.extend(lists(loader)))
    thread.start()
    thread.join()
    assert found == [[0], [1], [2]]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_every_start_method_gives_the_same(make_loader: LoaderMaker, method: str) -> None:
    loader = make_loader(Counting(3), None, num_workers=1, worker_init_fn=begin, multiprocessing_context=method)
    assert loader.multiprocessing_context.get_start_method() == method
    assert [row[:2] for row in loader] == [[1, 1], [2, 1], [3, 1]]
