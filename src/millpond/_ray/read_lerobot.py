"""`read_lerobot`: what a user calls."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from millpond._datasets.lerobot import LeRobotDataset
from millpond._ray.datasource import LeRobotDatasource
from millpond._ray.options import OnError, checked_options
from millpond._ray.runs import tasks_for

_PROCESS_BYTES = 256 << 20
"""A worker of Ray's that has imported `ray.data`, and nothing else, has some 200 MiB."""


def read_lerobot(
    root: str | Path,
    *,
    episodes: Sequence[int] | None = None,
    cameras: Sequence[str] | None = None,
    delta_timestamps: Mapping[str, Sequence[float]] | None = None,
    tolerance_s: float = 1e-4,
    image_size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    cache_dir: str | Path | None = None,
    cache_bytes: int | str = "10GiB",
    storage_options: Mapping[str, Any] | None = None,
    token: str | None = None,
    fetch_timeout: float = 60.0,
    shuffle: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    channels_last: bool = False,
    memory: int | str = "512MiB",
    reserve_memory: bool = False,
    decode_workers: int = 1,
    on_error: OnError = "raise",
    max_errors: float | None = None,
    quarantine: str | os.PathLike[str] = "millpond-quarantine",
    timeout: float | None = 300.0,
    stall_timeout: float | None = 60.0,
    video_fetch_workers: int = 16,
    override_num_blocks: int | None = None,
    **ray_options: Any,
) -> ray.data.Dataset:
    """Read a LeRobot v3.0 dataset into a Ray dataset, decoded by tasks on whichever nodes Ray has.

    A task has a run of consecutive samples, beginning with an episode where one begins nearby, and decodes it in a
    `Loader` of its own: each frame once, in memory of fixed size, with limits on what hangs. A row is what
    `LeRobotDataset(root)[i]` is: pictures uint8 (3, H, W), or with a window (T, 3, H, W), numbers in their dtype, and
    `task` and columns of text as strings.

    Every node needs millpond, and finds the same dataset at `root`: a URL, or a path on a file system that they share.
    Arguments that are not named here are those of `LeRobotDataset`, which each task opens anew.

    Args:
        root: A path, or a URL.
        shuffle: Shuffle the order of tasks, and rows within each as far as its memory reaches; another order each time
            that the dataset is read. Rows of tasks that run at one time come as they are done, unless Ray is told to
            preserve order.
        seed: Of the order.
        batch_size: Rows that a task decodes together; Ray gathers them into blocks of its own size. None: 32, or fewer
            where they are large.
        channels_last: Pictures are (H, W, 3), as Ray's own readers give them; a quicker copy.
        memory: Budget of each task's loader: bytes, or "1GiB". Ray's process, and two of its blocks, come on top.
        reserve_memory: Have Ray set all of that aside for each task, so that a node runs no more tasks than fit. What
            follows is then no more done in the same tasks.
        decode_workers: Decoding processes of a task, and the CPUs that Ray sets aside for it. 0 decodes in Ray's own
            process, where nothing ends a decode that hangs.
        on_error: "raise" ends the reading with the error of the first bad sample. "skip" leaves bad samples out.
            "placeholder" leaves their rows zero, and adds a column `is_valid`.
        max_errors: Fraction of a task's samples that may be bad; more raise `TooManyErrors`. None: all. No count: tasks
            do not know of each other's.
        quarantine: Folder for what was bad: a file of JSON lines for each run that had something, written anew when the
            run is read again. On the node that read it, where nodes share no file system.
        timeout: As of `Loader`.
        stall_timeout: As of `Loader`.
        video_fetch_workers: Requests under way at once, of each task.
        override_num_blocks: Tasks. None: four for each CPU that the cluster has now, of 512 samples at least and 32,768
            at most.
        **ray_options: Others of `ray.data.read_datasource`: `resources`, `concurrency`, `label_selector`, ...

    Returns:
        A `ray.data.Dataset`; nothing is decoded before it is used. An error that ends its use is of Ray's class and of
        millpond's: `except millpond.CorruptMedia` catches it.

    Raises:
        DataError: Of the metadata.
        UnsupportedFormat: Not v3.0, or features that millpond does not read.
        TypeError: An option that this version of Ray does not know.
        ValueError: Arguments that cannot work. A budget that is too small is found by the first task.
    """
    _check_known(ray_options)
    options = checked_options(
        batch_size=batch_size,
        memory=memory,
        decode_workers=decode_workers,
        shuffle=shuffle,
        seed=seed,
        on_error=on_error,
        max_errors=max_errors,
        quarantine=quarantine,
        timeout=timeout,
        stall_timeout=stall_timeout,
        video_fetch_workers=video_fetch_workers,
        channels_last=channels_last,
    )
    with LeRobotDataset(
        root,
        episodes=episodes,
        cameras=cameras,
        delta_timestamps=delta_timestamps,
        tolerance_s=tolerance_s,
        image_size=image_size,
        interpolation=interpolation,
        cache_dir=cache_dir,
        cache_bytes=cache_bytes,
        storage_options=storage_options,
        token=token,
        fetch_timeout=fetch_timeout,
        lazy=True,
    ) as dataset:
        source = LeRobotDatasource(dataset, options)
    if override_num_blocks is None:
        override_num_blocks = tasks_for(len(dataset), _cluster_cpus())
    asked: dict[str, Any] = {"num_cpus": decode_workers} if decode_workers > 1 else {}
    if reserve_memory:
        asked["memory"] = options.memory_bytes + _bytes_on_top()
    return ray.data.read_datasource(source, override_num_blocks=override_num_blocks, **(asked | ray_options))


def _cluster_cpus() -> float:
    if not ray.is_initialized():
        ray.init()  # as Ray's own readers do
    return float(ray.cluster_resources().get("CPU", 1.0))


def _check_known(ray_options: Mapping[str, Any]) -> None:
    """Ray takes any name for an argument of the datasource, and ours for nothing: a slip would change nothing."""
    known = set(inspect.signature(ray.data.read_datasource).parameters) - {"datasource", "parallelism", "read_args"}
    if unknown := sorted(set(ray_options) - known):
        raise TypeError(
            f"read_lerobot and Ray {ray.__version__} know no {', '.join(f'{name}=' for name in unknown)}: "
            "ray.data.read_datasource says which options there are"
        )


def _bytes_on_top() -> int:
    """Of a task's loader: Ray's process, a block that is gathered, and one that is written."""
    block_bytes = ray.data.DataContext.get_current().target_max_block_size or 0
    return _PROCESS_BYTES + 2 * block_bytes
