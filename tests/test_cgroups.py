"""What control groups say of a process's limits, from files as kernels write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from millpond._cgroups import ControlGroups, MemoryLimit

GIB = 1 << 30
Write = Callable[..., ControlGroups]


@pytest.fixture
def groups(tmp_path: Path) -> Write:
    """Writes what /proc/self/cgroup says, and files below /sys/fs/cgroup."""

    def write(own: str, **files: str) -> ControlGroups:
        for name, text in {"proc/self/cgroup": own, **{f"sys/{name}": text for name, text in files.items()}}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return ControlGroups("self", tmp_path / "proc", tmp_path / "sys")

    return write


def test_the_tightest_of_all_groups_above_holds(groups: Write) -> None:
    own = {"pod/own/memory.max": "max", "pod/own/cpu.max": "max 100000", "pod/own/memory.current": "7"}
    pod = {
        "pod/memory.max": f"{8 * GIB}",
        "pod/memory.current": f"{5 * GIB}",
        "pod/memory.stat": f"anon 1\ninactive_file {GIB}\nshmem 9\n",
        "pod/cpu.max": "150000 100000",
        "pod/pids.max": "100",
        "pod/pids.current": "90",
    }
    found = groups("0::/pod/own\n", **own, **pod)
    assert found.memory_limits() == [MemoryLimit("memory.max", 8 * GIB, 4 * GIB)]
    assert found.memory_bytes() == 7
    assert found.quota_cores() == 1.5
    assert found.tasks_left() == (100, 10)


def test_groups_of_version_1_are_read_too(groups: Write) -> None:
    memory = {
        "memory/job/memory.limit_in_bytes": "2000",
        "memory/job/memory.usage_in_bytes": "1024",
        "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 20\ntotal_active_file 4\n",
    }
    quota = {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    found = groups("5:memory:/job\n3:cpu,cpuacct:/docker/x\n0::/\n", **memory, **quota)
    assert found.memory_limits() == [MemoryLimit("memory.limit_in_bytes", 2000, 1000)]
    assert found.memory_bytes() == 1000
    assert found.quota_cores() == 0.5


def test_no_limit_is_none(groups: Write, tmp_path: Path) -> None:
    unlimited = {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1"}
    for found in (groups("5:memory:/\n4:cpu:/\n", **unlimited), ControlGroups(1, tmp_path / "no", tmp_path / "no")):
        assert found.memory_limits() == []
        assert found.memory_bytes() is None
        assert found.quota_cores() is None
        assert found.tasks_left() is None
        assert found.oom_kills() is None


def test_a_group_outside_of_what_is_mounted_is_the_mounted_root(groups: Write) -> None:
    found = groups("0::/../../elsewhere\n", **{"memory.max": f"{GIB}"})
    assert [limit.limit_bytes for limit in found.memory_limits()] == [GIB]


@pytest.mark.parametrize(
    ("own", "counter", "content"),
    [
        ("0::/box\n", "box/memory.events", "low 0\noom 4\noom_kill 3\n"),
        ("0::/not/visible\n", "memory.events", "oom_kill 3\n"),
        ("4:memory:/box\n0::/\n", "memory/box/memory.oom_control", "under_oom 0\noom_kill 3\n"),
    ],
    ids=["v2", "v2 in a container", "v1"],
)
def test_the_count_of_oom_kills_is_found(own: str, counter: str, content: str, groups: Write) -> None:
    assert groups(own, **{counter: content}).oom_kills() == 3
