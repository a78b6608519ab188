"""Probes: nothing that hangs or crashes takes the doctor with it, or what was found before."""

from __future__ import annotations

import contextlib

from millpond._doctor.findings import Level, fine
from millpond._doctor.probes import Probes


def test_what_a_probe_finds_comes_back() -> None:
    with Probes(60.0) as probes:
        assert probes.begin("x", "probes_of_tests:find", text="ä").findings() == [fine("first", "ä")]


def test_a_probe_that_hangs_is_ended_and_says_where() -> None:
    with Probes(0.5) as probes:
        *_, last = probes.begin("disk", "probes_of_tests:hang").findings()
    assert (last.level, last.subject) == (Level.ERROR, "disk")
    assert last.found.endswith("took more than 0.5 s, and was given up")


def test_a_probe_that_crashes_says_how() -> None:
    with Probes(60.0) as probes:
        first, last = probes.begin("codecs", "probes_of_tests:crash").findings()
    assert first == fine("first", "found")
    assert (last.level, last.subject) == (Level.ERROR, "codecs")
    assert last.found == "decoding nonsense ended its process (SIGSEGV)"


def test_an_interrupt_leaves_no_probe_behind() -> None:
    with contextlib.suppress(KeyboardInterrupt), Probes(60.0) as probes:
        probes.begin("disk", "probes_of_tests:hang")
        raise KeyboardInterrupt
