"""millpond.torch.DataLoader as an object that is opened, broken off, shared, interrupted and closed."""

from __future__ import annotations

import gc
import pickle
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from millpond.errors import ClosedError, UsageError
from programs import forked, outlive, program, run_python

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond.torch import DataLoader  # noqa: E402
from torch_datasets import (  # noqa: E402
    Made,
    Numbered,
    Stream,
    all_identities,
    flat,
    hang,
    identities,
    sample,
    what_a_worker_knows,
)
from torch_memory import lies_in_arena  # noqa: E402

IN_BATCHES = [list(range(start, start + 4)) for start in range(0, 40, 4)]


class Interrupted(Exception):
    """What a signal handler of a test raises."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """SIGALRM raises `Interrupted` in the main thread."""

    def handle(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def workers_of(loader: Any) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in loader.statistics().worker_pids]


def failing_sampler() -> Iterator[int]:
    yield from range(10)
    raise LookupError("no more")


# ---- closing


def test_closing_ends_the_workers_and_leaves_held_batches() -> None:
    loader = DataLoader(Numbered(40), 4, num_workers=2)
    batches = iter(loader)
    held = next(batches)
    workers = workers_of(loader)
    loader.close()
    loader.close()
    assert not outlive(workers, 0)
    assert lies_in_arena(held)
    assert identities(held) == [0, 1, 2, 3]
    with pytest.raises(ClosedError, match="this iterator of the DataLoader was closed"):
        next(batches)
    with pytest.raises(ClosedError, match="this DataLoader is closed"):
        iter(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_with_statement_closes_also_on_an_error(num_workers: int) -> None:
    loader = DataLoader(Numbered(40), 4, num_workers=num_workers)
    with pytest.raises(IndexError), loader:
        identities(next(iter(loader))[:, :0])
    with pytest.raises(ClosedError):
        iter(loader)


def test_an_iterator_in_a_cycle_ends_with_the_garbage_collection() -> None:
    loader: Any = DataLoader(Numbered(40), 4, num_workers=2)
    batches: Any = iter(loader)
    next(batches)
    workers = workers_of(loader)
    batches.cycle = [batches]
    ended = weakref.ref(batches)
    del batches, loader
    gc.collect()
    assert ended() is None
    assert not outlive(workers, 0)


def test_persistent_workers_go_on_after_a_loop_that_was_broken_off() -> None:
    with DataLoader(Numbered(40), 4, num_workers=2, persistent_workers=True) as loader:
        for epoch in range(4):
            for place, batch in enumerate(loader):
                assert identities(batch) == IN_BATCHES[place]
                if place == epoch:
                    break
            pids = loader.statistics().worker_pids
        assert all_identities(loader) == IN_BATCHES
        assert loader.statistics().worker_pids == pids
        assert len(pids) == 2


def test_persistent_workers_of_a_stream_begin_anew_with_each_epoch() -> None:
    with DataLoader(Stream(24), 2, num_workers=2, persistent_workers=True) as loader:
        for _ in range(3):
            next(iter(loader))
            assert sorted(flat(loader)) == list(range(24))


def test_nothing_is_left_of_a_program_that_ends_with_iterators_open(tmp_path: Path) -> None:
    code = """
from millpond.torch import DataLoader
from torch_datasets import Numbered, identities
loader = DataLoader(Numbered(400), 4, num_workers=2)
batches = iter(loader)
held = [next(batches) for _ in range(3)]
print(identities(held[2]))
"""
    with program(code, tmp_path / "own") as running:
        assert running.ended() == (0, "[8, 9, 10, 11]\n", "")
        assert not running.left(5.0)


def test_nothing_is_left_of_a_program_that_is_killed(tmp_path: Path) -> None:
    code = """
