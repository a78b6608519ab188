"""What tests of streaming share: epochs as plain copies, small steps, and secrets that are nowhere to be found."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from aiohttp import web
from numpy.typing import NDArray

from millpond import LeRobotDataset, Loader
from millpond._datasets.remote_files import RemoteFiles
from store_server import Settings, StoreServer, serving_store

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
        """Have segments of so many samples, a camera a task; in a layout. What a disk keeps is small, too."""
        self._patch.setattr("millpond._sources.shared_blocks.BLOCK_BYTES", 512)
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


def before_get(server: StoreServer, name: str, act: Callable[[], object], number: int = 1) -> None:
    """Do something before a GET, from now on, of an object whose name ends so is answered: before the so-manieth."""
    usual, left = server._fault, [number]

    def fault(request: web.Request, settings: Settings) -> str | int:
        if request.method == "GET" and request.path.endswith(name):
            left[0] -= 1
            if left[0] == 0:
                act()
        return usual(request, settings)

    server._fault = fault  # type: ignore[method-assign]


def script_ranges(server: StoreServer, name: str, *faults: str | int) -> None:
    """Say what becomes of the GETs of each range of objects whose names end so; after the last it is as the last."""
    usual, seen = server._fault, Counter[tuple[str, str]]()

    def fault(request: web.Request, settings: Settings) -> str | int:
        if request.method != "GET" or not request.path.endswith(name):
            return usual(request, settings)
        asked = request.path, request.headers["Range"]
        seen[asked] += 1
        return faults[min(seen[asked], len(faults)) - 1]

    server._fault = fault  # type: ignore[method-assign]


class Held:
    """Holds the answers of a server to GETs of objects whose names end so, from the so-manieth on, until `release`.

    Attributes:
        has_come: Set when the first of them came.
    """

    def __init__(self, server: StoreServer, name: str = ".mp4", number: int = 1) -> None:
        self.has_come = threading.Event()
        self._server = server
        self._name = name
        self._left = number
        self._may_go = asyncio.Event()
        self._usual = server._served
        server._served = self._served  # type: ignore[method-assign]

    async def _served(self, request: web.Request, settings: Settings, fault: str | int) -> web.StreamResponse:
        if request.method == "GET" and request.path.endswith(self._name):
            self._left -= 1
            if self._left <= 0:
                self.has_come.set()
                await self._may_go.wait()
        return await self._usual(request, settings, fault)

    def release(self) -> None:
        """Have all of them answered."""
        self._server._loop.call_soon_threadsafe(self._may_go.set)


class Crowd:
    """How many GETs of objects whose names end so lie before a server at once; each does for a moment.

    Attributes:
        most: Of them.
    """

    def __init__(self, server: StoreServer, name: str = ".mp4", seconds: float = 0.01) -> None:
        self.most = 0
        self._now = 0
        self._name = name
        self._seconds = seconds
        self._usual = server._served
        server._served = self._served  # type: ignore[method-assign]

    async def _served(self, request: web.Request, settings: Settings, fault: str | int) -> web.StreamResponse:
        if request.method == "GET" and request.path.endswith(self._name):
            self._now += 1
            self.most = max(self.most, self._now)
            try:
                await asyncio.sleep(self._seconds)
            finally:
                self._now -= 1
        return await self._usual(request, settings, fault)


@contextmanager
def altered(path: Path, start: int, size: int) -> Iterator[None]:
    """Other bytes in a file, unless its time and its size tell."""
    data, status = path.read_bytes(), path.stat()
    path.write_bytes(data[:start] + bytes(255 - one for one in data[start : start + size]) + data[start + size :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def transcode(path: Path, codec: str, options: dict[str, str]) -> None:
    """Have the same pictures in other packets."""
    target: Any
    new = path.with_suffix(".new.mp4")
    with av.open(str(path)) as source, av.open(str(new), "w") as target:
        stream = target.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(source.decode(video=0)):
            copy = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
            copy.pts, copy.time_base = number, Fraction(1, 30)
            target.mux(stream.encode(copy))
        target.mux(stream.encode(None))
    new.replace(path)


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
