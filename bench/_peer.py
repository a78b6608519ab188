"""What every contender of an epoch does when it is told to: look at an epoch, run slices of it, run it whole.

A contender gives batches of a fresh, shuffled epoch; the rest is here, the same for all. Only numpy, psutil and
`_serving`, since it runs in the peers' environment, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import psutil

from _serving import serve

Batch = Mapping[str, Any]  # "index", and of each camera the pictures: (B, [T,] C, H, W) or (B, [T,] H, W, C)


class Side(Protocol):
    """A loader as people would set it up.

    Attributes:
        num_samples: In an epoch.
        cameras: Whose pictures are in a batch.
        fills_up: It makes many samples before it gives the first, and gives the last ones when all are made: only a
            whole epoch says how fast it is.
    """

    num_samples: int
    cameras: tuple[str, ...]
    fills_up: bool

    def epoch(self) -> Iterator[Batch]:
        """Begin a fresh one; when it is closed its workers end, and nothing more is decoded."""
        ...

    def facts(self) -> dict[str, Any]:
        """What else is to be told of it, after an epoch, too."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@dataclass
class Contending:
    """Operations of one contender, over the side that was constructed last."""

    make: Callable[..., Side]
    side: Side | None = None
    turn: int = 1  # batches that workers make at the same time

    def construct(self, **settings: Any) -> dict[str, Any]:
        self.close()  # what it holds goes before the next one comes
        self.side = self.make(**settings)
        self.turn = max(1, settings["num_workers"])
        return {"num_samples": self.side.num_samples, **self.side.facts()}

    def close(self) -> dict[str, Any]:
        if self.side is not None:
            self.side.close()
        self.side = None
        return {}

    def look(self, *, seconds: float, pictures: int, path: str) -> dict[str, Any]:
        """Go through an epoch for so long: which samples come, in which batches; is it the whole of it?

        The pictures of the first samples are written to `path`, one array for each camera.
        """
        assert self.side is not None
        batches: list[list[int]] = []
        began = time.monotonic()
        with closing(self.side.epoch()) as epoch:
            for batch in epoch:
                batches.append(_indices(batch))
                if len(batches) == 1:
                    np.savez(path, **{name: _as_uint8(batch[name][:pictures]) for name in self.side.cameras})
                    del batch  # a view of it would hold what a loader wants back
                if time.monotonic() - began >= seconds:
                    return {"batches": batches, "is_whole": False, "wall_seconds": time.monotonic() - began}
        return {"batches": batches, "is_whole": True, "wall_seconds": time.monotonic() - began}

    def slice(self, *, seconds: float) -> dict[str, Any]:
        """Time batches of a fresh epoch, from one turn of all workers to a later one.

        The first turn starts workers, opens decoders and fills buffers, and is not timed. Workers deliver nearly in
        step, so counting from and to a whole turn leaves no batch half counted. They end with the slice, and decode
        nothing in the others'. An epoch that is over before is timed to its end.
        """
        assert self.side is not None
        if self.side.fills_up:
            return self.epoch()
        with closing(self.side.epoch()) as epoch:
            for _ in range(self.turn):
                next(epoch)
            samples, cpu, began = 0, tree_cpu_seconds(), time.monotonic()
            for number, batch in enumerate(epoch, start=1):
                samples += len(batch["index"])
                elapsed = time.monotonic() - began
                if number % self.turn == 0 and elapsed >= seconds:
                    break
            return {"samples": samples, "wall_seconds": elapsed, "cpu_seconds": tree_cpu_seconds() - cpu}

    def epoch(self) -> dict[str, Any]:
        """Time a whole one, from asking for it to its last batch; own CPU is of this process, workers left out."""
        assert self.side is not None
        samples, first_batch_seconds = 0, 0.0
        cpu, own_cpu, began = tree_cpu_seconds(), time.process_time(), time.monotonic()
        for batch in self.side.epoch():
            samples += len(batch["index"])
            first_batch_seconds = first_batch_seconds or time.monotonic() - began
        return {
            "samples": samples,
            "wall_seconds": time.monotonic() - began,
            "cpu_seconds": tree_cpu_seconds() - cpu,
            "own_cpu_seconds": time.process_time() - own_cpu,
            "first_batch_seconds": first_batch_seconds,
        }


def contend(make: Callable[..., Side], **facts: Any) -> None:
    """Serve until standard input ends; an operation that fails is answered with its error, and others may go well."""
    contending = Contending(make)
    names = ("construct", "look", "slice", "epoch", "close")
    serve({name: _told(getattr(contending, name)) for name in names}, **facts)
    contending.close()


def leave(reason: BaseException) -> None:
    """Say why this contender cannot take part here, and end."""
    print(json.dumps({"absent": f"{type(reason).__name__}: {str(reason).splitlines()[0]}"}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # a library that half imported may crash in its ending


def tree_cpu_seconds() -> float:
    """Of this process and everything below it, whatever has ended and was waited for included."""
    me = psutil.Process()
    seconds = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _told(operation: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def run(**arguments: Any) -> dict[str, Any]:
        try:
            return operation(**arguments)
        except Exception as error:  # noqa: BLE001  whatever a peer raises is a finding
            line = (str(error).splitlines() or [""])[-1]
            return {"error": f"{type(error).__name__}: {line}", "text": str(error)}

    return run


def _indices(batch: Batch) -> list[int]:
    return [int(index) for index in np.asarray(batch["index"]).ravel()]


def _as_uint8(pictures: Any) -> np.ndarray[Any, Any]:
    """(B, T, H, W, C), whatever came: floats of 0 to 1, channels first, no axis of time."""
    array = np.asarray(pictures)
    if array.dtype == object:  # Ray's own: one array each
        array = np.stack(array)
    if array.shape[-1] != 3:
        array = np.moveaxis(array, -3, -1)
    if array.dtype != np.uint8:
        array = np.rint(array * 255).astype(np.uint8)
    return array if array.ndim == 5 else array[:, None]
