"""Probes: nothing that hangs or crashes takes the doctor with it, or what was found before."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from millpond._doctor.findings import Level, fine
from millpond._doctor.probes import Probes
from programs import outlive, program

KILLED = """
import time
from millpond._doctor.probes import Probes
probes = Probes(600.0)
probes.begin("disk", "probes_of_tests:hang")
print(probes._begun[0]._process.pid, flush=True)
time.sleep(600)
"""


def test_what_a_probe_finds_comes_back() -> None:
    with Probes(60.0) as probes:
        probes.begin("x", "probes_of_tests:find", text="ä")
        assert list(probes.findings()) == [fine("first", "ä")]


def test_a_probe_that_hangs_is_ended_and_says_where() -> None:
    with Probes(0.3) as probes:
        probes.begin("disk", "probes_of_tests:hang")
        *_, last = probes.findings()
    assert (last.level, last.subject) == (Level.ERROR, "disk")
    assert last.found.endswith("took more than 0.3 s, and was given up")


def test_a_probe_that_crashes_says_how() -> None:
    with Probes(60.0) as probes:
        probes.begin("codecs", "probes_of_tests:crash")
        first, last = probes.findings()
    assert first == fine("first", "found")
    assert (last.level, last.subject) == (Level.ERROR, "codecs")
    assert last.found == "decoding nonsense ended its process (SIGSEGV)"


def test_an_interrupt_leaves_no_probe_behind() -> None:
    with contextlib.suppress(KeyboardInterrupt), Probes(60.0) as probes:
        probes.begin("disk", "probes_of_tests:hang")
        raise KeyboardInterrupt


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_probes_end_with_a_doctor_that_is_killed(tmp_path: Path) -> None:
    with program(KILLED, tmp_path / "temporary") as doctor:
        probe = int(doctor.line())
        doctor.process.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            assert outlive([psutil.Process(probe)], 20) == []


def test_what_a_probe_started_ends_with_it() -> None:
    with Probes(60.0) as probes:
        probes.begin("torch", "probes_of_tests:start_and_exit")
        started, _ = probes.findings()
    with contextlib.suppress(psutil.NoSuchProcess):
        assert outlive([psutil.Process(int(started.found))], 20) == []


def test_a_bug_in_a_probe_is_told_and_the_others_go_on() -> None:
    with Probes(60.0) as probes:
        probes.begin("bugs", "probes_of_tests:fail")
        probes.begin("x", "probes_of_tests:find", text="ä")
        bug, other = probes.findings()
    assert bug.found.startswith("looking at them failed: ZeroDivisionError in probes_of_tests.py, line ")
    assert "s3cret" not in str(bug)
    assert other == fine("first", "ä")


def test_a_machine_without_a_process_to_spare_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with Probes(60.0) as probes:
        probes.begin("workers", "probes_of_tests:find")
        (found,) = probes.findings()
    assert found.found == "no process can be started: Resource temporarily unavailable"