from millpond.torch import DataLoader
from torch_datasets import Numbered
batches = iter(DataLoader(Numbered(400), 4, num_workers=2))
next(batches)
print("begun", flush=True)
import time; time.sleep(60)
"""
    with program(code, tmp_path / "own") as running:
        assert running.line() == "begun"
        running.process.kill()
        running.ended()
        assert not running.left(5.0)


def test_ctrl_c_in_a_loop_ends_a_program_as_ever(tmp_path: Path) -> None:
    code = """
from millpond.torch import DataLoader
from torch_datasets import Numbered, hang
batches = iter(DataLoader(Numbered(400, {1: hang}), 4, num_workers=2))
print("begun", flush=True)
next(batches)
"""
    with program(code, tmp_path / "own") as running:
        assert running.line() == "begun"
        running.process.send_signal(signal.SIGINT)
        code_of_it, _, errors = running.ended()
        assert code_of_it in (1, -signal.SIGINT, 130)
        assert "KeyboardInterrupt" in errors
        assert not running.left(5.0)


# ---- interrupts


def test_an_interrupt_while_it_waits_leaves_it_usable(alarm: None, tmp_path: Path) -> None:
    gate = tmp_path / "open"

    def wait_at_four(index: int) -> Any:
        while index == 4 and not gate.exists():
            pass
        return sample(index)

    with DataLoader(Made(wait_at_four, 40), 4, num_workers=1) as loader:
        batches = iter(loader)
        assert identities(next(batches)) == IN_BATCHES[0]
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(Interrupted):
                next(batches)
        gate.touch()
        assert all_identities(batches) == IN_BATCHES[1:]


def test_interrupts_at_any_moment_lose_no_process_and_no_order(tmp_path: Path) -> None:
    """In a program of its own: an interrupt amid torch's imports, or of a system call's return, leaves what it does."""
    code = """
import signal
from millpond.errors import ClosedError
from millpond.torch import DataLoader
from torch_datasets import Numbered, identities

class Interrupted(Exception):
    pass

def interrupt(*_):
    raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
