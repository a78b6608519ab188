"""Workers decode with millpond too, however they are started, each on a cache of the size that was chosen."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch.utils.data

import millpond
import millpond.lerobot
import millpond.torch
from fixtures_torch import torchs_workers_end
from lerobot_samples import CAMERAS, named, opened, shown, with_process
from synthesized import MakeDataset

# A process that is not forked from this one imports torch and LeRobot anew: one says what all would.
_LOADERS = [
    pytest.param(
        torch.utils.data.DataLoader,
        "fork",
        2,
        marks=pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
        id="torch-fork",
    ),
    pytest.param(torch.utils.data.DataLoader, "forkserver", 1, id="torch-forkserver"),
    pytest.param(torch.utils.data.DataLoader, "spawn", 1, id="torch-spawn"),
    pytest.param(millpond.torch.DataLoader, None, 2, id="millpond"),
]


@pytest.mark.parametrize(("kind", "start_method", "num_workers"), _LOADERS)
def test_workers_give_every_sample_and_keep_few_files_open(
    synth: MakeDataset, kind: Any, start_method: str, num_workers: int
) -> None:
    dataset = opened(synth(episodes_per_file=1))
    with millpond.lerobot.patch(millpond.VideoDecoderCache(max_size=2)) as patch, torchs_workers_end():
        options = {"num_workers": num_workers, "multiprocessing_context": start_method}
        loader = kind(dataset, batch_size=8, collate_fn=with_process, **options)
        batches = list(loader)
        assert patch.cache.statistics().misses == 0  # nothing was decoded here
    samples = [sample for batch in batches for sample in batch["samples"]]
    assert [int(sample["index"]) for sample in samples] == list(range(len(dataset)))
    for sample in samples:
        for number, camera in enumerate(CAMERAS):
            assert shown(sample, camera) == named(sample, number)
    assert os.getpid() not in {batch["pid"] for batch in batches}
    assert {batch["max_size"] for batch in batches} == {2}
    assert all(batch["opened"] > 0 for batch in batches)
    assert max(batch["descriptors"] for batch in batches) <= 2


def test_workers_of_a_program_that_is_not_patched_have_lerobots_own(synth: MakeDataset) -> None:
    loader = millpond.torch.DataLoader(_Numbers(opened(synth())), batch_size=4, num_workers=1, collate_fn=with_process)
    assert {batch["max_size"] for batch in loader} == {"LeRobot's own"}


class _Numbers:
    """Of a dataset's samples, without their pictures: what a worker decodes with is LeRobot's own, and not loaded."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index}
