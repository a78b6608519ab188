"""Datasets, comparisons and gates for the tests that hold millpond.torch.DataLoader against torch's own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info


class Items(Dataset):  # type: ignore[misc]
    """Gives `item(index)` for each index below a length; map-style."""

    def __init__(self, length: int, item: Callable[[int], Any] = int) -> None:
        self.length = length
        self.item = item

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


class Listed(Dataset):  # type: ignore[misc]
    """Gives the samples it was made of."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


class Stream(IterableDataset):  # type: ignore[misc]
    """Gives `items(worker)`, where worker is the id, or 0 in this process; iterable, without a length."""

    def __init__(self, items: Callable[[int], Iterator[Any] | Sequence[Any]]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return iter(self.items(0 if worker is None else worker.id))


class SizedStream(Stream):
    """A stream that says how long it is, rightly or not."""

    def __init__(self, items: Callable[[int], Iterator[Any] | Sequence[Any]], length: int) -> None:
        super().__init__(items)
        self.length = length

    def __len__(self) -> int:
        return self.length


class Gate:
    """Lets processes wait for each other without a clock: a named pipe that is never empty of writers.

    Made, opened and closed by the test; `wait` and `let_through` are for any process that has a copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(self.path)
        self._held: int | None = os.open(self.path, os.O_RDWR)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_held": None}

    def wait(self) -> None:
        """Return when one passage is free, and use it up."""
        with open(self.path, "rb", buffering=0) as pipe:
            pipe.read(1)

    def let_through(self, count: int = 1) -> None:
        """Make passages free; never blocks."""
        with open(self.path, "wb", buffering=0) as pipe:
            pipe.write(bytes(count))

    def close(self) -> None:
        """By the test that made it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def draws(_: object) -> tuple[float, float, float]:
    """The next random number of torch, numpy and random, whatever is asked for."""
    return torch.rand((), dtype=torch.float64).item(), float(np.random.rand()), random.random()


def lists(loader: Any) -> list[Any]:
    """What a loader gives, tensors as lists of numbers."""
    return [plain(batch) for batch in loader]


def plain(value: Any) -> Any:
    """The same with lists for tensors."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def alike(one: Any, other: Any) -> bool:
    """Whether two batches are the same in type, structure, form and value, bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return _alike_tensors(one, other)
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and not isinstance(one, (str, bytes)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other or one != one)


def _alike_tensors(one: Any, other: Any) -> bool:
    for fact in ("dtype", "shape", "layout", "device", "requires_grad"):
        if getattr(one, fact) != getattr(other, fact):
            return False
    if one.layout is not torch.strided:
        return bool(torch.equal(one.to_dense(), other.to_dense()))
    has_gaps = other.untyped_storage().nbytes() != other.nbytes  # torch sends them along, millpond does not
    return bool((has_gaps or one.stride() == other.stride()) and _bytes_of(one) == _bytes_of(other))


def _bytes_of(tensor: Any) -> bytes:
    return bytes(tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).tolist())
