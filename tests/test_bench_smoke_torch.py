"""The benches of DataLoaders run, get the batches they should, and say what their JSON promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench_drawings import drawn, texts
from test_bench_smoke import run_here

pytest.importorskip("torch", reason="benches of DataLoaders need torch")

OURS = "millpond"


def test_transport_checks_batches_and_compares_every_side(tmp_path: Path) -> None:
    quick = ("--rounds", "1", "--seconds", "0.01", "--skipped", "4", "--frame-shape", "3", "100", "100")
    few = ("--batch-size", "8", "--kinds", "numpy", "small", "--sides", OURS, "torch-malloc")
    written = tmp_path / "out.json"
    printed: dict[str, Any] = json.loads(run_here("transport.py", *quick, *few, "--json", written, cache_dir=tmp_path))
    for kind in ("numpy", "small"):
        found = printed["details"]["kinds"][kind]
        assert found["sides"].keys() == {OURS, "torch-malloc"}
        assert all(side["batches_per_second"] > 0 for side in found["sides"].values())
        assert all(side["cpu_ms_per_batch"]["total"] > 0 for side in found["sides"].values())
    assert [row["over"].keys() for row in printed["results"][:2]] == [{"torch-malloc"}, set()]
    assert {claim["name"] for claim in printed["claims"]} >= {"small: rate over torch-malloc"}
    assert "batches/s" in texts(drawn(written))


def test_jobs_end_in_every_way_and_are_looked_at(tmp_path: Path) -> None:
    few = ("--jobs", "8", "--warm-up", "4", "--batches", "4", "--frame-shape", "3", "16", "16")
    printed: dict[str, Any] = json.loads(run_here("loader_jobs.py", *few, "--sides", OURS, cache_dir=tmp_path))
    found = printed["details"]["sides"][OURS]
    assert found["trends"].keys() >= {"rss_bytes", "shared_bytes"}
    assert (found["first"]["ending"], found["last"]["ending"]) == ("whole", "raised")
    assert found["first"]["rss_bytes"] > found["first"]["pss_bytes"] > 0
    claims = {claim["name"].removeprefix(f"{OURS}: "): claim["is_met"] for claim in printed["claims"]}
    assert "rss is flat" in claims
    assert all(claims[f"no {kind} left"] for kind in ("descriptor", "pipe", "process"))


def test_first_batch_is_timed_and_workers_are_weighed(tmp_path: Path) -> None:
    small = ("--rounds", "1", "--dataset-mib", "8", "--batch-size", "2", "--sides", OURS, "torch:forkserver")
    printed: dict[str, Any] = json.loads(run_here("first_batch.py", *small, cache_dir=tmp_path))
    for side in printed["details"]["sides"].values():
        for turn in ("first_loader", "second_loader"):
            assert side[turn]["first_batch_seconds"] >= side[turn]["iterator_seconds"] > 0
            assert side[turn]["memory_mib"]["worker"]["rss"] > side[turn]["memory_mib"]["worker"]["uss"] > 0
    assert "first_loader first_batch_seconds, over torch's forkserver" in {of["name"] for of in printed["claims"]}
