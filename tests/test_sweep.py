"""`millpond sweep` and `millpond.sweep` from outside: what is run, what is merged, what is told of failures."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import millpond
import sweep_child
from millpond._cli import app
from millpond._sweep.function_work import FunctionWork
from sweeping import COMMAND, chunks_of, run_sweep, summary_of, sweep_arguments, write_jobs


def test_metrics_are_the_same_bytes_however_jobs_are_cut(tmp_path: Path) -> None:
    write_jobs(tmp_path, 24)
    ways = {"whole": ("24",), "one by one": ("1",), "sevens": ("7",), "two at a time": ("5", "--parallel", "2")}
    results = {}
    for way, (size, *more) in ways.items():
        ended = run_sweep(tmp_path, "--chunk-size", size, *more, "--out", way)
        assert ended.returncode == 0, ended.stderr
        results[way] = [(tmp_path / way / name).read_bytes() for name in ("metrics.json", "summary.json")]
    assert len({tuple(contents) for contents in results.values()}) == 1
    merged = json.loads(results["sevens"][0])
    assert merged == {f"job-{number}": sweep_child.metrics_of(f"job-{number}") for number in range(24)}
    assert list(merged) == sorted(merged)


def test_the_chunk_file_keeps_all_other_keys(tmp_path: Path) -> None:
    write_jobs(tmp_path, 3, seed=7, env={"name": "tøuch"})
    code = """
import json, os, sys
file = json.load(open(sys.argv[1], encoding="utf-8"))
print(file["seed"], json.dumps(file["env"]), [job["name"] for job in file["jobs"]], os.environ["MILLPOND_CHUNK"])
"""
    command = (sys.executable, "-c", code, "{jobs}")
    ended = run_sweep(tmp_path, "--chunk-size", "2", "--stream", "--quiet", command=command)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "[chunk 1] 7 {\"name\": \"t\\u00f8uch\"} ['job-0', 'job-1'] 1",
        '[chunk 2] 7 {"name": "t\\u00f8uch"} [\'job-2\'] 2',
    ]


def test_jobs_from_a_pipe_are_read_once_and_handed_on(tmp_path: Path) -> None:
    text = write_jobs(tmp_path, 2).read_text()
    (tmp_path / "jobs.json").unlink()
    os.mkfifo(tmp_path / "jobs.json")
    writer = threading.Thread(target=(tmp_path / "jobs.json").write_text, args=(text,))
    writer.start()
    assert run_sweep(tmp_path, "--out", "out").returncode == 0
    writer.join()
    assert summary_of(tmp_path / "out")["counts"]["done"] == 2


def test_a_sweep_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    write_jobs(tmp_path, 3)
    arguments = sweep_arguments("--chunk-size", "1", "--stream", "--out", "out", command=("echo", "{jobs}"))
    reads, writes = os.pipe()
    os.close(reads)
    ended = subprocess.run([sys.executable, *arguments], cwd=tmp_path, stdout=writes, stderr=writes, check=False)
    os.close(writes)
    assert (ended.returncode, summary_of(tmp_path / "out")["counts"]["done"]) == (0, 3)


def test_letters_that_standard_output_does_not_have_are_printed_as_escapes(tmp_path: Path) -> None:
    write_jobs(tmp_path, 2)
    code = "import sys, json; print('tøuch'); json.dump({'job-0': {'\\ud800': 1}, 'job-1': {}}, open(sys.argv[1], 'w'))"
    command = (sys.executable, "-X", "utf8", "-c", code, "{metrics}", "{jobs}")
    options = ("--timeout", "50", "--stream", "--out", "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONIOENCODING", "ascii")
        ended = run_sweep(tmp_path, *options, command=("env", "-u", "PYTHONIOENCODING", *command))
    assert ended.returncode == 0, ended.stderr
    assert "[chunk 1] t\\xf8uch" in ended.stdout
    assert "\\ud800" in ended.stdout
    assert "2 of 2 jobs done (1 of them without metrics);" in ended.stdout


@pytest.mark.parametrize("options", [(), ("--chunk-size", "3")])
def test_a_sweep_that_has_nothing_to_split_is_the_command_itself(tmp_path: Path, options: tuple[str, ...]) -> None:
    jobs = write_jobs(tmp_path, 3)
    code = """
