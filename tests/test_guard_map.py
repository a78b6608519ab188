"""`Guard.map`: many calls ahead of who consumes their results."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import millpond
from guard_tasks import (
    die,
    echo,
    filled,
    hang_in_c,
    lines,
    odd_fails,
    slow_if_first,
    tell,
    tell_and_hang,
    wait_for_file,
)
from millpond import Guard


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard(2, timeout=30) as guard:
        yield guard


def test_results_come_in_the_order_of_the_items(guard: Guard) -> None:
    assert list(guard.map(slow_if_first, range(50))) == list(range(50))
    assert list(guard.map(echo, [])) == []


def test_results_are_right_while_others_are_held(guard: Guard) -> None:
    held = list(guard.map(lambda number: filled(50_000, number), range(60)))
    assert all((array == number).all() for number, array in enumerate(held))


def test_items_are_taken_as_results_are(guard: Guard) -> None:
    taken: list[int] = []
    items = (taken.append(number) or number for number in itertools.count())  # type: ignore[func-returns-value]
    results = guard.map(echo, items)
    assert taken == []
    assert [next(results) for _ in range(20)] == list(range(20))
    assert 20 <= len(taken) <= 20 + 4 * 2
    results.close()


def test_a_slow_iterator_does_not_hold_up_what_is_ready(guard: Guard, tmp_path: Path) -> None:
    taken: list[int] = []

    def items() -> Iterator[str]:
        for number in itertools.count():
            taken.append(number)
            yield str(tmp_path / str(number))
            # each item takes as long as the one before it is worked on; the call drives the pool meanwhile
            guard.call(wait_for_file, str(tmp_path / str(number)))

    guard.call(echo, "a worker is ready")
    results = guard.map(tell, items())
    assert next(results) == str(tmp_path / "0")
    assert len(taken) < 8  # all that may be ahead
    results.close()


def test_an_iterator_may_use_an_array_again_for_its_next_item(guard: Guard) -> None:
    frames = np.zeros(100_000, np.float32)

    def items() -> Iterator[NDArray[np.float32]]:
        for number in range(40):
            frames[:] = number
            yield frames

    assert [float(array.sum()) for array in guard.map(echo, items())] == [1e5 * number for number in range(40)]


def test_the_first_error_ends_it(guard: Guard) -> None:
    results = guard.map(odd_fails, range(10))
    assert next(results) == 0
    with pytest.raises(ValueError, match="1 is odd"):
        next(results)
    assert list(results) == []
    assert guard.call(echo, 1) == 1


def test_errors_are_skipped_or_returned(guard: Guard) -> None:
    assert list(guard.map(odd_fails, range(6), on_error="skip")) == [0, 2, 4]
    results = list(guard.map(odd_fails, range(3), on_error="return"))
    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1], ValueError)
    with pytest.raises(ValueError, match="on_error is"):
        guard.map(echo, [], on_error="ignore")


def test_hangs_deaths_and_items_that_cannot_travel_are_errors_of_their_items(guard: Guard) -> None:
    def obey(how: str) -> str:
        if how == "hang":
            hang_in_c()
        if how.startswith("SIG"):
            die(how)
        return how

    items = ["a", "hang", "b", "SIGKILL", lines(3), "c"]
    assert list(guard.map(obey, "workers are ready")) == list("workers are ready")
    results = list(guard.with_timeout(1).map(obey, items, on_error="return"))
    kinds = [type(result) for result in results]
    assert kinds == [str, millpond.DecodeTimeout, str, millpond.WorkerDied, TypeError, str]
    assert list(guard.map(obey, items[2:4], on_error="skip")) == ["b"]


def test_an_iterator_that_raises_is_raised_after_the_results_before_it(guard: Guard) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("torn list")

    results = guard.map(echo, items(), on_error="skip")
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OSError, match="torn list"):
        next(results)


def test_what_fails_for_every_item_is_raised_in_any_case() -> None:
    with Guard(1, preload=("no_such_module_here",)) as guard, pytest.raises(ModuleNotFoundError):
        list(guard.map(echo, [1, 2], on_error="skip"))
    guard = Guard(1)
    results = guard.map(echo, itertools.count(), on_error="skip")
    next(results)
    guard.close()
    with pytest.raises(millpond.ClosedError):
        list(results)


@pytest.mark.parametrize("ending", ["close", "drop", "cycle"])
def test_an_early_end_ends_what_still_runs(guard: Guard, tmp_path: Path, ending: str) -> None:
    results = guard.map(
        lambda path: tell_and_hang(path) if path else None, [None, *(str(tmp_path / n) for n in "abcdef")]
    )
    next(results)
    while not (tmp_path / "a").exists():
        time.sleep(0.001)
    pid = int((tmp_path / "a").read_text())
    if ending == "close":
        results.close()
    elif ending == "cycle":
        cycle: list[object] = [results]
        cycle.append(cycle)
        del cycle
    del results
    gc.collect()
    assert not os.path.exists(f"/proc/{pid}")
    assert {guard.call(os.getpid) for _ in range(20)}.isdisjoint({pid})
    assert list(guard.map(echo, range(5))) == list(range(5))


def test_maps_and_calls_on_one_guard_do_not_get_in_each_other_s_way(guard: Guard) -> None:
    one, other = guard.map(echo, itertools.count()), guard.map(odd_fails, itertools.count(), on_error="skip")
    for number in range(30):
        assert (next(one), next(other), guard.call(echo, -number)) == (number, 2 * number, -number)
    one.close()
    other.close()


def test_workers_work_while_the_consumer_does(guard: Guard, tmp_path: Path) -> None:
    def meet(number: int) -> int:
        (tmp_path / f"ready {number}").touch()
        return wait_for_file(str(tmp_path / f"ready {1 - number}"))

    def mark(name: str) -> str:
        if name == "a":
            wait_for_file(str(tmp_path / "c was begun"))
        (tmp_path / name).touch()
        return name

    def items() -> Iterator[str]:
        yield from "abc"
        (tmp_path / "c was begun").touch()  # before this, a result of "a" would be given at once, and no more be begun
        yield from "defgh"

    assert len(set(guard.map(meet, range(2)))) == 2  # both workers are ready
    results = guard.map(mark, items())
    assert next(results) == "a"
    wait_for_file(str(tmp_path / "b"))
    wait_for_file(str(tmp_path / "c"))
    assert list(results) == list("bcdefgh")
