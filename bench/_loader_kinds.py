"""What the benches of DataLoaders load, and the loaders that load it. Workers import this."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset

PAGE_ELEMENTS = 4096
_FILLS = 251  # a prime: what comes out of order does not go unnoticed
_ENDLESS = 1 << 40
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEPT_BYTES = (1 << 31) - 1


@dataclass
class Filled(Dataset[Any]):
    """Sample i is `make(shape, i % 251)`: a fresh array or tensor, every element the same."""

    make: Callable[[tuple[int, ...], int], Any]
    shape: tuple[int, ...]
    with_number: bool = False
    length: int = _ENDLESS

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        filled = self.make(self.shape, index % _FILLS)
        return (index, filled) if self.with_number else filled


class Prebuilt(Dataset[torch.Tensor]):
    """Every item is one and the same batch."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.batch = torch.full(shape, 1, dtype=torch.uint8)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.batch


def fresh_array(shape: tuple[int, ...], fill: int) -> Any:
    """uint8, of `shape`."""
    return np.full(shape, fill, np.uint8)


def fresh_tensor(shape: tuple[int, ...], fill: int) -> torch.Tensor:
    """uint8, of `shape`."""
    return torch.full(shape, fill, dtype=torch.uint8)


def stack(samples: list[torch.Tensor]) -> torch.Tensor:
    """A collate function of a user's own."""
    return torch.stack(samples)


@dataclass(frozen=True)
class Kind:
    """What goes through a loader.

    Attributes:
        sample_shape: Of a sample's array, uint8.
        batch_size: Samples in a batch.
        arguments: Of the loader.
    """

    sample_shape: tuple[int, ...]
    batch_size: int
    arguments: dict[str, Any]

    def expected(self, number: int) -> int:
        """What `touch` says of batch `number`."""
        if self.arguments.get("batch_size", 0) is None:
            return -(-self.batch_size * int(np.prod(self.sample_shape)) // PAGE_ELEMENTS)
        sample_elements = int(np.prod(self.sample_shape))
        touched = np.arange(0, self.batch_size * sample_elements, PAGE_ELEMENTS) // sample_elements
        first = number * self.batch_size
        with_number = first if self.arguments["dataset"].with_number else 0
        return int(((first + touched) % _FILLS).sum()) + with_number


def kind_of(name: str, frame_shape: tuple[int, ...], batch_size: int) -> Kind:
    """By name, see KINDS.

    Args:
        name: Of the kind.
        frame_shape: Of a sample, but for "small".
        batch_size: But for "small".
    """
    if name == "small":
        return Kind((1000,), 256, {"dataset": Filled(fresh_array, (1000,), with_number=True), "batch_size": 256})
    if name == "prebuilt":
        dataset = Prebuilt((batch_size, *frame_shape))
        return Kind(frame_shape, batch_size, {"dataset": dataset, "batch_size": None})
    make = fresh_array if name == "numpy" else fresh_tensor
    arguments: dict[str, Any] = {"dataset": Filled(make, frame_shape), "batch_size": batch_size}
    if name == "custom":
        arguments["collate_fn"] = stack
    return Kind(frame_shape, batch_size, arguments)


KINDS = {
    "numpy": "fresh numpy samples, default_collate",
    "torch": "fresh torch.full samples, default_collate",
    "custom": "fresh torch.full samples, a collate function that calls torch.stack",
    "prebuilt": "the same batch again and again, batch_size=None",
    "small": "an int and an array of 1 kB, batches of 256, default_collate",
}


def touch(batch: Any) -> int:
    """Read every page of a batch."""
    if isinstance(batch, torch.Tensor):
        return int(batch.view(-1)[::PAGE_ELEMENTS].sum())
    return sum(touch(part) for part in batch)


SIDES = (
    "a side is millpond, torch, or torch-malloc (torch whose workers keep their heap, as millpond's do), each with"
    " :START_METHOD or, without, its own default"
)


def make_loader(side: str, **arguments: Any) -> TorchDataLoader[Any]:
    """A loader of a side, see SIDES."""
    name, _, start_method = side.partition(":")
    if start_method:
        arguments["multiprocessing_context"] = start_method
    if name == "millpond":
        from millpond.torch import DataLoader

        return DataLoader(**arguments)
    assert name in ("torch", "torch-malloc"), side
    if name == "torch-malloc":
        arguments["worker_init_fn"] = keep_heap
    return TorchDataLoader(**arguments)


def keep_heap(worker: int) -> None:
    """For glibc: large blocks come from the heap, too, and what is freed of it stays."""
    libc = ctypes.CDLL(None)
    assert libc.mallopt(_M_MMAP_MAX, 0)
    assert libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
