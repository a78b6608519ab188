"""Datasets whose samples carry their identity, and which misbehave where they are told to. Workers import it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from deadlock import hold_the_gil

WIDTH = 4096
"""Words of a sample: 32 KiB, so that batches lie in slots."""
_STEP = 1 << 20


def sample(index: int) -> Any:
    """int64, (WIDTH,): each word says which sample it is of, and where it belongs in it."""
    return torch.arange(WIDTH) + index * _STEP


def identities(batch: Any) -> list[int]:
    """Which samples a batch (N, WIDTH) is made of; AssertionError where one is damaged."""
    first = batch[:, 0]
    assert torch.equal(batch, first[:, None] + torch.arange(WIDTH)), "a batch holds what no sample held"
    return [int(number) for number in first // _STEP]


def all_identities(batches: Any) -> list[list[int]]:
    """Of each batch that comes, let go at once."""
    return [identities(batch) for batch in batches]


def flat(batches: Any) -> list[int]:
    """Which samples they are made of, all together."""
    return [number for batch in batches for number in identities(batch)]


class Numbered:
    """Samples 0 to size - 1, map-style.

    Args:
        size: Their number.
        troubles: What happens before a sample is made: index -> a function without arguments.
    """

    def __init__(self, size: int, troubles: dict[int, Callable[[], object]] | None = None) -> None:
        self._size = size
        self._troubles = troubles or {}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Any:
        self._troubles.get(index, bool)()
        return sample(index)


class InOneGo(Numbered):
    """The same with `__getitems__`, as some datasets of Hugging Face have it."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [self[index] for index in indices]


class Made:
    """As many samples as wanted, each what a function makes of its index."""

    def __init__(self, make: Callable[[int], Any], size: int = 8) -> None:
        self._make = make
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Any:
        return self._make(index)


class Stream(IterableDataset[Any]):  # type: ignore[misc] # torch is not typed for us
    """Samples 0 to size - 1, shared out among workers: worker i has i, i + n, i + 2n, ..."""

    def __init__(self, size: int, troubles: dict[int, Callable[[], object]] | None = None) -> None:
        self._size = size
        self._troubles = troubles or {}

    def numbers(self) -> range:
        """Of this worker's samples."""
        info = get_worker_info()
        return range(self._size) if info is None else range(info.id, self._size, info.num_workers)

    def made(self, number: int) -> Any:
        """A sample, if nothing happens."""
        self._troubles.get(number, bool)()
        return sample(number)

    def __iter__(self) -> Iterator[Any]:
        for number in self.numbers():
            yield self.made(number)


class Bookmark:
    """An iterator of a `Stream` that can tell where it is."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._next = 0

    def __iter__(self) -> Bookmark:
        return self

    def __next__(self) -> Any:
        numbers = self._stream.numbers()
        if self._next >= len(numbers):
            raise StopIteration
        self._next += 1
        return self._stream.made(numbers[self._next - 1])

    def state_dict(self) -> dict[str, int]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._next = state["next"]


class MarkedStream(Stream):
    """A `Stream` whose iterator has `state_dict`."""

    def __iter__(self) -> Iterator[Any]:
        return Bookmark(self)


class TellingStream(Stream):
    """A `Stream` that has `state_dict` itself, and whose iterator is a generator."""

    def __init__(self, size: int, troubles: dict[int, Callable[[], object]] | None = None) -> None:
        super().__init__(size, troubles)
        self._start = self._next = 0

    def __iter__(self) -> Iterator[Any]:
        numbers = self.numbers()
        self._next, self._start = self._start, 0  # only once: the next epoch begins at its start
        while self._next < len(numbers):
            self._next += 1
            yield self.made(numbers[self._next - 1])

    def state_dict(self) -> dict[str, int]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = state["next"]


# ---- troubles: functions without arguments, or made such by functools.partial


def once(flag: str, trouble: Callable[[], object]) -> None:
    """Have it happen the first time only, in whichever process; `flag` is a file that is not there yet."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    trouble()


def kill() -> None:
    """End this process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    """End it with a signal of its own doing."""
    ctypes.string_at(0)


def leave(code: int = 7) -> None:
    """End it behind Python's back."""
    os._exit(code)


def exit_politely() -> None:
    """Raise SystemExit."""
    sys.exit("enough")


def hang() -> None:
    """Never return."""
    while True:
        time.sleep(10)


def hang_in_c() -> None:
    """Never return, and hold the GIL."""
    hold_the_gil()


def refuse() -> None:
    """Raise."""
    raise ValueError("this sample is bad")


def note(path: str) -> None:
    """Append this process's id, a line."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def random_words() -> Any:
    """float64, (3,): of torch, numpy and random, as this worker has seeded them."""
    import random

    return torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()], dtype=torch.float64)


def what_a_worker_knows(_: int) -> tuple[list[str], bool, str, Any]:
    parent = multiprocessing.parent_process()
    is_known = parent is not None and parent.is_alive()
    return sys.argv, is_known, multiprocessing.current_process().name, torch.rand(1).dtype
