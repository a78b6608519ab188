"""The benches of sweeps run, and say what their JSON promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench_drawings import drawn, texts
from test_bench_smoke import run


def is_met(report: dict[str, Any]) -> dict[str, bool]:
    return {claim["name"]: claim["is_met"] for claim in report["claims"]}


def test_sweep_leak_tells_and_draws_the_peak_of_each_chunk(tmp_path: Path) -> None:
    small = ("--jobs", "4", "--leak-bytes", "4000000", "--job-seconds", "0.06", "--chunk-size", "2", "--few-jobs", "3")
    ways = ("--ways", "chunks", "one process", "--rounds", "1", "--interval", "0.02")
    written = tmp_path / "out.json"
    report = json.loads(run("sweep_leak.py", *small, *ways, "--json", written, cache_dir=tmp_path))
    chunks, one = (report["details"]["ways"][way] for way in ("chunks", "one process"))
    assert chunks["runs"][0]["chunk_sizes"] == [2, 2]
    assert min(chunks["runs"][0]["chunk_peaks_rss_mb"]) > 8.0
    assert chunks["results"]["peak_mb"]["median"] > 8.0
    assert 3.9 < one["results"]["mb_per_job"]["median"] < 4.3
    assert is_met(report)["chunks: MB beside a chunk's jobs"]
    assert "one process, 3 jobs: 1" in texts(drawn(written))


def test_sweep_overhead_counts_every_chunk(tmp_path: Path) -> None:
    quick = ("--commands", "function", "--chunks", "4", "--turns", "1")
    measured = json.loads(run("sweep_overhead.py", *quick, cache_dir=tmp_path))["details"]["commands"]["function"]
    assert [measured["wall_ms"][side]["count"] for side in ("subprocess", "sweep", "over")] == [8, 3, 3]
    assert measured["ledger_ms"]["count"] == 4
    assert measured["start_ms"]["median"] > 0


def test_sweep_merge_finds_the_same_bytes_and_no_job_that_ran_for_nothing(tmp_path: Path) -> None:
    small = ("--jobs", "24", "--job-seconds", "0.05", "--killed-size", "4", "--kill-seeds", "2", "--kills", "1")
    report = json.loads(run("sweep_merge.py", *small, "--chunk-sizes", "--no-ray", cache_dir=tmp_path))
    assert [way["chunks"] for way in report["details"]["ways"].values()][:2] == [6, 1]
    assert len(report["details"]["ways"]["killed 1 times, seed 2"]["reported_at_kills"]) == 1
    assert all(is_met(report).values()), report["claims"]
