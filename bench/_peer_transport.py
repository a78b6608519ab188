"""A contender of bench/transport.py: one loader, gone through slice by slice. Started by `_process.Contender`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from _cpu import cpu_seconds, spent
from _loader_kinds import Kind, kind_of, make_loader, touch
from _serving import serve


class Peer:
    """One side with one kind of samples."""

    loader: Any
    batches: Iterator[Any]
    kind: Kind
    number = 0

    def construct(self, *, side: str, kind: str, frame_shape: list[int], batch_size: int, num_workers: int) -> Any:
        self.kind = kind_of(kind, tuple(frame_shape), batch_size)
        self.loader = make_loader(side, num_workers=num_workers, **self.kind.arguments)
        self.batches = iter(self.loader)
        self.number = 0
        return {}

    def slice(self, *, seconds: float, skipped: int) -> dict[str, Any]:
        """Go on for so long, at least a batch.

        Args:
            seconds: How long.
            skipped: Batches before it that are not timed: those that have been waiting since the last slice, and then
                some, until the workers run as they do all the time.
        """
        self._check([touch(next(self.batches)) for _ in range(skipped)])
        touched = []
        before, began = cpu_seconds(), time.perf_counter()
        while not touched or time.perf_counter() - began < seconds:
            touched.append(touch(next(self.batches)))
        wall = time.perf_counter() - began
        cpu = {role: used / len(touched) * 1e3 for role, used in spent(before, cpu_seconds()).items()}
        self._check(touched)
        return {"batches": len(touched), "batches_per_second": len(touched) / wall, "cpu_ms_per_batch": cpu}

    def _check(self, touched: list[int]) -> None:
        for value in touched:
            assert value == self.kind.expected(self.number), f"batch {self.number} is not what it should be"
            self.number += 1

    def end(self) -> dict[str, Any]:
        statistics = str(self.loader.statistics()) if hasattr(self.loader, "statistics") else None
        del self.batches, self.loader
        return {"statistics": statistics}


if __name__ == "__main__":
    torch.set_num_threads(1)  # summing a few thousand numbers takes no more, and idle threads would spin
    peer = Peer()
    serve({"construct": peer.construct, "slice": peer.slice, "end": peer.end}, torch=torch.__version__)
