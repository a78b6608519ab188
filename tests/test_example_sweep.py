"""examples/leaky_eval: what its README says one does with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNNER = (sys.executable, "-m", "examples.leaky_eval.eval_runner", "--leak_mb", "1")


def test_the_example_gives_the_same_in_one_process_and_in_chunks(tmp_path: Path) -> None:
    jobs = "examples/leaky_eval/jobs.json"
    alone = [*RUNNER, "--eval_jobs_config", jobs, "--metrics_file", str(tmp_path / "alone.jsonl")]
    subprocess.run(alone, cwd=ROOT, check=True, capture_output=True, timeout=120)
    sweep = [sys.executable, "-m", "millpond", "sweep", jobs, "--chunk-size", "15", "--out", str(tmp_path / "out")]
    command = [*sweep, "--", *RUNNER, "--eval_jobs_config", "{jobs}", "--metrics_file", "{metrics}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    lines = [json.loads(line) for line in (tmp_path / "alone.jsonl").read_text(encoding="utf-8").splitlines()]
    merged = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert merged == {line["name"]: line["metrics"] for line in lines}
    groups = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["groups"]
    assert {task: table["jobs"] for task, table in groups.items()} == {"lift": 10, "push": 10, "reach": 10, "stack": 10}
