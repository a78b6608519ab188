"""The files under meta/, as LeRobot 0.4.4 writes and reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Stats = dict[str, dict[str, list[Any]]]
"""By feature and by statistic; nested lists as in meta/stats.json."""

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def column_stats(columns: Mapping[str, NDArray[Any]]) -> Stats:
    """Statistics of every column of numbers over its first axis."""
    return {name: _stats_of(values) for name, values in columns.items() if values.dtype != object}


def picture_stats(pictures: NDArray[np.uint8]) -> dict[str, list[Any]]:
    """Statistics of some pictures, uint8 (n, H, W, 3): per channel, of 0 to 1, nested (3, 1, 1) as LeRobot has it."""
    flat = _stats_of(pictures.reshape(-1, 3) / 255.0)
    count = flat.pop("count")
    return (
        {name: [[[value]] for value in values] for name, values in flat.items()} | {"count": [len(pictures)]}
        if (count)
        else {}
    )


def _stats_of(values: NDArray[Any]) -> dict[str, list[Any]]:
    numbers = values.astype(np.float64)
    found = {
        "min": numbers.min(0),
        "max": numbers.max(0),
        "mean": numbers.mean(0),
        "std": numbers.std(0),
        **{name: np.quantile(numbers, q, axis=0) for name, q in _QUANTILES.items()},
    }
    return {name: np.atleast_1d(value).tolist() for name, value in found.items()} | {"count": [len(values)]}


def merge_stats(parts: Sequence[Stats]) -> Stats:
    """Statistics over all episodes; quantiles are the mean of the episodes', as LeRobot's own merge does it."""
    merged: Stats = {}
    for name in parts[0]:
        stacked = {key: np.asarray([part[name][key] for part in parts]) for key in parts[0][name]}
        counts = stacked["count"].reshape(-1, *[1] * (stacked["mean"].ndim - 1)).astype(np.float64)
        weights = counts / counts.sum()
        mean = (stacked["mean"] * weights).sum(0)
        variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * weights).sum(0)
        values = {"min": stacked["min"].min(0), "max": stacked["max"].max(0), "mean": mean, "std": np.sqrt(variance)}
        values |= {key: (stacked[key] * weights).sum(0) for key in _QUANTILES}
        merged[name] = {key: value.tolist() for key, value in values.items()}
        merged[name]["count"] = [int(stacked["count"].sum())]
    return merged


def write_info(root: Path, info: Mapping[str, Any]) -> None:
    """Write meta/info.json."""
    _write_json(root / "meta/info.json", info)


def write_stats(root: Path, stats: Stats) -> None:
    """Write meta/stats.json."""
    _write_json(root / "meta/stats.json", stats)


def write_tasks(root: Path, tasks: Sequence[str]) -> None:
    """Write meta/tasks.parquet: pandas takes the sentence, LeRobot's key, for the index."""
    index = "__index_level_0__"
    pandas = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {"name": n, "field_name": f, "pandas_type": p, "numpy_type": d, "metadata": None}
            for n, f, p, d in (("task_index", "task_index", "int64", "int64"), (None, index, "unicode", "object"))
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    columns = {"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())}
    table = pa.table(columns).replace_schema_metadata({"pandas": json.dumps(pandas)})
    _write_table(root / "meta/tasks.parquet", table)


def write_episodes(root: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write meta/episodes, one file. `rows` are flat: the names of columns to their values."""
    where = {"chunk_index": 0, "file_index": 0}
    complete = [{**row, **{f"meta/episodes/{name}": value for name, value in where.items()}} for row in rows]
    _write_table(root / EPISODES_PATH.format(**where), pa.Table.from_pylist(complete))


def flatten_stats(stats: Stats) -> dict[str, list[Any]]:
    """The columns `stats/<feature>/<statistic>` of meta/episodes."""
    return {f"stats/{name}/{key}": value for name, of in stats.items() for key, value in of.items()}


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
