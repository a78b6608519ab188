"""What tests of streaming share: epochs as plain copies, small steps, and secrets that are nowhere to be found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from millpond import LeRobotDataset, Loader
from millpond._datasets.remote_files import RemoteFiles
from store_server import StoreServer, serving_store

Batches = list[dict[str, Any]]

MANY: dict[str, Any] = {"episodes": 8, "frames": 18, "episodes_per_file": 2, "b_frames": 2}
"""Four files per camera, 144 samples, GOPs of 6."""


def loader_of(dataset: LeRobotDataset, **changes: Any) -> Loader:
    """A loader of small batches, in numpy."""
    options: dict[str, Any] = {
        "batch_size": 8,
        "shuffle": True,
        "seed": 3,
        "num_workers": 2,
        "memory": "300MiB",
        "output": "numpy",
    }
    return Loader(dataset, **options | changes)


def copied(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch that no slot is behind."""
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in batch.items()}


def taken(loader: Loader, batches: int | None = None, after_first: Callable[[], object] | None = None) -> Batches:
    """The next epoch, or so many batches of it; something may happen after the first."""
    found: Batches = []
    for batch in loader:
        if not found and after_first is not None:
            after_first()
        found.append(copied(batch))
        if len(found) == batches:
            break
    return found


def epoch_of(dataset: LeRobotDataset, after_first: Callable[[], object] | None = None, **options: Any) -> Batches:
    """One epoch of a loader of its own."""
    with loader_of(dataset, **options) as loader:
        return taken(loader, after_first=after_first)


def quarantined(path: Path) -> list[dict[str, Any]]:
    """The lines of a quarantine file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> None:
    """Bit for bit, in order."""
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = np.array_equal(value, other[name]) if isinstance(value, np.ndarray) else value == other[name]
            assert same, f"batch {number}: {name} differs"


def samples_of(batches: Sequence[Mapping[str, Any]]) -> list[int]:
    """In the order delivered."""
    return [sample for batch in batches for sample in batch["index"].tolist()]


def rows_of(batches: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Every sample by its index, each of which must be there once."""
    found: dict[int, dict[str, Any]] = {}
    for batch in batches:
        for row, sample in enumerate(batch["index"].tolist()):
            assert sample not in found, f"sample {sample} was delivered twice"
            found[sample] = {name: values[row] for name, values in batch.items()}
    return found


def assert_same_rows(found: Batches, expected: Batches, samples: Sequence[int] | None = None) -> None:
    """The same samples in whatever order, or those of the expected that are named."""
    mine, others = rows_of(found), rows_of(expected)
    order = sorted(others if samples is None else samples)
    assert sorted(mine) == order
    assert_same([mine[sample] for sample in order], [others[sample] for sample in order])


class SmallSteps:
    """Makes tasks, requests and the ring small, so that an epoch of a tiny dataset is a long one."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(self, ring_bytes: int | None = 16 << 10, segment: int = 6, layout: str | None = None) -> None:
        """Have segments of so many samples, a camera a task; in a layout."""
        self._patch.setattr("millpond._plan.memory.SEGMENT_LADDER", (segment,))
        self._patch.setattr("millpond._plan.memory.TASK_FRAMES", 1)
        if ring_bytes is not None:
            self._patch.setattr(
                "millpond._plan.memory._prefetch_bytes",
                lambda demand, *_: 0 if demand.fetched_bytes is None else ring_bytes,
            )
        if layout is not None:
            self._patch.setattr("millpond._plan.memory._layouts", lambda demand: (layout,))


@contextmanager
def streamed(
    root: Path, *, server: Mapping[str, Any] | None = None, **options: Any
) -> Iterator[tuple[LeRobotDataset, StoreServer]]:
    """A dataset behind a server of ours, and the server; both end with the block."""
    with serving_store(root, **(server or {})) as store:
        dataset = LeRobotDataset(store.url, **options)
        try:
            yield dataset, store
        finally:
            dataset.close()


def limit(dataset: LeRobotDataset, **limits: Any) -> None:
    """Other limits from now on, also in workers: short ones that its opening need not keep on a busy machine."""
    store = cast(RemoteFiles, dataset._files).objects
    store.close()
    store._limits = replace(store._limits, **limits)
    store._maker = replace(store._maker, limits=store._limits)
    url, options, token, _, cache = store._arguments
    store._arguments = (url, options, token, store._limits, cache)


def asked_for(server: StoreServer, suffix: str = "") -> tuple[int, int]:
    """Requests that came for objects whose names end so, and the bytes that they asked for, as far as there are any.

    The server's own counts of bytes grow a moment after the bytes have come.
    """
    assert server.folder is not None
    requests = total = 0
    for method, raw_path, headers in server.requests:
        path = raw_path.partition("?")[0]
        if path.endswith(suffix):
            requests += 1
            if method == "GET":
                first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
                total += min(int(last) + 1, os.path.getsize(server.folder / path.lstrip("/"))) - int(first)
    return requests, total


def media_bytes(dataset: LeRobotDataset) -> int:
    """Of all packets of all videos, as their tables have them; of a dataset without sound that is all of the media."""
    total = 0
    for camera in dataset.cameras:
        source = dataset._camera_source(dataset._layout.cameras[dataset.cameras.index(camera)])
        for path, identity in zip(source.paths, source.identities, strict=True):
            table, _ = dataset._files.load_table(path, dataset._store, identity)
            total += int(table.size.sum())
    return total


def texts_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and contents of every file."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with open(path, "rb") as file:
                yield path, file.read()


def camera_paths(dataset: LeRobotDataset, camera: str) -> tuple[str, ...]:
    """The places of a camera's files."""
    paths: tuple[str, ...] = dataset._layout.videos[camera].paths
    return paths


def samples_in(dataset: LeRobotDataset, camera: str, file: int) -> NDArray[np.int64]:
    """The samples that a file of a camera shows."""
    layout = dataset._layout
    return np.flatnonzero(np.repeat(layout.videos[camera].file_of, layout.lengths) == file)
