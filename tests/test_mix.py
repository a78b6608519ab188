"""Mixes: several datasets as one, each row under its own identity, under the names that were asked for."""

from __future__ import annotations

from typing import Any

import pytest

from fakes import FakeDataset, identity_of
from millpond import Loader, mix
from streamed import SmallSteps

TOTALS = (130, 70, 45)
EVERY_ROW = [(member, sample) for member, total in enumerate(TOTALS) for sample in range(total)]
NUMBERS = {name: name for name in ("observation.state", "action", "episode_index", "frame_index", "task")}


def make_loader(dataset: Any, **changes: Any) -> Loader:
    options: dict[str, Any] = {"batch_size": 8, "num_workers": 0, "memory": "300MiB", "output": "numpy"} | changes
    return Loader(dataset, **options)


def fakes(**changes: Any) -> list[FakeDataset]:
    return [FakeDataset(total, episode_frames=25, **changes) for total in TOTALS]


def checked(loader: Loader, cameras: tuple[str, ...] = ("front", "wrist"), step: int | None = None) -> list[Any]:
    """(member, its own sample) of each row of an epoch, once every picture (of a step) has said the same."""
    found: list[tuple[int, int]] = []
    for batch in loader:
        rows = list(zip(batch["dataset_index"].tolist(), batch["index"].tolist(), strict=True))
        assert batch["task"] == [f"task {sample % 3}" for _, sample in rows]
        for number, camera in enumerate(cameras):
            shown = batch[camera] if step is None else batch[camera][:, step]
            assert [identity_of(picture) for picture in shown] == [(sample, number) for _, sample in rows]
        found += rows
    return found


@pytest.mark.parametrize("layout", ["direct", "gathered"])
@pytest.mark.parametrize("offsets", [None, (-3, 0, 2)])
def test_every_sample_comes_once_also_where_a_task_crosses_a_border(
    monkeypatch: pytest.MonkeyPatch, layout: str, offsets: tuple[int, ...] | None
) -> None:
    SmallSteps(monkeypatch)(None, segment=64, layout=layout)
    with make_loader(mix(fakes(offsets=offsets)), shuffle=True) as loader:
        rows = checked(loader, step=None if offsets is None else 1)
        assert loader.memory_plan().layout == layout
        assert sorted(rows) == EVERY_ROW


def test_without_shuffling_members_come_one_after_the_other() -> None:
    with make_loader(mix(fakes())) as loader:
        assert checked(loader) == EVERY_ROW
        assert checked(loader) == EVERY_ROW
