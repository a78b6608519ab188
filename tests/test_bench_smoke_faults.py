"""The benches of faults run, lose nothing, and say what their JSON promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from test_bench_smoke import dataset, run  # noqa: F401 - a fixture

QUICK = ("--seconds", "0.2", "--memory", "400MiB", "--batch-size", "8", "--num-workers", "2")


def test_chaos_loses_nothing_and_says_how_long_a_hang_takes(dataset: Path, tmp_path: Path) -> None:  # noqa: F811
    # Spins are rare, and a busy machine gets something done between two kills: who kills workers faster than they move
    # makes poison of what they do.
    often = ("--seconds", "1.5", "--periods", "0.4", "0.5", "100", "--hangs", "1")
    printed: dict[str, Any] = json.loads(run("chaos.py", dataset, *QUICK, *often, cache_dir=tmp_path))
    found = printed["details"]
    assert min(found["kills"], found["stops"], found["worker_restarts"]) > 0
    assert [claim["is_met"] for claim in printed["claims"]] == [True, True]
    assert found["over_calm"] > 0
    assert printed["results"][-1]["quantity"] == "from_limit_to_next_batch_seconds"
    assert printed["results"][-1]["most"] > 0
    assert printed["settings"].keys().isdisjoint({"dataset", "json"})


def test_recycling_changes_no_order(dataset: Path, tmp_path: Path) -> None:  # noqa: F811
    few = ("--rounds", "1", "--max-tasks-per-worker", "2")
    printed: dict[str, Any] = json.loads(run("recycle.py", dataset, *QUICK, *few, cache_dir=tmp_path))
    found = printed["details"]
    assert found["same_order"]
    assert (found["recycles"] > 0, found["restarts"]) == (True, 0)
    assert printed["results"][1]["over"]["plain"]["median"] > 0


def test_guard_is_measured_beside_what_else_there_is(tmp_path: Path) -> None:
    few = ("--rounds", "1", "--slice", "0.01", "--hangs", "1", "--bytes", "4000")
    printed: dict[str, Any] = json.loads(run("guard.py", *few, cache_dir=tmp_path))
    found = {(row["side"], row["quantity"]) for row in printed["results"]}
    assert found >= {(side, "ms_per_call") for side in ("in process", "guard", "fork per call")}
    assert found >= {(side, "ms_to_next_answer") for side in ("guard", "fork per call")}
    assert ("pebble" in printed["absent"]) != (("pebble", "ms_per_call") in found)


def test_the_fuzz_counts_its_files_and_finds_no_broken_promise(tmp_path: Path) -> None:
    options = ("--files", "60", "--seed", "7", "--formats", "h264_mp4", "png", "--keep", tmp_path / "kept")
    printed = run("fuzz.py", *options, "--json", tmp_path / "out.json", cache_dir=tmp_path)
    counted: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())["details"]
    assert (counted["files"], counted["broken"]) == (60, 0)
    assert [counted["formats"][name]["files"] for name in ("h264_mp4", "png")] == [50, 10]
    assert "60 files from seed 7" in printed
    assert not (tmp_path / "kept").exists()


def test_what_a_worker_costs_is_measured_whole(tmp_path: Path) -> None:
    few = ("--repeats", "1", "--tasks", "20", "--hangs", "1", "--calls", "100", "--preload", "numpy")
    run("worker_start.py", *few, "--json", tmp_path / "out.json", cache_dir=tmp_path)
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["results"]
    measured = {row["quantity"] for row in rows if row["median"] > 0}
    assert measured == {"start_ms", "pss_mib", "us_per_task", "hang_ms", "us_per_call"}
