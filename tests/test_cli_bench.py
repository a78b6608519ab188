"""`millpond bench`: what it compares with, and how it says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millpond._cli.bench import rows_for_people, run_bench
from millpond.errors import DataError
from synthesized import FRONT, FRONT_PATH, WRIST, MakeDataset

MEASURED = {
    "dataset": "d",
    "image_size": None,
    "batch_size": 32,
    "num_workers": 2,
    "memory_bytes": 2**31,
    "samples": 2000,
    "samples_per_second": 612.3,
    "ceiling_samples_per_second": 660.0,
    "ratio_to_ceiling": 0.93,
    "ratios": [0.91, 0.93, 0.95],
    "first_epoch_seconds": 3.2,
    "seconds_to_first_batch": 0.12,
    "training_process_cpu": 0.14,
    "peak_pss_growth_bytes": 2**29,
    "peak_pss_over_memory": 0.25,
    "mixing": 1.02,
    "decodes_per_frame": 1.0,
    "heap_copies": 0,
    "books": "2000 planned",
}


def bench(root: Path, *, as_json: bool = True) -> None:
    run_bench(
        root,
        memory="300MiB",
        batch_size=8,
        num_workers=0,
        image_size=None,
        seed=0,
        repeats=1,
        as_json=as_json,
        report=None,
    )


def test_people_read_units_that_they_use() -> None:
    rows = rows_for_people(MEASURED)
    assert (rows["image size"], rows["memory budget"]) == ("as stored", "2048 MiB")
    assert rows["of the ceiling"] == "0.93 (0.91 to 0.95)"
    assert rows["CPU of the training process"] == "14% of a core"
    assert rows["peak growth of PSS"] == "512 MiB, 25% of the budget"
    assert rows["mixing"] == "1.02 (distinct episodes per batch; a full shuffle is 1)"
    assert rows_for_people(MEASURED | {"image_size": (48, 64)})["image size"] == "64x48"


def test_cameras_without_videos_are_left_out_of_the_ceiling(
    synth: MakeDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(synth(image_features=1))
    said = capsys.readouterr()
    assert json.loads(said.out)["ratio_to_ceiling"] > 0
    assert said.err == f"the ceiling decodes no pictures of {WRIST}, which are no videos\n"


def test_without_any_videos_there_is_no_ratio(synth: MakeDataset, capsys: pytest.CaptureFixture[str]) -> None:
    bench(synth(cameras=1, image_features=1))
    said = capsys.readouterr()
    measured = json.loads(said.out)
    assert (measured["ratio_to_ceiling"], measured["ratios"]) == (None, [])
    assert said.err == f"no ceiling and no ratio to it: no videos to decode ({FRONT})\n"
    assert rows_for_people(measured)["of the ceiling"] == "no videos to decode"


def test_a_damaged_dataset_is_refused_before_anything_is_decoded(
    damaged: MakeDataset, capfd: pytest.CaptureFixture[str]
) -> None:
    root = damaged()
    (root / FRONT_PATH).write_bytes(b"no video")
    with pytest.raises(DataError, match="episode 0 of camera"):
        bench(root)
    assert capfd.readouterr().err == ""
