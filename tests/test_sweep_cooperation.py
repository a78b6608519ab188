"""Scripts that take their jobs from `sweep_jobs`: what they are given, where they stop, what they report."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millpond
from millpond._sweep.progress import Progress, ProgressWriter
from sweep_child import LEAK_BYTES
from sweeping import chunks_of, run_sweep, summary_of, write_jobs

SCRIPT = """
import millpond, sweep_child, sys
for job in millpond.sweep_jobs(*sys.argv[1:]):
    sweep_child.act(job["name"], job.get("does", ""))
    millpond.report_metrics(job, sweep_child.metrics_of(job["name"]))
    print(job["name"])
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return (sys.executable, "-c", SCRIPT)


def test_a_script_ends_before_the_budget_and_a_fresh_process_goes_on(tmp_path: Path, script: tuple[str, ...]) -> None:
    write_jobs(tmp_path, 9, dict.fromkeys(range(9), "leak"))
    budget = 5 * LEAK_BYTES
    options = ("--max-rss", str(budget), "--jobs-from-environment", "--out", "out")
    ended = run_sweep(tmp_path, *options, command=script)
    assert ended.returncode == 0, ended.stderr
    assert summary_of(tmp_path / "out")["counts"]["done"] == 9
    chunks = chunks_of(tmp_path / "out", "peak_pss_bytes, reason, ended_by")
    assert len(chunks) >= 3  # the first is one job, and no process has room for all others
    assert all(peak < budget and (reason, how) == ("", "itself") for peak, reason, how in chunks)


def test_outside_of_a_sweep_a_script_is_given_all_jobs(tmp_path: Path, script: tuple[str, ...]) -> None:
    write_jobs(tmp_path, 3)
    whole = run_sweep(tmp_path, "--out", "out", command=(*script, "{jobs}"))
    assert (whole.returncode, whole.stdout) == (0, "job-0\njob-1\njob-2\n")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()).keys() == {"job-0", "job-1", "job-2"}
    assert list(millpond.sweep_jobs(["a", "b"])) == ["a", "b"]
    assert [job["name"] for job in millpond.sweep_jobs(tmp_path / "jobs.json")] == ["job-0", "job-1", "job-2"]


def test_metrics_are_written_to_their_end_where_a_disk_takes_them_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setenv("MILLPOND_METRICS", str(tmp_path / "metrics"))
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    millpond.report_metrics("a", {"return": 1.5})
    assert json.loads((tmp_path / "metrics").read_text()) == {"name": "a", "metrics": {"return": 1.5}}


def test_outside_of_a_sweep_jobs_may_be_named_by_any_key_and_metrics_are_looked_at_all_the_same() -> None:
    for job in millpond.sweep_jobs([{"id": "a"}], name_key="id"):
        millpond.report_metrics(job, {"return": 0.3})
        with pytest.raises(ValueError, match=r"are 3 \(int\): give a mapping"):
            millpond.report_metrics(job, 3)  # type: ignore[arg-type]


def test_without_any_jobs_a_script_is_told_how_to_name_them() -> None:
    with pytest.raises(millpond.UsageError, match="MILLPOND_JOBS"):
        list(millpond.sweep_jobs())


def test_bisect_knows_the_job_that_a_script_was_at(tmp_path: Path, script: tuple[str, ...]) -> None:
    write_jobs(tmp_path, 5, {2: "kill"})
    options = ("--chunk-size", "5", "--bisect", "--on-error", "continue", "--jobs-from-environment", "--out", "out")
    assert run_sweep(tmp_path, *options, command=script).returncode == 3
    assert chunks_of(tmp_path / "out")[1:] == [["job-2"], ["job-3", "job-4"]]
    assert [failure["job"] for failure in summary_of(tmp_path / "out")["failures"]] == ["job-2"]


def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: dict[str, Any]) -> Any:
    monkeypatch.setenv("MILLPOND_METRICS", str(tmp_path / "metrics"))
    millpond.report_metrics({"name": "j"}, metrics)
    return json.loads((tmp_path / "metrics").read_text())


def test_scalars_and_arrays_are_reported_as_the_numbers_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tensor:  # as torch has it: `size` is a method
        shape, size, tolist, item = (1,), lambda: (1,), lambda self: [2.5], lambda self: 2.5

    metrics = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.arange(2), "e": np.array(1.5)}
    assert report(tmp_path, monkeypatch, {**metrics, "f": np.array([[1.5]]), "g": Tensor()}) == {
        "name": "j",
        "metrics": {"a": 0.5, "b": 3, "c": True, "d": [0, 1], "e": 1.5, "f": 1.5, "g": 2.5},
    }


def test_what_json_has_no_word_for_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"job 'j'.*object is no number"):
        report(tmp_path, monkeypatch, {"a": object()})
    with pytest.raises(ValueError, match=r"job 'j'.*the key '1' twice"):
        report(tmp_path, monkeypatch, {"a": {1: 0.5, "1": 0.7}})


def test_progress_that_a_full_disk_has_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    writer = ProgressWriter(str(path))
    writer.begun("a")
    writer.over("a")
    writer.begun("b")
    progress = Progress()
    progress.feed(path.read_bytes() + b'{"event": "ov\n{"event": "over"}\n')
    assert (list(progress.seconds), progress.current, progress.begun) == (["a"], "b", ["a", "b"])
