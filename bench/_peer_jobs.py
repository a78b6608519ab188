"""A contender of bench/loader_jobs.py: a loader for every job. Started by `_process.Contender`."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import Any

import torch
from torch.utils.data import Dataset

from _belongings import belongings
from _loader_kinds import Filled, fresh_array, make_loader, touch
from _serving import serve

ENDINGS = ("whole", "broken off", "whole", "raised")
"""How a job ends, by its number. Every other four loaders are closed where they can be, the rest are just dropped."""


class Raising(Dataset[Any]):
    """Raises at one sample."""

    def __init__(self, inner: Dataset[Any], at: int) -> None:
        self.inner = inner
        self.at = at

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            raise ValueError(f"sample {index} is bad")
        return self.inner[index]


def job(
    *, side: str, number: int, frame_shape: list[int], batch_size: int, batches: int, num_workers: int
) -> dict[str, Any]:
    """A loader, its batches up to where the job ends, and what is left after it."""
    ending = ENDINGS[number % len(ENDINGS)]
    dataset: Dataset[Any] = Filled(fresh_array, tuple(frame_shape), with_number=True, length=batches * batch_size)
    middle = batches // 2
    if ending == "raised":
        dataset = Raising(dataset, middle * batch_size)
    loader = make_loader(side, dataset=dataset, batch_size=batch_size, num_workers=num_workers)
    came = go_through(loader, middle if ending == "broken off" else batches)
    assert came == (batches if ending == "whole" else middle), (ending, came)
    if number // len(ENDINGS) % 2 and hasattr(loader, "close"):
        loader.close()
    del loader
    return {"batches": came, "ending": ending, **belongings()}


def go_through(loader: Any, most: int) -> int:
    """How many batches came until there were `most`, or no more, or one raised."""
    came = 0
    with contextlib.suppress(ValueError):
        for batch in loader:
            touch(batch)
            came += 1
            if came == most < len(loader):
                break
    return came


def end() -> dict[str, Any]:
    """What is left when all is shut down, and garbage is collected."""
    gc.collect()
    if "millpond" in sys.modules:
        sys.modules["millpond"].shutdown()
    return belongings()


def say_nothing(error: object) -> None:
    """In place of a traceback for each of torch's iterators that its own forked workers collect as garbage."""


if __name__ == "__main__":
    sys.unraisablehook = say_nothing
    torch.set_num_threads(1)
    serve({"job": job, "end": end}, torch=torch.__version__)