import os, sys
print(sys.argv[1], os.environ["MILLPOND_JOBS"], sys.stdin.read())
print("e", file=sys.stderr)
sys.exit(5)
"""
    ended = run_sweep(tmp_path, *options, command=(sys.executable, "-c", code, "{jobs}"), given="told")
    assert (ended.returncode, ended.stdout, ended.stderr) == (5, f"{jobs} {jobs} told\n", "e\n")
    assert os.listdir(tmp_path) == ["jobs.json"]


@pytest.mark.parametrize("outer", [{}, {"MILLPOND_CHUNK": "1"}], ids=["whole", "in a chunk"])
def test_a_command_that_is_not_split_ignores_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: dict[str, str]
) -> None:
    write_jobs(tmp_path, 1)
    for name, value in outer.items():
        monkeypatch.setenv(name, value)
    command = ("grep", "SigIgn", "/proc/self/status")
    alone = subprocess.run(command, text=True, capture_output=True, check=True)
    ended = run_sweep(tmp_path, command=(*command, "{jobs}"))
    own_of_the_c_library = 0b11 << 31  # 32 and 33: nobody else can set them
    masks = [int(told.split()[1], 16) & ~own_of_the_c_library for told in (alone.stdout, ended.stdout)]
    assert masks[0] == masks[1], ended.stderr


def test_a_child_never_splits_again(tmp_path: Path) -> None:
    write_jobs(tmp_path, 4)
    inner = (sys.executable, "-m", "millpond", "sweep", "{jobs}", "--chunk-size", "1", "--", *COMMAND)
    ended = run_sweep(tmp_path, "--chunk-size", "2", "--out", "out", command=inner)
    assert ended.returncode == 0, ended.stderr
    assert summary_of(tmp_path / "out")["counts"]["done"] == 4
    assert sorted(os.listdir(tmp_path)) == ["jobs.json", "out"]
    assert len(chunks_of(tmp_path / "out")) == 2


def test_a_chunk_that_dies_keeps_what_it_reported_and_stops_the_sweep_with_its_code(tmp_path: Path) -> None:
    write_jobs(tmp_path, 6, {1: "kill"})
    ended = run_sweep(tmp_path, "--chunk-size", "3", "--out", "out")
    assert ended.returncode == 137
    summary = summary_of(tmp_path / "out")
    assert summary["counts"] == {"total": 6, "done": 1, "failed": 2, "left": 3}
    assert "killed by SIGKILL (9), possibly out of memory" in summary["failures"][0]["reason"]


def test_bisect_finds_the_job_that_kills_and_keeps_all_others(tmp_path: Path) -> None:
    write_jobs(tmp_path, 9, {4: "kill"})
    ended = run_sweep(tmp_path, "--chunk-size", "9", "--bisect", "--on-error", "continue", "--out", "out")
    assert ended.returncode == 3
    summary = summary_of(tmp_path / "out")
    assert summary["counts"] == {"total": 9, "done": 8, "failed": 1, "left": 0}
    assert [failure["job"] for failure in summary["failures"]] == ["job-4"]


def test_a_job_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    write_jobs(tmp_path, 3, {1: "once exit9"})
    ended = run_sweep(tmp_path, "--chunk-size", "3", "--retries", "1", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    assert chunks_of(tmp_path / "out", "attempt, exit_code, reason") == [(1, 9, "exited with code 9"), (2, 0, "")]


def test_a_job_that_reports_nothing_or_twice_is_an_error(tmp_path: Path) -> None:
    write_jobs(tmp_path, 5, {1: "silent", 3: "twice"})
    ended = run_sweep(tmp_path, "--chunk-size", "3", "--on-error", "continue", "--out", "out")
    assert ended.returncode == 3
    failures = {failure["job"]: failure["reason"] for failure in summary_of(tmp_path / "out")["failures"]}
    assert set(failures) == {"job-1", "job-3"}
    assert "nothing" in failures["job-1"]
    assert "twice" in failures["job-3"]


def test_a_silent_job_has_failed_also_in_a_chunk_of_its_own_where_nobody_named_a_metrics_file(tmp_path: Path) -> None:
    write_jobs(tmp_path, 4, {0: "silent", 2: "silent"})
    command = ("sh", "-c", f"exec {shlex.join(COMMAND[:-2])} $MILLPOND_JOBS $MILLPOND_METRICS")
    options = ("--chunk-size", "1", "--jobs-from-environment", "--on-error", "continue", "--out", "out")
    assert run_sweep(tmp_path, *options, command=command).returncode == 3
    assert [failure["job"] for failure in summary_of(tmp_path / "out")["failures"]] == ["job-2", "job-0"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()).keys() == {"job-1", "job-3"}


def test_resume_needs_to_know_the_folder(tmp_path: Path) -> None:
    write_jobs(tmp_path, 2)
    ended = run_sweep(tmp_path, "--chunk-size", "1", "--resume")
    assert (ended.returncode, "--resume needs --out" in ended.stderr) == (2, True)
    assert os.listdir(tmp_path) == ["jobs.json"]


def test_resume_runs_what_is_not_done_and_nothing_else(tmp_path: Path) -> None:
    write_jobs(tmp_path, 4, {2: "once exit3"})
    options = ("--chunk-size", "1", "--out", "out")
    assert run_sweep(tmp_path, *options).returncode == 3
    again = run_sweep(tmp_path, *options)
    assert (again.returncode, "--resume" in again.stderr) == (2, True)
    assert summary_of(tmp_path / "out")["counts"] == {"total": 4, "done": 2, "failed": 1, "left": 1}
    assert run_sweep(tmp_path, *options, "--resume").returncode == 0
    assert summary_of(tmp_path / "out")["counts"] == {"total": 4, "done": 4, "failed": 0, "left": 0}
    assert chunks_of(tmp_path / "out") == [[f"job-{number}"] for number in (0, 1, 2, 2, 3)]


def test_a_changed_jobs_file_or_command_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    options = ("--chunk-size", "1", "--out", "out")
    write_jobs(tmp_path, 2)
    assert run_sweep(tmp_path, *options).returncode == 0
    write_jobs(tmp_path, 3)
    changed = run_sweep(tmp_path, *options, "--resume", command=(*COMMAND, "more"))
    assert (changed.returncode, "another jobs file and command" in changed.stderr) == (2, True)
    assert run_sweep(tmp_path, *options, "--resume", "--allow-changes").returncode == 0
    assert summary_of(tmp_path / "out")["counts"] == {"total": 3, "done": 3, "failed": 0, "left": 0}


@pytest.mark.parametrize(
    ("options", "command", "told"),
    [
        (("--chunk-size", "0"), COMMAND, "--chunk-size"),
        (("--chunk-size", "-3"), COMMAND, "--chunk-size"),
        (("--chunk-size", "many"), COMMAND, "--chunk-size"),
        (("--max-rss", "much"), COMMAND, "--max-rss 'much' is no size"),
        (("--max-rss", "8"), COMMAND, "8GiB"),
        (("--engine", "slurm"), COMMAND, "timeout_min"),
        (("--engine-option", "num_gpus=1"), COMMAND, "engine 'local'"),
        (("--grace", "soon"), COMMAND, "grace= 'soon' is no duration"),
        (("--chunk-size", "2"), (sys.executable, "run.py"), "{jobs}"),
        (("--chunk-size", "2"), (*COMMAND[:-1], "{metric}"), "write {metrics}"),
        (("--chunk-size", "2"), (), "command"),
        (("--chunk-size", "2"), ("no-such-program", "{jobs}"), "no-such-program"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    command: tuple[str, ...],
    told: str,
) -> None:
    write_jobs(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["millpond", *sweep_arguments(*options, command=command)[2:]])
    with pytest.raises(SystemExit) as ended:
        app()
    out, errors = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert told in errors
    assert os.listdir(tmp_path) == ["jobs.json"]


def test_a_process_that_passes_the_budget_after_its_jobs_have_reported_fails_nothing(tmp_path: Path) -> None:
    write_jobs(tmp_path, 2)
    code = """
