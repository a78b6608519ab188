"""Sweeps that are killed or interrupted: nothing they measured is lost, nothing they started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from programs import outlive, runs
from sweeping import chunks_of, run_sweep, summary_of, sweep_arguments, write_jobs

FILES = ["ledger.sqlite", "logs", "metrics.json", "report.html", "summary.json"]


@contextmanager
def sweep_until(folder: Path, line: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A sweep that runs, once one of its children has printed a line."""
    command = [sys.executable, *sweep_arguments(*options, "--stream")]
    environment = {**os.environ, "SWEEP_MARKS": str(folder)}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE) as sweep:
        try:
            assert sweep.stdout is not None
            assert line in iter(lambda: sweep.stdout.readline().partition("] ")[2].strip(), "")  # type: ignore[union-attr]
            yield sweep
        finally:
            sweep.kill()


def test_three_kills_lose_nothing_and_the_result_is_the_same_bytes(tmp_path: Path) -> None:
    hangs = (3, 6, 7)
    write_jobs(tmp_path, 10, dict.fromkeys(hangs, "once hang"))
    options = ("--chunk-size", "5", "--out", "out", "--resume")
    for number in hangs:
        with sweep_until(tmp_path, f"job-{number} hangs", *options) as sweep:
            below = psutil.Process(sweep.pid).children(recursive=True)
            sweep.kill()
        assert len(below) >= 2  # a keeper and a command
        assert not outlive(below, 10)
    assert run_sweep(tmp_path, *options).returncode == 0
    # what a chunk had reported when it was killed is not run again
    assert [names[0] for names in chunks_of(tmp_path / "out")] == ["job-0", "job-3", "job-6", "job-7"]
    assert run_sweep(tmp_path, "--chunk-size", "10", "--out", "calm").returncode == 0
    for name in ("metrics.json", "summary.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def test_what_outlives_a_sweep_and_its_keeper_is_ended_by_resume(tmp_path: Path) -> None:
    write_jobs(tmp_path, 2, {0: "leave a process", 1: "once hang"})
    options = ("--chunk-size", "2", "--out", "out", "--resume")
    with sweep_until(tmp_path, "job-1 hangs", *options) as sweep:
        below = psutil.Process(sweep.pid).children(recursive=True)
        (stray,) = [process for process in below if process.name() == "sleep"]
        both = [psutil.Process(sweep.pid), *psutil.Process(sweep.pid).children()]
        for process in both:
            process.suspend()  # so that neither sees the other die
        for process in both:
            process.kill()
    assert not outlive([process for process in below if process != stray], 10)
    assert runs(stray)
    assert run_sweep(tmp_path, *options).returncode == 0
    assert not outlive([stray], 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_that_runs_and_the_sweep_can_be_resumed(tmp_path: Path, number: signal.Signals) -> None:
    write_jobs(tmp_path, 4, {1: "leave a process", 2: "once hang"})
    options = ("--chunk-size", "3", "--out", "out")
    with sweep_until(tmp_path, "job-2 hangs", *options) as sweep:
        below = psutil.Process(sweep.pid).children(recursive=True)
        assert "sleep" in [process.name() for process in below]
        sweep.send_signal(number)
        assert sweep.wait(60) == 128 + number
    assert not outlive(below, 0)
    assert sorted(os.listdir(tmp_path / "out")) == FILES
    assert summary_of(tmp_path / "out")["counts"] == {"total": 4, "done": 2, "failed": 0, "left": 2}
    assert run_sweep(tmp_path, *options, "--resume").returncode == 0


def test_a_command_that_is_not_split_gets_signals_and_ends_with_the_sweep(tmp_path: Path) -> None:
    write_jobs(tmp_path, 1)
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('runs', flush=True); time.sleep(60)"
    )
    command = [sys.executable, *sweep_arguments(command=(sys.executable, "-c", code, "{jobs}"))]
    for number, exit_code in ((signal.SIGTERM, 7), (signal.SIGKILL, -9)):
        with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE) as sweep:
            assert sweep.stdout is not None
            assert sweep.stdout.readline() == "runs\n"
            below = psutil.Process(sweep.pid).children(recursive=True)
            sweep.send_signal(number)
            assert sweep.wait(60) == exit_code
        assert not outlive(below, 10)


def test_a_second_sweep_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    write_jobs(tmp_path, 2, {0: "hang"})
    with sweep_until(tmp_path, "job-0 hangs", "--chunk-size", "1", "--out", "out"):
        second = run_sweep(tmp_path, "--chunk-size", "1", "--out", "out")
    assert second.returncode == 2
    assert "--resume" in second.stderr


def test_a_child_that_hangs_is_ended_at_its_timeout(tmp_path: Path) -> None:
    write_jobs(tmp_path, 3, {1: "hang"})
    options = ("--chunk-size", "2", "--timeout", "1", "--bisect", "--on-error", "continue", "--out", "out")
    ended = run_sweep(tmp_path, *options)
    assert ended.returncode == 3
    summary = summary_of(tmp_path / "out")
    assert (summary["counts"]["done"], [failure["job"] for failure in summary["failures"]]) == (2, ["job-1"])
    assert "timeout" in summary["failures"][0]["reason"]
