"""A soak of programs: what they leak is found, what they started is ended, and what was seen is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from millpond._cli import app
from millpond._soak.out_folder import SoakFolder
from millpond._soak.results import SoakResult
from millpond._soak.soak import SoakOptions, SoakWatcher, soak_command, soak_process
from millpond._soak.verdict import Verdict
from millpond.errors import UsageError
from programs import outlive, program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a soak reads /proc, which only Linux has")

LEAKY = """
import os, subprocess, sys
stray = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
jobs, done = open(sys.argv[1], "rb", buffering=0), open(sys.argv[2], "wb", buffering=0)
done.write(stray.pid.to_bytes(4, "little"))
kept = []
while jobs.read(1):
    kept.append(os.pipe())
    done.write(b"d")
"""
HEADLESS = """
import ctypes, os, signal, threading
os.fork() or os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
threading.Thread(target=signal.pause).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""Has a zombie, and ends its first thread, but not the other."""
QUICK = SoakOptions(interval_seconds=0.01, warmup_seconds=0.0, grace_seconds=20.0, core_share=1000.0)
"""Looks come at the interval, however slow the machine is."""

LONG = replace(QUICK, duration_seconds=60.0)
"""For what ends by itself, or not at all."""


class EndAfter(SoakWatcher):
    """Has this process told to end after so many looks."""

    def __init__(self, looks: int) -> None:
        self._left = looks

    def looked(self, seconds: float, latest: Mapping[str, float]) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


class WithZombie(EndAfter):
    """Counts looks from when there is one."""

    def looked(self, seconds: float, latest: Mapping[str, float]) -> None:
        if latest["zombies"]:
            super().looked(seconds, latest)


class JobForEachLook(EndAfter):
    """Gives the leaky program a job after each look, and waits until it is done."""

    def __init__(self, folder: Path, looks: int) -> None:
        super().__init__(looks)
        self.paths = folder / "jobs", folder / "done"
        for path in self.paths:
            os.mkfifo(path)
        self.files = ExitStack()
        self.stray_pid = 0

    def looked(self, seconds: float, latest: Mapping[str, float]) -> None:
        if not self.stray_pid:
            self._jobs = self.files.enter_context(self.paths[0].open("wb", buffering=0))
            self._done = self.files.enter_context(self.paths[1].open("rb", buffering=0))
            self.stray_pid = int.from_bytes(self._done.read(4), "little")
        self._jobs.write(b"j")
        assert self._done.read(1) == b"d"
        super().looked(seconds, latest)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soak")


@pytest.fixture(scope="module")
def jobs(place: Path) -> Iterator[JobForEachLook]:
    jobs = JobForEachLook(place, 60)
    with jobs.files:
        yield jobs


@pytest.fixture(scope="module")
def leaky(place: Path, jobs: JobForEachLook) -> SoakResult:
    """A program that leaks pipes, and leaves a child in a session of its own; ended by SIGTERM."""
    return soak_command([sys.executable, "-S", "-c", LEAKY, *map(str, jobs.paths)], QUICK, place / "out", jobs)


def test_a_pipe_leaked_per_job_is_found_with_the_time_until_emfile(leaky: SoakResult) -> None:
    found = leaky.as_dict()["series"]
    for name in ("pipes", "descriptors", "most_descriptors"):
        assert found[name]["verdict"] == "growing", found[name]
        assert "EMFILE in" in found[name]["said"]
    assert found["sockets"]["verdict"] != "growing"
    assert found["processes"]["last"] == 2
    assert leaky.exit_code == 1


def test_the_command_ends_with_its_strays_when_the_soak_is_told_to(leaky: SoakResult, jobs: JobForEachLook) -> None:
    assert leaky.ending.by == "SIGTERM"
    assert leaky.ending.exit_code == -signal.SIGTERM
    assert not psutil.pid_exists(jobs.stray_pid)


def test_folder_has_every_look_the_verdicts_and_a_page(leaky: SoakResult, place: Path) -> None:
    written = json.loads((place / "out/soak.json").read_text())
    assert written == json.loads(json.dumps(leaky.as_dict()))
    lines = [json.loads(line) for line in (place / "out/samples.jsonl").read_text().splitlines()]
    assert len(lines) == written["looks"]["tree"]["looks"] == leaky.series["pipes"].num_looks == 60
    assert lines[-1]["pipes"] == leaky.series["pipes"].last
    assert "EMFILE" in (place / "out/report.html").read_text()


def test_a_used_folder_is_refused(leaky: SoakResult, place: Path) -> None:
    with pytest.raises(UsageError, match="holds a soak already: give another --out"):
        soak_command(["true"], QUICK, place / "out", SoakWatcher())


def test_a_process_that_is_attached_to_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        result = soak_process(process.pid, QUICK, tmp_path / "out", EndAfter(3))
        assert result.ending.by == "SIGTERM"
        assert result.verdict is Verdict.TOO_SHORT
        process.communicate(b"\n")
    assert process.returncode == 0


def test_what_was_found_is_told_also_where_its_page_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    blocks = ["mkdir", str(out / "report.html")]
    monkeypatch.setattr(sys, "argv", ["millpond", "soak", "--interval", "9", "--out", str(out), "--", *blocks])
    with pytest.raises(SystemExit) as ended:
        app()
    printed = capfd.readouterr()
    assert ended.value.code == 2
    assert f"cannot write into '{out}' (Is a directory)" in printed.err
    assert "too short to say; more in" in printed.out
    assert json.loads((out / "soak.json").read_text())["verdict"] == "too short to say"


def test_zombies_are_counted_and_a_process_lives_while_any_of_its_threads_does(tmp_path: Path) -> None:
    result = soak_command([sys.executable, "-S", "-c", HEADLESS], LONG, tmp_path / "out", WithZombie(30))
    assert result.series["zombies"].last == 1
    assert result.series["processes"].last == 1
    assert result.ending.exit_code == -signal.SIGTERM


def test_what_a_command_leaves_behind_is_ended_and_told(tmp_path: Path) -> None:
    leaves = f"echo; (setsid {sys.executable} -c 'import time; time.sleep(600)' &); exit 7"
    result = soak_command(["bash", "-c", leaves], QUICK, tmp_path / "out", SoakWatcher())
    assert result.ending.by == "itself"
    assert result.ending.num_left_behind == 1
    assert result.exit_code == 7


def test_kill_9_of_the_soak_leaves_what_was_seen_and_asks_the_command_to_end(tmp_path: Path) -> None:
    soaked = "import time; print('ready', flush=True); time.sleep(600)"
    run = "import sys; sys.argv[0] = 'millpond'; from millpond._cli import app; app()"
    options = ("soak", "--interval", "0.01", "--out", str(tmp_path / "out"), "--", sys.executable, "-c", soaked)
    with program(run, tmp_path / "temporary", *options) as soak:
        assert soak.line() == "ready"
        command = psutil.Process(soak.process.pid).children()
        wait_until(lambda: (tmp_path / "out/samples.jsonl").read_text().count("\n") > 1)
        soak.process.kill()
        assert outlive(command, 20) == []
    lines = (tmp_path / "out/samples.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["processes"] == 1


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a command after --, or --pid N"),
        (["--pid", "1", "--", "true"], "give a command after --, or --pid N"),
        (["--pid", str(2**22 + 1)], "there is no process 4194305"),
        (["--duration", "5s", "--", "true"], "--duration (5 s) must be more than --warmup (10 s)"),
        (["--duration", "soon", "--", "true"], "'soon' is no duration"),
        (["--interval", "0", "--", "true"], "--interval must be more than 0"),
        (["--warmup", "nan", "--", "true"], "--warmup: 'nan' is no duration"),
        (["--", "no-such-program"], "cannot start 'no-such-program': there is none of this name on the PATH"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["millpond", "soak", *arguments])
    with pytest.raises(SystemExit) as ended:
        app()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_looks_beyond_ten_thousand_are_thinned_by_ten(tmp_path: Path) -> None:
    with SoakFolder(tmp_path / "out") as folder:
        for number in range(30_000):
            folder.write_look(number, {})
    lines = [json.loads(line)["seconds"] for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    assert len(lines) == 9_999 + 2_001
    assert lines[-2:] == [29_989, 29_999]


def test_a_log_gets_the_verdicts_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["millpond", "soak", "--", "sh", "-c", "exit 3"])
    with pytest.raises(SystemExit) as ended:
        app()
    printed = capfd.readouterr()
    assert ended.value.code == 3
    assert printed.err == ""
    (folder,) = tmp_path.glob("soak-*")
    assert printed.out.endswith(f"too short to say; more in '{folder.name}/report.html'\n")
    assert "the command ended with exit code 3" in printed.out