import json, sys, time
json.dump({"job-0": {}, "job-1": {}}, open(sys.argv[2], "w"))
held = b"x" * (96 << 20)
time.sleep(60)
"""
    command = (sys.executable, "-I", "-S", "-c", code, "{jobs}", "{metrics}")
    ended = run_sweep(tmp_path, "--chunk-size", "2", "--max-rss", "48MiB", "--out", "out", command=command)
    assert (ended.returncode, chunks_of(tmp_path / "out", "ended_by")) == (0, [("budget",)])
    assert summary_of(tmp_path / "out")["failures"] == []


def test_a_learned_chunk_size_stays_within_the_budget(tmp_path: Path) -> None:
    write_jobs(tmp_path, 12, dict.fromkeys(range(12), "leak"))
    budget = 6 * sweep_child.LEAK_BYTES
    ended = run_sweep(tmp_path, "--max-rss", str(budget), "--out", "out")
    assert ended.returncode == 0, ended.stderr
    sizes = [len(names) for names in chunks_of(tmp_path / "out")]
    assert (sizes[:2], sum(sizes), max(sizes) > 2) == ([1, 2], 12, True)
    assert max(peak for (peak,) in chunks_of(tmp_path / "out", "peak_rss_bytes")) < budget


def test_a_function_runs_in_a_fresh_process_for_each_chunk(tmp_path: Path) -> None:
    def run_job(job: int) -> dict[str, Any]:
        import os

        return {"pid": os.getpid(), "square": job**2, "arguments": sys.argv}

    result = millpond.sweep(range(5), run_job, chunk_size=2, out=tmp_path / "out")
    assert [metrics["square"] for metrics in result.metrics.values()] == [0, 1, 4, 9, 16]
    pids = [metrics["pid"] for metrics in result.metrics.values()]
    assert len(set(pids)) == 3
    assert os.getpid() not in pids
    assert all(metrics["arguments"] == sys.argv for metrics in result.metrics.values())
    assert (result.exit_code, result.failures) == (0, ())


def test_jobs_of_a_function_have_names_and_a_change_inside_of_them_is_noticed() -> None:
    def work_of(*jobs: Any) -> FunctionWork:
        return FunctionWork.of(jobs, dict, stops=True, name_key="name")

    assert work_of(7, "a", True, 0.5, {"x": 1}).names == ("7", "a", "job-00002", "job-00003", "job-00004")
    assert work_of({"name": "a", "lr": 1}).facts() == work_of({"name": "a", "lr": 1}).facts()
    assert work_of({"name": "a", "lr": 1}).facts() != work_of({"name": "a", "lr": 2}).facts()
    assert work_of({"name": "a", "of": object()}).facts() == work_of({"name": "a", "of": object()}).facts()


def test_a_function_that_cannot_travel_is_refused_with_a_remedy(tmp_path: Path) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot pickle.*within it"):
        millpond.sweep([1], lambda job: {"locked": lock.locked()}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_within_a_chunk_a_function_is_not_split_again(tmp_path: Path) -> None:
    def run_job(job: int) -> dict[str, Any]:
        import os

        import millpond

        inner = millpond.sweep([job, job + 1], lambda one: {"pid": os.getpid(), "one": one}, chunk_size=1)
        assert {metrics["pid"] for metrics in inner.metrics.values()} == {os.getpid()}
        return {"ones": [metrics["one"] for metrics in inner.metrics.values()], "folder": inner.folder}

    result = millpond.sweep([1, 5], run_job, chunk_size=1, out=tmp_path / "out")
    assert dict(result.metrics) == {"1": {"ones": [1, 2], "folder": None}, "5": {"ones": [5, 6], "folder": None}}


def test_a_function_that_ends_its_process_is_named_and_no_job_after_it_is_blamed(tmp_path: Path) -> None:
    def run_job(job: int) -> dict[str, int]:
        return {"job": job} if job != 1 else sys.exit(0)

    result = millpond.sweep(range(4), run_job, chunk_size=4, out=tmp_path / "out", on_error="continue")
    assert sorted(result.metrics) == ["0", "2", "3"]
    assert [(one.job, one.reason) for one in result.failures] == [("1", "exited with code 0 before its job was over")]
    assert result.exit_code == 3


def test_a_function_that_raises_names_its_job_and_the_others_get_their_turn(tmp_path: Path) -> None:
    def run_job(job: str) -> dict[str, float]:
        return {"inverse": 1 / int(job)}

    with pytest.raises(millpond.JobFailed, match="ZeroDivisionError") as raised:
        millpond.sweep(["1", "0", "2"], run_job, chunk_size=3, out=tmp_path / "stop")
    assert raised.value.job == "0"
    result = millpond.sweep(["1", "0", "2"], run_job, chunk_size=3, out=tmp_path / "go on", on_error="continue")
    assert dict(result.metrics) == {"1": {"inverse": 1.0}, "2": {"inverse": 0.5}}
    assert [failure.job for failure in result.failures] == ["0"]
