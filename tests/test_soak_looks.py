"""Looks at processes: who belongs to a tree, what they hold, what a look may cost, and what is left of limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from millpond._soak.cgroup import Cgroup
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


def cgroup_of(tmp_path: Path, line: str, files: dict[str, dict[str, object]]) -> Cgroup:
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(line)
    for folder, contents in files.items():
        (tmp_path / "cgroup" / folder).mkdir(parents=True, exist_ok=True)
        for name, content in {"cgroup.procs": "", **contents}.items():
            (tmp_path / "cgroup" / folder / name).write_text(str(content))
    return Cgroup(7, tmp_path / "proc", tmp_path / "cgroup")


def test_room_in_cgroup_v2_is_the_narrowest_on_the_way_up_without_cached_files(tmp_path: Path) -> None:
    stat = "anon 500\nfile 400\nshmem 100\n"
    outer = {"memory.current": 1000, "memory.max": 1200, "memory.stat": stat, "pids.max": 90, "pids.current": 80}
    inner = {"memory.current": 900, "memory.max": "max", "memory.stat": stat, "pids.max": "max", "pids.current": 5}
    cgroup = cgroup_of(tmp_path, "0::/outer/inner\n", {"outer": outer, "outer/inner": inner})
    assert cgroup.memory_bytes() == 600
    assert cgroup.memory_room_bytes() == 500
    assert cgroup.task_room() == 10


def test_room_in_cgroup_v1(tmp_path: Path) -> None:
    files = {
        "memory.usage_in_bytes": 1000,
        "memory.limit_in_bytes": 2000,
        "memory.stat": "cache 1\ntotal_cache 300\ntotal_shmem 100\n",
    }
    cgroup = cgroup_of(tmp_path, "4:memory:/job\n0::/\n", {"memory/job": files})
    assert cgroup.memory_bytes() == 800
    assert cgroup.memory_room_bytes() == 1200
    assert cgroup.task_room() is None


def test_every_series_has_its_own_name_and_title() -> None:
    assert len(KIND_OF) == len({kind.title for kind in KINDS}) == len(KINDS)