for place in range(30):
    numbers = []
    with DataLoader(Numbered(400), 4, num_workers=2) as loader:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0007 * (1 + place))
            for batch in loader:
                numbers += identities(batch)
        except (Interrupted, ClosedError):
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    assert numbers == list(range(len(numbers))), (place, numbers)
print("in order")
"""
    with program(code, tmp_path / "own") as running:
        assert running.line() == "in order"
        assert running.ended()[0] == 0
        assert not [left for left in running.left(3.0) if "torchinductor" not in left]


# ---- shared


def test_two_iterators_of_one_loader_go_on_beside_each_other() -> None:
    with DataLoader(Numbered(40), 4, num_workers=1) as loader:
        pairs = [(identities(one), identities(other)) for one, other in zip(loader, loader, strict=True)]
    assert pairs == list(zip(IN_BATCHES, IN_BATCHES, strict=True))


def test_batches_may_be_taken_by_another_thread() -> None:
    with DataLoader(Numbered(40), 4, num_workers=2) as loader:
        batches = iter(loader)
        found = [identities(next(batches))]
        thread = threading.Thread(target=lambda: found.extend(all_identities(batches)))
        thread.start()
        thread.join()
        assert found == IN_BATCHES


def test_a_loader_in_a_loop_of_its_own_samples_loader() -> None:
    with DataLoader(Numbered(8), 4, num_workers=1) as outer, DataLoader(Numbered(8), 2, num_workers=1) as inner:
        assert [flat(inner) for _ in outer] == [list(range(8))] * 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_iterator_does_not_go_along_into_a_forked_child() -> None:
    with DataLoader(Numbered(40), 4, num_workers=1) as loader:
        batches = iter(loader)
        identities(next(batches))

        def use() -> bytes:
            with pytest.raises(UsageError, match="make a new loader after the fork"):
                all_identities(batches)
            return b"told"

        with forked(use) as result:
            assert result() == b"told"
        assert all_identities(batches) == IN_BATCHES[1:]


def test_a_loader_pickles_without_what_it_has_open() -> None:
    with DataLoader(Numbered(40), 4, num_workers=1, memory="1GiB", on_error="skip") as loader:
        next(iter(loader))
        with pickle.loads(pickle.dumps(loader)) as copy:
            assert all_identities(copy) == IN_BATCHES
            assert (copy.memory, copy.on_error, copy.statistics().batches) == (loader.memory, "skip", 10)


# ---- what goes wrong in this process


def test_an_error_of_the_sampler_comes_once_and_what_was_drawn_before_is_delivered() -> None:
    with DataLoader(Numbered(40), 2, sampler=failing_sampler(), num_workers=1, prefetch_factor=2) as loader:
        batches = iter(loader)
        found = [identities(next(batches)) for _ in range(3)]
        with pytest.raises(LookupError, match="no more"):
            next(batches)
        assert found + all_identities(batches) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_an_error_of_the_sampler_at_the_start_leaves_no_worker() -> None:
    with DataLoader(Numbered(40), 20, sampler=failing_sampler(), num_workers=2) as loader:
        with pytest.raises(LookupError):
            iter(loader)
        assert loader.statistics().worker_pids == ()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_without_samples_is_a_batch_if_the_sampler_makes_it(num_workers: int) -> None:
    options: dict[str, Any] = {"batch_sampler": [[1], [], [2, 3]], "collate_fn": list}
    with DataLoader(Made(int), num_workers=num_workers, **options) as loader:
        assert list(loader) == [[1], [], [2, 3]]


def test_the_end_stays_the_end() -> None:
    for num_workers in (0, 1):
        batches = iter(DataLoader(Numbered(4), 4, num_workers=num_workers))
        assert len(all_identities(batches)) == 1
        assert [next(batches, None) for _ in range(3)] == [None] * 3


def test_statistics_count_what_was_delivered() -> None:
    with DataLoader(Numbered(40), 3, num_workers=2) as loader:
        flat(loader)
        flat(loader)
        statistics = loader.statistics()
    assert (statistics.batches, statistics.samples, statistics.skipped) == (28, 80, 0)
    assert (statistics.worker_pids, statistics.held_batches, statistics.shared_bytes) == ((), 0, 0)


def test_a_script_without_an_import_guard_and_with_its_own_classes_works(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        """
import collections, dataclasses, torch
from millpond.torch import DataLoader

@dataclasses.dataclass
class Pair:
    wide: torch.Tensor
    number: int

Point = collections.namedtuple("Point", "x y")

class Points:
    def __len__(self): return 4
    def __getitem__(self, index): return Pair(torch.full((9000,), index), index), Point(index, -index)

def collate(samples):
    pairs, points = zip(*samples)
    return Pair(torch.stack([pair.wide for pair in pairs]), sum(pair.number for pair in pairs)), points

for pair, points in DataLoader(Points(), 2, num_workers=2, collate_fn=collate, worker_init_fn=lambda seat: None):
    print(type(pair) is Pair, pair.number, pair.wide[:, -1].tolist(), type(points[0]) is Point, points[1].y)
"""
    )
    done = run_python(["script.py"], directory=tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["True 1 [0, 1] True -1", "True 5 [2, 3] True -3"]


def test_a_worker_that_hangs_does_not_keep_a_loader_from_closing() -> None:
    with DataLoader(Numbered(8, {0: hang}), 4, num_workers=1) as loader:
        iter(loader)
        workers = workers_of(loader)
    assert not outlive(workers, 0)


def test_workers_know_the_programs_arguments_their_parent_and_the_default_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--size", "7"])
    torch.set_default_dtype(torch.float64)
    try:
        with DataLoader(Made(what_a_worker_knows), None, num_workers=1) as loader:
            assert next(iter(loader)) == [["train.py", "--size", "7"], True, "millpond-worker-0", torch.float64]
    finally:
        torch.set_default_dtype(torch.float32)
