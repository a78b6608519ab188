"""What becomes of batches that nobody takes, and of iterators that an interrupt closed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond._guard.result_slots import ResultSlots
from millpond._torch.receiving import Receiver
from millpond._torch.supply import Rules, Supply
from millpond._torch.tasks import FetchTask, Kind, Place, pack_answer, unpack_task
from millpond._workers.outcomes import Completed
from millpond.torch import DataLoader
from torch_datasets import Numbered, flat

RULES = Rules(num_workers=2, prefetch_factor=3, in_order=True, is_iterable=False, makes_batches=True, skips=False)


class Prompt:
    """In a supervisor's place: every batch is made at once."""

    def __init__(self) -> None:
        self.tasks: list[FetchTask] = []
        self._answers: deque[Completed] = deque()

    def submit(self, task_id: int, payload: bytes, *, seat: int) -> None:
        self.tasks.append(unpack_task(payload))
        self._answers.append(Completed(task_id, pack_answer(Kind.BATCH, b"")))

    def wait(self, timeout_seconds: float | None) -> list[Completed]:
        answers, self._answers = list(self._answers), deque()
        return answers


class InterruptedOnce:
    """A sampler amid which Ctrl-C comes, the first time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._was_interrupted = False

    def __iter__(self) -> Iterator[int]:
        for index in range(self._size):
            if index == self._size - 1 and not self._was_interrupted:
                self._was_interrupted = True
                raise KeyboardInterrupt
            yield index

    def __len__(self) -> int:
        return self._size


def test_slots_of_batches_that_nobody_took_are_used_again() -> None:
    slots = ResultSlots(4)
    receiver = Receiver(slots, held_batches=4, memory_bytes=None, num_workers=RULES.num_workers)
    supervisor: Any = Prompt()
    supply = Supply(supervisor, receiver, RULES, lambda: (0, [0]), lambda _: None)
    for _ in range(20):
        supply.begin_epoch([Place(0)] * RULES.num_workers)
        arrival = supply.next()
        assert arrival is not None
        slots.release(arrival.assignment.slot)
    assert len({task.slot for task in supervisor.tasks}) <= 2 * RULES.most_outstanding
    slots.close()


def test_a_stream_that_cannot_tell_where_it_is_is_never_told_to_go_on_somewhere() -> None:
    receiver = Receiver(None, held_batches=0, memory_bytes=None, num_workers=RULES.num_workers)
    supervisor: Any = Prompt()
    supply = Supply(supervisor, receiver, replace(RULES, is_iterable=True), lambda: (0, [0]), lambda _: None)
    supply.begin_epoch([Place(0)] * RULES.num_workers)
    for _ in range(20):
        supply.next()
    assert {task.place for task in supervisor.tasks} == {None}


def test_persistent_workers_begin_anew_after_an_interrupt() -> None:
    sampler = InterruptedOnce(12)
    with DataLoader(Numbered(12), 2, sampler=sampler, num_workers=2, persistent_workers=True) as loader:
        with pytest.raises(KeyboardInterrupt):
            flat(loader)
        assert flat(loader) == list(range(12))
        assert flat(loader) == list(range(12))
