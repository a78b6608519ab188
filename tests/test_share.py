"""A share of a dataset is a dataset: its samples, in its numbers, named by those of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes import FakeDataset, identity_of
from millpond import Loader
from millpond._datasets.share import Share


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_of_a_share_gives_its_samples_alone(num_workers: int) -> None:
    share = Share(FakeDataset(), 95, 205)
    with Loader(share, batch_size=16, num_workers=num_workers, output="numpy") as loader:
        given = [identity_of(picture)[0] for batch in loader for picture in batch["front"]]
    assert given == list(range(95, 205))


def test_cuts_of_a_share_begin_and_end_with_it() -> None:
    assert Share(FakeDataset(), 95, 118).cuts().tolist() == [0, 5, 15, 23]
    assert Share(FakeDataset(), 100, 120).cuts().tolist() == [0, 10, 20]
    assert Share(FakeDataset(), 101, 105).cuts().tolist() == [0, 4]


def test_costs_and_groups_are_those_of_the_dataset() -> None:
    whole, share = FakeDataset(), Share(FakeDataset(), 95, 205)
    starts, stops = np.asarray([0, 5, 15]), np.asarray([5, 15, 30])
    assert (share.cut_costs(starts, stops) == whole.cut_costs(starts + 95, stops + 95)).all()
    assert (share.unique_frames(starts, stops) == whole.unique_frames(starts + 95, stops + 95)).all()
    assert (share.groups == whole.groups[95:205]).all()


def test_a_bad_sample_is_named_by_its_number_in_the_whole(tmp_path: Path) -> None:
    share = Share(FakeDataset(bad=frozenset({120})), 95, 205, first_sample=1000)
    assert share.describe(25)["sample"] == 1120
    where = tmp_path / "quarantine.jsonl"
    with Loader(share, num_workers=0, on_error="skip", quarantine=where) as loader:
        assert sum(len(batch["index"]) for batch in loader) == 109
    assert '"sample": 1120' in where.read_text()


def test_a_run_outside_of_the_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="samples 300 to 500 are no run of a dataset of 400"):
        Share(FakeDataset(), 300, 500)
