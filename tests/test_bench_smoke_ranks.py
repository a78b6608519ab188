"""The bench of ranks runs, finds its epochs whole and alike, and says what its JSON promises."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from test_bench_smoke import BENCH, dataset, run_here  # noqa: F401 - a fixture

QUANTITIES = {
    "samples_per_second",
    "cpu_ms_per_sample",
    "memory_growth_mib",
    "frames_decoded_per_frame",
    "mixing",
    "mixing_of_a_rank",
    "padded_rows",
}


def test_ranks_give_every_sample_once_and_canonical_ones_the_same_steps(dataset: Path, tmp_path: Path) -> None:  # noqa: F811
    sides, written = ["one loader", "2 ranks, canonical"], tmp_path / "out.json"
    few = ("--rounds", "1", "--batch-size", "16", "--memory", "800MiB", "--sides", *sides[1:])
    run_here("ranks.py", dataset, *few, "--json", written, cache_dir=tmp_path)
    printed: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    found = {(row["side"], row["quantity"]): row for row in printed["results"]}
    assert found.keys() == {(side, quantity) for side in sides for quantity in QUANTITIES}
    assert found[sides[1], "samples_per_second"]["over"].keys() == {sides[0]}
    assert [claim["is_met"] for claim in printed["claims"]] == [True] * 7
    assert [claim["wanted"] for claim in printed["claims"]] == [96, 6, 96, 6, 6, 6, 4]


def test_a_step_with_other_samples_is_not_alike_nor_is_a_step_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    alike = importlib.import_module("ranks").alike
    steps = [[0, 1], [2, 3]]
    assert alike([steps, steps]) == 2
    assert alike([steps, [[0, 1], [3, 2]]]) == 1
    assert alike([steps, [*steps, [4]]]) == 1
