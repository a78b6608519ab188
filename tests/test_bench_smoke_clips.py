"""The bench of clips runs, gets the right frames, and says what became of damaged clips."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from bench_drawings import drawn, texts
from test_bench_smoke import BENCH, run_here

QUICK = ("--rounds", "1", "--seconds", "0", "--num-workers", "1", "--memory", "400MiB", "--batch-size", "2")
SMALL = (
    "--num-clips",
    "6",
    "--clip-seconds",
    "1",
    "--clip-size",
    "96",
    "128",
    "--num-frames",
    "4",
    "--size",
    "64",
    "64",
)


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCH))
    return runpy.run_path(str(BENCH / "_clip_losses.py"), run_name="losses")


def test_clips_are_timed_and_damage_is_accounted_for(tmp_path: Path) -> None:
    written = tmp_path / "out.json"
    run_here("clips.py", *QUICK, *SMALL, "--patience", "0", "--sides", "decord2", "--json", written, cache_dir=tmp_path)
    printed = json.loads(written.read_text(encoding="utf-8"))
    found = {(row["case"], row["side"], row["quantity"]): row["median"] for row in printed["results"]}
    assert found["made for this", "millpond", "clips_per_second"] > 0
    assert found["some clips are damaged", "millpond", "lost"] == 0
    assert printed["details"]["some clips are damaged"]["millpond"]["ending"] == "whole epoch"
    assert {*printed["absent"], *(side for _, side, _ in found)} == {"millpond", "decord2"}
    assert "clips/s" in texts(drawn(written))


def test_an_outcome_tells_lost_clips_from_altered_ones(losses: dict[str, Any]) -> None:
    off_by = {0: 0.5, 1: losses["TOLERANCE"] + 1.0, 3: 90.0, 4: 0.1}
    outcome = losses["Outcome"](3, [0, 1, 1], off_by=off_by, crcs={0: 7, 1: 8, 3: 9, 4: 8})
    assert (outcome.lost, outcome.altered) == (2, 1)
