"""The bench of streaming runs, loses nothing under faults, and says what its JSON promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench_drawings import drawn, texts
from test_bench_smoke import dataset, run, run_here  # noqa: F401 - a fixture

SMALL = ("--rounds", "1", "--seconds", "0.1", "--batch-size", "8", "--memory", "400MiB", "--latency", "0.005")
SMALLER = ("--peer-rounds", "1", "--peer-seconds", "0.1", "--free-rounds", "0", "--index-files", "8")
ROWS = {
    "keep_up",
    "bytes_over_needed",
    "requests_per_range",
    "samples_lost_or_twice_or_altered",
    "faults_served",
    "keep_up_with_faults",
    "cache_peak_over_max",
    "held_over_ring",
}


def test_clips_of_a_store_come_whole_and_peers_that_are_not_here_are_named(tmp_path: Path) -> None:
    few = ("--num-clips", "4", "--repeats", "1", "--clip-seconds", "1", "--clip-size", "96", "128", "--num-frames", "4")
    small = ("--size", "64", "64", "--rounds", "1", "--num-workers", "1", "--shards", "1", "--faults", "1")
    peer, written = "WebDataset + PyAV", tmp_path / "out.json"
    run_here(
        "streaming_peers.py", *few, *small, "--ram", tmp_path, "--sides", peer, "--json", written, cache_dir=tmp_path
    )
    printed = json.loads(written.read_text(encoding="utf-8"))
    found = {(row["side"], row["quantity"]): row["median"] for row in printed["results"]}
    assert found["millpond, 1 workers", "lost"] == 0
    assert found["millpond, 1 workers", "clips_per_second"] > 0
    assert (peer in printed["absent"]) != ((f"{peer}, 1 workers", "lost") in found)


def test_streaming_measures_every_row_of_its_table(dataset: Path, tmp_path: Path) -> None:  # noqa: F811
    often = ("--faults", "0.2", "0.1", "0.1", "--cache-bytes", "40000")
    written = tmp_path / "out.json"
    printed: dict[str, Any] = json.loads(
        run("streaming.py", dataset, *SMALL, *SMALLER, *often, "--ram", tmp_path, "--json", written, cache_dir=tmp_path)
    )
    measured = printed["details"]["datasets"]["tiny"]
    claims = {claim["name"].removeprefix("tiny: "): claim for claim in printed["claims"]}
    assert claims.keys() >= ROWS
    assert measured["pinned"]["samples_faults"]["retries"] > 0
    for row in ROWS - {"keep_up", "keep_up_with_faults", "requests_per_range"}:
        assert claims[row]["is_met"], claims[row]
    assert measured["byte_cache"]["evictions"] > 0
    assert measured["side_by_side"]["millpond"]["samples"] == 96
    assert [printed["details"]["index"][kind]["files"] for kind in ("dataset", "files")] == [8, 8]
    assert str(dataset) not in written.read_text()
    assert "from memory" in texts(drawn(written))
