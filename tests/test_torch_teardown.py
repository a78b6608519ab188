"""A DataLoader's workers and what it shares with them end as soon as its iterator is let go, without the collector."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond.torch import DataLoader


class Frames:
    """Arrays that are large enough for a slot."""

    def __init__(self, raises_at: int = -1, ends_at: int = -1) -> None:
        self.raises_at = raises_at
        self.ends_at = ends_at

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index == self.raises_at:
            raise ValueError("bad")
        if index == self.ends_at:
            os._exit(7)
        return np.full(1 << 15, index, np.uint8)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def go_through(loader: Any, batches: int = 100) -> None:
    for number, _ in enumerate(loader, 1):
        if number == batches:
            break


def test_a_loop_that_is_broken_off_leaves_no_worker() -> None:
    loader = DataLoader(Frames(), batch_size=2, num_workers=2)
    go_through(loader)  # the zygote is there
    descriptors = len(os.listdir("/dev/fd"))
    go_through(loader, batches=2)
    assert loader.statistics().worker_pids == ()
    assert len(os.listdir("/dev/fd")) == descriptors


@pytest.mark.parametrize("dataset", [Frames(raises_at=5), Frames(ends_at=5)], ids=["raised", "died"])
def test_neither_does_one_that_an_error_ended(dataset: Frames) -> None:
    loader = DataLoader(dataset, batch_size=2, num_workers=2)
    with contextlib.suppress(ValueError, RuntimeError):
        go_through(loader)
        raise AssertionError("there was no error")
    assert loader.statistics().worker_pids == ()


def test_a_dataset_ends_with_its_loader() -> None:
    dataset = Frames()
    ended = weakref.ref(dataset)
    loader = DataLoader(dataset, batch_size=2, num_workers=2)
    go_through(loader, batches=2)
    del dataset, loader
    assert ended() is None


@pytest.mark.parametrize("dataset", [Frames(), Frames(raises_at=5)], ids=["broken off", "raised"])
def test_nothing_is_left_to_the_collector(dataset: Frames) -> None:
    for _ in range(2):  # what is made once is not counted
        gc.collect()
        with contextlib.suppress(ValueError):
            go_through(DataLoader(dataset, batch_size=2, num_workers=2), batches=4)
        left = gc.collect()
    assert left == 0
