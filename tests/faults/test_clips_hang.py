"""Clips that hang whoever opens them: FIFOs that nobody writes to, which is what a dead network file system is like."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clip_sets import FOUR_FRAMES, NAMES, RECIPES, make_loader, open_clips, take
from millpond import VideoOptions, errors
from torment import DeadlyLooker

HANGING = "av1.mp4"
STALL_SECONDS = 1.0
"""A good clip passes it twice only on a machine that stands still."""

LIMIT_SECONDS = 3.0
"""Where a good clip is not tried again."""


@pytest.fixture
def hanging(own_clips: Path) -> Path:
    """A set of clips, one of which hangs; its manifest."""
    (own_clips.parent / HANGING).unlink()
    os.mkfifo(own_clips.parent / HANGING)
    return own_clips


def test_a_clip_that_hangs_is_skipped_and_takes_no_other_with_it(hanging: Path, tmp_path: Path) -> None:
    dataset = open_clips(hanging, video=FOUR_FRAMES)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "shuffle": True}
    with make_loader(dataset, num_workers=2, stall_timeout=STALL_SECONDS, **options) as loader:
        assert sorted(take(loader)) == [recipe.number for name, recipe in RECIPES.items() if name != HANGING]
        books = loader.statistics().books
    assert books is not None
    assert (books.delivered, books.skipped, books.balance) == (9, 1, 0)
    (line,) = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert (line["row"], line["video"], line["error"]) == (NAMES.index(HANGING), HANGING, "DecodeTimeout")


def test_a_clip_that_hangs_stops_the_epoch_and_says_where(hanging: Path) -> None:
    with make_loader(open_clips(hanging, video=FOUR_FRAMES), num_workers=1, stall_timeout=STALL_SECONDS) as loader:
        with pytest.raises(errors.DecodeTimeout) as caught:
            take(loader)
    assert "_local_file" in caught.value.stack
    assert HANGING in caught.value.__notes__[-1]


def test_a_clip_that_hangs_in_the_survey_costs_its_own_sample_and_is_not_tried_again(
    hanging: Path, tmp_path: Path
) -> None:
    dataset = open_clips(hanging, video=VideoOptions(fps=4), timeout=LIMIT_SECONDS)
    assert [type(error) for error in dataset.problems.values()] == [errors.DecodeTimeout]
    # without workers nothing could end a second hang
    with make_loader(dataset, num_workers=0, on_error="skip", quarantine=tmp_path / "q.jsonl") as loader:
        assert len(take(loader)) == 9
    assert json.loads((tmp_path / "q.jsonl").read_text())["error"] == "DecodeTimeout"


def test_a_clip_that_kills_who_looks_at_it_costs_its_own_sample(
    own_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millpond._datasets.clip_survey._Looker", DeadlyLooker)
    dataset = open_clips(own_clips, video=VideoOptions(fps=4))
    assert {row: error.signal_name for row, error in dataset.problems.items()} == {2: "SIGSEGV"}
    with make_loader(dataset, num_workers=0, on_error="skip", quarantine=tmp_path / "q.jsonl") as loader:
        assert len(take(loader)) == 9


def test_a_sample_that_hangs_is_given_up_after_its_timeout(hanging: Path) -> None:
    dataset = open_clips(hanging, video=FOUR_FRAMES, timeout=STALL_SECONDS)
    with pytest.raises(errors.DecodeTimeout, match=r"row 2 of '.*manifest.jsonl'") as caught:
        dataset[NAMES.index(HANGING)]
    assert caught.value.limit_seconds == STALL_SECONDS
    assert open_clips(hanging, video=FOUR_FRAMES, timeout=60)[0]["number"] == 0
