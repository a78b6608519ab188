"""Types and functions of the parity tests that workers import: here, because test modules take a second to import."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import get_worker_info

from torch_parity import Items


def frame(index: int) -> Any:
    """Large enough for a slot: uint8, (3, 200, 200), all of its numbers the index."""
    return torch.full((3, 200, 200), index, dtype=torch.uint8)


class Tagged(torch.Tensor):  # type: ignore[misc]
    """A tensor of a type of its own."""


@dataclass
class Sample:
    """A batch of a type of its own."""

    pixels: Any
    name: str


def tagged() -> Any:
    tensor = torch.arange(3.0).as_subclass(Tagged)
    tensor.tag = "kept"
    return tensor


class TwoWordsError(Exception):
    """Cannot be made of one text."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class MessageError(Exception):
    """Has its text by name, as some libraries' errors do."""

    message = "a default"

    def __init__(self, *, message: str) -> None:
        super().__init__(message)


class Point(NamedTuple):
    x: Any
    y: Any


class Row(collections.UserList[Any]):
    """A sequence that is no list."""


class Fixed(Sequence[Any]):
    """A sequence that cannot be made of others, nor changed."""

    def __init__(self, one: Any, two: Any) -> None:
        self.items = (one, two)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


@dataclass
class Pair:
    one: int
    two: int


class Gathered(Items):
    """Fetches a batch at once."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [(type(indices).__name__, index) for index in indices]


def whoami(index: int) -> tuple[int, int]:
    """The worker that fetches, and its process."""
    info = get_worker_info()
    return (-1 if info is None else info.id), os.getpid()


class Counting(Items):
    """Counts, in the worker, what it was asked for; `begun` is for the function that begins a worker."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.begun: list[int] = []
        self.asked = 0

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return [self.asked, len(self.begun), os.getpid()]


def begin(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    assert isinstance(info.dataset, Counting)
    info.dataset.begun.append(worker)


def whole(_: int) -> range:
    return range(5)


def shard(worker: int) -> range:
    return range(worker, 7, 2)


def unequal(worker: int) -> range:
    return range(10 * worker, 10 * worker + 1 + 3 * worker)
