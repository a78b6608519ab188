"""A LeRobot dataset in DataLoaders, torch's and millpond's: the samples of the `Loader`, whoever fetches them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millpond
from map_style import assert_same_sample, loader_rows
from synthesized import FRONT, LENGTHS, WRIST, MakeDataset, open_dataset

torch = pytest.importorskip("torch", reason="a DataLoader needs torch")

TOTAL = sum(LENGTHS)
WINDOWS = {FRONT: [-1 / 30, 0.0], "action": [0.0, 1 / 30]}


@pytest.fixture
def dataset(synth: MakeDataset) -> Iterator[millpond.LeRobotDataset]:
    with open_dataset(synth(episodes_per_file=2), delta_timestamps=WINDOWS) as dataset:
        yield dataset


def rows_of(batches: Any) -> dict[int, dict[str, Any]]:
    """Sample to what came for it, each once; `index` is the number where no episodes are chosen."""
    found: dict[int, dict[str, Any]] = {}
    for batch in batches:
        for row, number in enumerate(batch["index"].tolist()):
            assert number not in found
            found[number] = {name: values[row] for name, values in batch.items()}
    return found


def assert_same_values(found: dict[int, dict[str, Any]], expected: dict[int, dict[str, Any]]) -> None:
    """Collated samples; how pictures lie in memory is up to whoever collates."""
    assert sorted(found) == sorted(expected)
    for number, row in expected.items():
        assert list(found[number]) == list(row)
        for name, value in row.items():
            mine = found[number][name]
            same = mine == value if isinstance(value, str) else mine.dtype == value.dtype and torch.equal(mine, value)
            assert same, f"sample {number}: {name}"


@pytest.mark.parametrize("is_fetched_one_by_one", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_millponds_dataloader_gives_what_the_loader_gives(
    dataset: millpond.LeRobotDataset,
    tmp_path: Path,
    num_workers: int,
    is_fetched_one_by_one: bool,
) -> None:
    from millpond.torch import DataLoader

    rows = loader_rows(dataset, tmp_path)
    dataset[0]  # something is open when it travels
    options: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    one_by_one = torch.utils.data.ConcatDataset([dataset])  # which has no __getitems__
    with DataLoader(one_by_one if is_fetched_one_by_one else dataset, 8, shuffle=True, **options) as loader:
        for _ in range(2):
            assert_same_values(rows_of(loader), rows)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("method", "num_workers"), [("fork", 2), ("spawn", 1), ("forkserver", 1)])
def test_torchs_dataloader_gives_what_the_loader_gives(
    dataset: millpond.LeRobotDataset, tmp_path: Path, method: str, num_workers: int
) -> None:
    """Each worker that is not forked imports torch anew: one says whether the dataset comes through."""
    rows = loader_rows(dataset, tmp_path)
    dataset[0]
    loader = torch.utils.data.DataLoader(
        dataset, 8, shuffle=True, num_workers=num_workers, multiprocessing_context=method, worker_init_fn=_one_thread
    )
    assert_same_values(rows_of(loader), rows)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def test_a_batch_collated_here_lies_in_memory_as_the_loaders(dataset: millpond.LeRobotDataset) -> None:
    with millpond.Loader(dataset, batch_size=8, num_workers=0, memory="300MiB") as loader:
        expected = next(iter(loader))
        (found,) = torch.utils.data.DataLoader(torch.utils.data.Subset(dataset, range(8)), 8)
        assert list(found) == list(expected)
        for name, value in expected.items():
            if not isinstance(value, list):
                assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype)
        assert_same_values(rows_of([found]), rows_of([expected]))


def test_torchs_own_datasets_take_it(synth: MakeDataset, dataset: millpond.LeRobotDataset) -> None:
    data = torch.utils.data
    parts = data.random_split(dataset, [40, TOTAL - 40], generator=torch.Generator().manual_seed(0))
    assert sorted(n for part in parts for n in rows_of(data.DataLoader(part, 8))) == list(range(TOTAL))
    with open_dataset(synth(episodes_per_file=2), delta_timestamps=WINDOWS) as other:
        both = data.ConcatDataset([data.Subset(dataset, [5, 3]), data.Subset(other, [7])])
        assert [int(both[k]["index"]) for k in range(3)] == [5, 3, 7]
    sampler = data.WeightedRandomSampler([0.0] * 9 + [1.0] + [0.0] * (TOTAL - 10), 4)
    (batch,) = data.DataLoader(dataset, 4, sampler=sampler)
    assert batch["index"].tolist() == [9] * 4
    for number, sample in enumerate(data.DataLoader(dataset, batch_size=None, sampler=[1, 2])):
        assert_same_sample(sample, dataset[number + 1])
    assert_same_sample(dataset[torch.tensor(3)], dataset[3])
    for wrong in (torch.tensor(True), torch.tensor(1.0), torch.tensor([1, 2])):
        with pytest.raises(TypeError):
            dataset[wrong]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_skipped_sample_takes_no_other_with_it(damaged: MakeDataset, tmp_path: Path, num_workers: int) -> None:
    from millpond.torch import DataLoader

    root = damaged(episodes_per_file=2)
    (root / f"videos/{WRIST}/chunk-000/file-001.mp4").unlink()
    quarantine = tmp_path / "skipped.jsonl"
    with open_dataset(root) as dataset:
        rows = loader_rows(dataset, tmp_path)
        with DataLoader(
            dataset, 8, shuffle=True, num_workers=num_workers, on_error="skip", quarantine=quarantine
        ) as loader:
            assert_same_values(rows_of(loader), rows)
            assert loader.statistics().skipped == TOTAL - len(rows) == LENGTHS[2] + LENGTHS[3]
    lines = [json.loads(line) for line in quarantine.read_text().splitlines()]
    first = LENGTHS[0] + LENGTHS[1]
    assert sorted(line["sample"] for line in lines) == list(range(first, first + LENGTHS[2] + LENGTHS[3]))
    assert all("file-001.mp4" in line["message"] for line in lines)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_sample_is_raised_with_its_name(damaged: MakeDataset, num_workers: int) -> None:
    from millpond.torch import DataLoader

    root = damaged(episodes_per_file=2)
    (root / f"videos/{WRIST}/chunk-000/file-001.mp4").unlink()
    with open_dataset(root) as dataset:
        number = LENGTHS[0] + LENGTHS[1] + 1
        with (
            DataLoader(dataset, 2, sampler=[0, number], num_workers=num_workers) as loader,
            pytest.raises(millpond.ObjectMissing, match=rf"sample {number} \(frame 1 of episode 2\)"),
        ):
            list(loader)


class Marked(millpond.LeRobotDataset):
    """Changes samples, and knows nothing of __getitems__."""

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return {**super().__getitem__(index), "mark": 7}


def test_a_subclass_that_changes_samples_is_not_passed_over(synth: MakeDataset) -> None:
    with Marked(synth(), cache_dir="beside") as dataset:
        (batch, *_) = torch.utils.data.DataLoader(dataset, 4)
        assert batch["mark"].tolist() == [7] * 4
        assert batch["index"].tolist() == [0, 1, 2, 3]


def test_workers_bound_what_they_have_open(synth: MakeDataset) -> None:
    from millpond.torch import DataLoader

    cache = millpond.VideoDecoderCache(max_size=2)
    with open_dataset(synth(episodes_per_file=1), decoder_cache=cache) as dataset:
        seen = DataLoader(Watched(dataset), 1, shuffle=True, num_workers=1)
        with seen as loader:
            assert max(int(batch) for batch in loader) == 2
        assert cache.size() == 0  # theirs is another


class Watched:
    """Says how many decoders are open once a sample was read."""

    def __init__(self, dataset: millpond.LeRobotDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        self._dataset[index]
        assert self._dataset._decoder_cache is not None
        return np.asarray(self._dataset._decoder_cache.size())
