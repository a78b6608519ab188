"""A program that reads datasets on a Ray cluster of two nodes, and writes down what came."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from ray.cluster_utils import Cluster

import millpond
import millpond.ray
from millpond._synth import read_pattern
from synthesized import FRONT, WRIST, open_dataset

_STORE_BYTES = 96 << 20
_BLOCK_BYTES = 250_000
"""Some four rows: a task gives several blocks."""


@contextmanager
def two_nodes(logs: list[str]) -> Iterator[None]:
    """A cluster of two nodes of one CPU each, "left" and "right"; `logs` is given all that it wrote in files."""
    folder = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp"))  # addresses of sockets are short
    os.environ["RAY_TMPDIR"] = str(folder)
    node = {
        "num_cpus": 1,
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
        "include_log_monitor": False,
    }
    try:
        cluster = Cluster(initialize_head=True, head_node_args=node | {"resources": {"left": 1}, "no_monitor": True})
        try:
            cluster.add_node(**node, resources={"right": 1})
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            ray.data.DataContext.get_current().enable_progress_bars = False
            ray.data.DataContext.get_current().target_max_block_size = _BLOCK_BYTES
            yield
        finally:
            ray.shutdown()
            cluster.shutdown()
        logs += [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    finally:
        shutil.rmtree(folder)


def named(batch: dict[str, Any]) -> dict[str, Any]:
    """Who each row says it is, by its numbers and by the pixels of each camera; and the node where that is read."""
    names = [
        [int(episode), int(frame), *(read_pattern(np.moveaxis(picture, 0, -1)) for picture in pictures)]
        for episode, frame, *pictures in zip(*(batch[name] for name in _IDENTITY), strict=True)
    ]
    node = ray.get_runtime_context().get_node_id()
    return {"name": np.asarray([json.dumps(name) for name in names]), "node": np.asarray([node] * len(names))}


_IDENTITY = ("episode_index", "frame_index", FRONT, WRIST)


def names_of(dataset: Any) -> list[Any]:
    return [json.loads(row["name"]) for row in dataset.map_batches(named).take_all()]


def dies_once(batch: dict[str, Any], marker: str) -> dict[str, Any]:
    """The first to come to sample 12 kills the process that reads."""
    if 12 in batch["index"] and not os.path.exists(marker):
        Path(marker).write_text(str(len(batch["index"])))
        os.kill(os.getpid(), signal.SIGKILL)
    return {"index": batch["index"]}


def on_both_nodes(root: Path) -> dict[str, Any]:
    """Each half of the episodes is read where there is the resource, and named by the same tasks."""
    nodes = {side: node["NodeID"] for node in ray.nodes() for side in ("left", "right") if side in node["Resources"]}
    names: list[Any] = []
    is_there: dict[str, list[bool]] = {}
    for side, episodes in (("left", [0, 1]), ("right", [2, 3, 4])):
        there: dict[str, Any] = {"resources": {side: 0.5}}
        read = millpond.ray.read_lerobot(root, episodes=episodes, cache_dir="beside", **there)
        rows = read.map_batches(named, **there).take_all()
        names += [json.loads(row["name"]) for row in rows]
        is_there[side] = [row["node"] == nodes[side] for row in rows]
    return {"names": names, "is_there": is_there}


def as_tensors(root: Path, url: str) -> dict[str, Any]:
    """From a store that wants a token; each row is held against the sample of the dataset on disk."""
    read = millpond.ray.read_lerobot(url, token=os.environ["STORE_TOKEN"], override_num_blocks=2, decode_workers=0)
    samples = open_dataset(root)
    shapes, wrong, seen = [], [], []
    for batch in read.drop_columns(["task"]).iter_torch_batches(batch_size=16):
        shapes.append({name: [str(value.dtype), list(value.shape[1:])] for name, value in batch.items()})
        for row, index in enumerate(batch["index"].tolist()):
            seen.append(index)
            wrong += [name for name in batch if not bool((batch[name][row] == samples[index][name]).all())]
    samples.close()
    tasks = {row["task"] for row in read.select_columns(["task"]).take(1)}
    return {"shapes": shapes[0], "wrong": wrong, "seen": seen, "told": [repr(read), str(read)], "tasks": list(tasks)}


def windows(root: Path) -> dict[str, Any]:
    """A few rows of two steps each, with channels last; what follows is done in tasks of its own."""
    read = millpond.ray.read_lerobot(
        root,
        cache_dir="beside",
        delta_timestamps={FRONT: [-1 / 30, 0.0]},
        channels_last=True,
        reserve_memory=True,
        override_num_blocks=1,
    )
    rows = read.limit(3).take_all()
    shown = [[read_pattern(step)[2] for step in row[FRONT]] for row in rows]
    return {"shown": shown, "shapes": [list(row[name].shape) for row in rows[:1] for name in (FRONT, WRIST)]}


def killed(root: Path, folder: Path) -> dict[str, Any]:
    marker = folder / "killed"
    read = millpond.ray.read_lerobot(root, cache_dir="beside", override_num_blocks=2, batch_size=4)
    rows = read.map_batches(dies_once, batch_size=4, fn_kwargs={"marker": str(marker)}).take_all()
    return {"seen": [row["index"] for row in rows], "was_killed": marker.exists()}


def shuffled(root: Path) -> list[list[int]]:
    """Two epochs, and the first of another that is asked the same."""
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    reads = [
        millpond.ray.read_lerobot(root, cache_dir="beside", shuffle=True, override_num_blocks=3, decode_workers=0)
        for _ in range(2)
    ]
    found = [[row["index"] for row in reads[read].select_columns(["index"]).take_all()] for read in (0, 0, 1)]
    ray.data.DataContext.get_current().execution_options.preserve_order = False
    return found


def raised_by(read: Callable[[], Any]) -> dict[str, Any]:
    try:
        read()
    except Exception as error:  # noqa: BLE001 - which it is, is what is looked at
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {
            "kinds": kinds,
            "text": str(error),
            "facts": {k: str(v) for k, v in getattr(error, "facts", {}).items()},
        }
    return {}


def damaged(root: Path, folder: Path) -> dict[str, Any]:
    quarantine = folder / "quarantine"
    options: dict[str, Any] = {"cache_dir": "beside", "override_num_blocks": 2, "quarantine": quarantine}
    good = millpond.ray.read_lerobot(root, on_error="skip", **options)
    found: dict[str, Any] = {"names": names_of(good), "names again": names_of(good)}
    found["quarantined"] = [json.loads(line) for path in quarantine.iterdir() for line in path.read_text().splitlines()]
    every = millpond.ray.read_lerobot(root, on_error="placeholder", **options).select_columns(["index", "is_valid"])
    found["rows"] = [[row["index"], row["is_valid"]] for row in every.take_all()]
    found["raised"] = raised_by(millpond.ray.read_lerobot(root, **options).take_all)
    few = millpond.ray.read_lerobot(root, on_error="skip", max_errors=0.01, **options)
    found["too many"] = raised_by(few.take_all)
    return found


def main(root: str, damaged_root: str, url: str, folder: str) -> None:
    logs: list[str] = []
    with two_nodes(logs):
        found: dict[str, Any] = {
            "spread": on_both_nodes(Path(root)),
            "tensors": as_tensors(Path(root), url),
            "windows": windows(Path(root)),
            "killed": killed(Path(root), Path(folder)),
            "orders": shuffled(Path(root)),
            "damaged": damaged(Path(damaged_root), Path(folder)),
            "unknown": raised_by(partial(millpond.ray.read_lerobot, root, concurency=2)),
            "too small": raised_by(millpond.ray.read_lerobot(root, memory="1MiB").take_all),
        }
    told = [*logs, *found["tensors"].pop("told")]
    found["logged"], found["secrets"] = sum(map(len, logs)), sum(os.environ["STORE_TOKEN"] in text for text in told)
    (Path(folder) / "found.json").write_text(json.dumps(found))
