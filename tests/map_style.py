"""What tests of `dataset[i]` share: a row of the loader's for every sample, and how two of them compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from millpond import LeRobotDataset, Loader


def loader_rows(dataset: LeRobotDataset, folder: Path, batch_size: int = 8) -> dict[int, dict[str, Any]]:
    """Sample to what the loader delivers for it, of all that it does not skip."""
    first_of: dict[int, int] = {}
    for sample, episode in enumerate(dataset.groups.tolist()):
        first_of.setdefault(episode, sample)
    rows: dict[int, dict[str, Any]] = {}
    options: dict[str, Any] = {"num_workers": 0, "memory": "600MiB", "held_batches": 200}
    with Loader(
        dataset, batch_size=batch_size, on_error="skip", quarantine=folder / "quarantine.jsonl", **options
    ) as loader:
        for batch in loader:
            places = zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True)
            for row, (episode, frame) in enumerate(places):
                rows[first_of[episode] + frame] = {name: own(values[row]) for name, values in batch.items()}
    return rows


def own(value: Any) -> Any:
    """A copy of a row's value, its strides kept, so that it holds no batch."""
    if isinstance(value, str):
        return value
    return value.clone() if hasattr(value, "clone") else np.array(value, order="K")


def assert_same_sample(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Names and their order, kinds, dtypes, shapes, places in memory, and values."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        mine = found[name]
        assert type(mine) is type(value), name
        if isinstance(value, str):
            assert mine == value, name
            continue
        assert (mine.dtype, mine.shape) == (value.dtype, value.shape), name
        assert np.asarray(mine).strides == np.asarray(value).strides, name
        assert np.array_equal(np.asarray(mine), np.asarray(value)), name
