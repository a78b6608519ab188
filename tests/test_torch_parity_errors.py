"""What a loader raises when code in a worker does: torch's, held against both classes by the same test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures_torch import LoaderMaker

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch_parity import Gate, Items, Stream, lists, plain  # noqa: E402
from torch_parity_types import MessageError, TwoWordsError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


def raising(make_error: Callable[[], BaseException], at: int = 1) -> Callable[[int], int]:
    """An item function that raises at one index."""

    def item(index: int) -> int:
        if index == at:
            raise make_error()
        return index

    return item


def told(loader: Any) -> BaseException:
    """The error that iterating over all of a loader raises, without its frames: they would keep the iterator."""
    batches = iter(loader)
    try:
        lists(batches)
    except Exception as error:  # noqa: BLE001 - what it is, the test says
        return error.with_traceback(None)
    finally:
        getattr(batches, "_shutdown_workers", bool)()
    pytest.fail("nothing was raised")


BAD = partial(ValueError, "bad")
KINDS: dict[str, tuple[Callable[[], BaseException], type[BaseException], str]] = {
    "ValueError": (partial(ValueError, "bad"), ValueError, "ValueError: bad"),
    "KeyError": (partial(KeyError, "a", "b"), KeyError, "KeyError: ('a', 'b')"),
    "IndexError": (partial(IndexError, "far"), IndexError, "IndexError: far"),
    "AttributeError": (partial(AttributeError, "none such"), AttributeError, "AttributeError: none such"),
    "FileNotFoundError": (
        partial(FileNotFoundError, 2, "gone"),
        FileNotFoundError,
        "FileNotFoundError: [Errno 2] gone",
    ),
    "UnicodeDecodeError": (
        partial(UnicodeDecodeError, "utf-8", b"\xff", 0, 1, "odd"),
        RuntimeError,
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: odd",
    ),
    "without text": (partial(RuntimeError), RuntimeError, "RuntimeError"),
    "many lines": (partial(ValueError, "one\ntwo"), ValueError, "two"),
    "two words": (
        partial(TwoWordsError, "so", "much"),
        RuntimeError,
        "torch_parity_types.TwoWordsError: so much",
    ),
    "by name": (partial(MessageError, message="so"), MessageError, "torch_parity_types.MessageError: so"),
    "MemoryError": (partial(MemoryError, "full"), MemoryError, "MemoryError: full"),
    "TimeoutError": (partial(TimeoutError, "late"), TimeoutError, "TimeoutError: late"),
    "AssertionError": (partial(AssertionError, "no"), AssertionError, "AssertionError: no"),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_error_of_the_dataset_comes_with_its_type_text_and_traceback(make_loader: LoaderMaker, name: str) -> None:
    make_error, kind, last_line = KINDS[name]
    found = told(make_loader(Items(4, raising(make_error)), num_workers=2))
    text = str(found)
    assert type(found) is kind
    assert text.startswith(
        f"Caught {type(make_error()).__name__} in DataLoader worker process 1.\nOriginal Traceback (most "
    )
    assert ", in __getitem__\n" in text
    assert text.rstrip().endswith(last_line)


def test_an_error_with_a_cause_tells_both(make_loader: LoaderMaker) -> None:
    def item(index: int) -> int:
        try:
            return [0][1 + index]
        except IndexError as error:
            raise ValueError("no such item") from error

    text = str(told(make_loader(Items(1, item), num_workers=1)))
    assert "IndexError: list index" in text
    assert "The above exception was the direct cause" in text


def test_without_workers_an_error_comes_as_it_is(make_loader: LoaderMaker) -> None:
    error = ValueError("bad")
    assert told(make_loader(Items(4, raising(lambda: error)))) is error


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_comes_at_its_turn_and_the_next_batches_after_it(make_loader: LoaderMaker, num_workers: int) -> None:
    batches = iter(make_loader(Items(5, raising(BAD, 2)), num_workers=num_workers))
    assert [plain(next(batches)) for _ in range(2)] == [[0], [1]]
    with pytest.raises(ValueError, match="bad"):
        next(batches)
    assert lists(batches) == [[3], [4]]


def test_persistent_workers_go_on_after_an_error(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(3, raising(BAD)), num_workers=1, persistent_workers=True)
    for _ in range(2):
        batches = iter(loader)
        assert next(batches).tolist() == [0]
        with pytest.raises(ValueError, match="bad"):
            next(batches)
        assert next(batches).tolist() == [2]


def test_an_error_of_the_collate_function_is_told_the_same_way(make_loader: LoaderMaker) -> None:
    def collate(samples: Any) -> Any:
        raise ValueError(f"cannot collate {samples}")

    text = str(told(make_loader(Items(2), 2, collate_fn=collate, num_workers=1)))
    assert text.startswith("Caught ValueError in DataLoader worker process 0.\n")
    assert "cannot collate [0, 1]" in text


def test_an_error_of_the_init_function_is_that_of_its_workers_first_batch(make_loader: LoaderMaker) -> None:
    def init(worker: int) -> None:
        if worker == 1:
            raise ValueError("cannot begin")

    batches = iter(make_loader(Items(4), num_workers=2, worker_init_fn=init))
    assert next(batches).tolist() == [0]
    with pytest.raises(ValueError, match=r"^Caught ValueError in DataLoader worker process 1\.\n(.*\n)*.*cannot begin"):
        next(batches)
    assert next(batches).tolist() == [2]


def test_an_error_when_a_stream_is_opened_is_told_the_same_way(make_loader: LoaderMaker) -> None:
    def items(worker: int) -> Any:
        raise ValueError("cannot open")

    text = str(told(make_loader(Stream(items), num_workers=1)))
    assert text.startswith("Caught ValueError in DataLoader worker process 0.\n")


def test_an_error_within_a_stream_comes_at_its_turn(make_loader: LoaderMaker) -> None:
    def items(worker: int) -> Iterator[int]:
        yield 1
        raise ValueError("torn")

    batches = iter(make_loader(Stream(items), num_workers=1))
    assert next(batches).tolist() == [1]
    with pytest.raises(ValueError, match="torn"):
        next(batches)
    assert lists(batches) == []  # a generator that raised is at its end


def test_stop_iteration_of_a_map_dataset_is_an_error_like_others(make_loader: LoaderMaker) -> None:
    batches = iter(make_loader(Items(3, raising(partial(StopIteration, "odd"))), num_workers=1))
    assert next(batches).tolist() == [0]
    with pytest.raises(StopIteration, match="Caught StopIteration in DataLoader worker process 0"):
        next(batches)


def test_a_warning_of_a_dataset_does_not_end_anything(make_loader: LoaderMaker) -> None:
    def item(index: int) -> int:
        print("noise", file=sys.stderr)
        return index

    assert lists(make_loader(Items(2, item), num_workers=1)) == [[0], [1]]


DEATHS: dict[str, Callable[[], Any]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "left": lambda: os._exit(3),
    "ended": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_worker_is_a_runtime_error(make_loader: LoaderMaker, death: str) -> None:
    def item(index: int) -> int:
        if index == 1:
            DEATHS[death]()
        return index

    error = told(make_loader(Items(4, item), num_workers=1))
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("DataLoader worker (pid")


def test_a_batch_that_takes_too_long_is_a_runtime_error(make_loader: LoaderMaker, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")

    def item(index: int) -> int:
        gate.wait()
        return index

    try:
        batches = iter(make_loader(Items(1, item), num_workers=1, timeout=0.5))
        with pytest.raises(RuntimeError, match=r"^DataLoader timed out after \d+\.\d seconds"):
            next(batches)
    finally:
        gate.let_through(4)  # torch's worker still waits there
        gate.close()


def test_a_timeout_that_is_not_passed_changes_nothing(make_loader: LoaderMaker) -> None:
    assert lists(make_loader(Items(3), num_workers=1, timeout=250)) == [[0], [1], [2]]
