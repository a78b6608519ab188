"""A contender of bench/first_batch.py: two loaders one after the other. Started by `_process.Contender`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from _belongings import STANDING, role_of
from _loader_kinds import PAGE_ELEMENTS, make_loader
from _serving import serve
from millpond._observe.memory import process_memory, tree_pids

_TENSOR_BYTES = 1 << 20


class Held(Dataset[int]):
    """A dataset whose samples lie in its memory, as tensors or as arrays; a sample reads every page of one.

    The last ones of `thorough` read all of it: pages that just one worker has read would count as its own.
    """

    def __init__(self, count: int, *, as_arrays: bool, thorough: int) -> None:
        self.thorough = thorough
        tensors = [torch.full((_TENSOR_BYTES,), number % 251, dtype=torch.uint8) for number in range(count)]
        self.held: list[Any] = [tensor.numpy() for tensor in tensors] if as_arrays else tensors

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> int:
        # no sum over all of it: torch makes it int64 for that, and the heap then holds more than the dataset
        first = 0 if index >= len(self.held) - self.thorough else index
        return sum(int(held[::PAGE_ELEMENTS].sum()) for held in self.held[first : index + 1])


class Peer:
    """One side."""

    dataset: Held
    loader: DataLoader[int]
    batches: Iterator[Any]

    def construct(self, *, tensors: int, as_arrays: bool, thorough: int) -> dict[str, Any]:
        self.dataset = Held(tensors, as_arrays=as_arrays, thorough=thorough)
        return {}

    def first(self, *, side: str, batch_size: int, num_workers: int) -> dict[str, Any]:
        """From asking a new loader for its iterator to its first batch."""
        self.loader = make_loader(side, dataset=self.dataset, batch_size=batch_size, num_workers=num_workers)
        cpu, began = time.process_time(), time.perf_counter()
        self.batches = iter(self.loader)
        iterator_seconds = time.perf_counter() - began
        next(self.batches)
        seconds = time.perf_counter() - began
        return {
            "first_batch_seconds": seconds,
            "iterator_seconds": iterator_seconds,
            "own_cpu_seconds": time.process_time() - cpu,
        }

    def rest(self) -> dict[str, Any]:
        """All batches but for the end of the epoch, so that workers are there and have read all of the dataset."""
        for _ in range(len(self.loader) - 1):
            next(self.batches)
        found: dict[str, list[dict[str, int]]] = {"worker": []} | {role: [] for role in STANDING}
        for pid in tree_pids(os.getpid())[1:]:
            memory = process_memory(pid)
            found[role_of(pid)].append(
                {"rss_bytes": memory.rss_bytes, "pss_bytes": memory.pss_bytes, "uss_bytes": memory.uss_bytes}
            )
        own = process_memory(os.getpid())
        return {"processes": found, "parent": {"rss_bytes": own.rss_bytes, "pss_bytes": own.pss_bytes}}

    def end(self) -> dict[str, Any]:
        """To the end of the epoch, and no loader any more."""
        assert next(self.batches, None) is None
        del self.batches, self.loader
        return {}


if __name__ == "__main__":
    peer = Peer()
    operations = {"construct": peer.construct, "first": peer.first, "rest": peer.rest, "end": peer.end}
    serve(operations, torch=torch.__version__)
