"""Looks at processes: who belongs to a tree, what they hold, what a look may cost, and what is left of limits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from millpond._soak.kinds import KIND_OF, KINDS
from millpond._soak.pace import Pace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a soak reads /proc, which only Linux has")

if sys.platform == "linux":
    from millpond._soak.proc import child_pids, num_descriptors, process_stat
    from millpond._soak.tree import ProcessTree


def test_descriptors_are_counted_without_a_list() -> None:
    before = num_descriptors(os.getpid())
    ends = os.pipe()
    assert num_descriptors(os.getpid()) == before + 2
    for end in ends:
        os.close(end)


def test_a_process_stays_in_its_tree_when_its_parent_ends() -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['cat']); print(p.pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        tree, child = ProcessTree(parent.pid), int(parent.stdout.readline())
        assert {one.pid for one in tree.look()} == {parent.pid, child}
        parent.terminate()
        parent.wait()
        assert [one.pid for one in tree.look()] == [child]
        assert parent.stdin is not None
        parent.stdin.close()  # which ends the child
    while tree.look():
        pass


def test_children_are_found_whichever_thread_started_them() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in child_pids(os.getpid(), process_stat(os.getpid()).num_threads)


def test_a_dear_look_is_taken_less_often() -> None:
    pace = Pace(1.0, 0.01)
    pace._count(100.0, 0.001)
    assert pace.is_due(100.6)
    pace._count(101.0, 0.2)
    assert pace.interval_seconds == pytest.approx(20.0)
    assert not pace.is_due(119.0)
    assert pace.is_due(121.0)


def test_every_series_has_its_own_name_and_title() -> None:
    assert len(KIND_OF) == len({kind.title for kind in KINDS}) == len(KINDS)
