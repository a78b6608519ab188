"""What the doctor says of facts that are handed to it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from millpond._cgroups import MemoryLimit
from millpond._doctor import cores, folders, limits, memory, packages, shared_memory, surroundings
from millpond._doctor.findings import Finding, Level, Plans

GIB = 1 << 30
PLANS = Plans(2 * GIB, 4)


def level_of_memory(free_gib: float) -> Level:
    return memory.machine_memory(64 * GIB, int(free_gib * GIB), PLANS).level


def test_a_budget_beyond_what_is_free_is_an_error() -> None:
    assert (level_of_memory(1.9), level_of_memory(2.2), level_of_memory(3)) == ("error", "warning", "ok")


@pytest.mark.parametrize(
    ("name", "used_gib", "level"),
    [
        ("memory.max", 7, "error"),
        ("memory.max", 5.6, "warning"),
        ("memory.max", 1, "ok"),
        ("memory.high", 7, "warning"),
    ],
)
def test_a_budget_beyond_the_control_group_is_an_error(name: str, used_gib: float, level: str) -> None:
    limit = MemoryLimit(name, 8 * GIB, int(used_gib * GIB))
    found = memory.group_memory([limit], PLANS)
    assert found.level == level
    assert f"{name} 8.0 GiB, for a budget of 2.0 GiB" in found.found
    assert (level == "ok") == (not found.remedy)


def test_strict_overcommit_is_an_error_where_it_leaves_too_little() -> None:
    meminfo = memory.parse_meminfo("CommitLimit:     4194304 kB\nCommitted_AS:    3145728 kB\nHugePages_Total:   0\n")
    assert memory.overcommit(2, meminfo, PLANS).level == "error"
    assert memory.overcommit(0, meminfo, PLANS).level == "ok"
    assert memory.overcommit(None, {}, PLANS).level == "ok"
    assert memory.overcommit(2, {**meminfo, "Committed_AS": 0}, PLANS).level == "ok"


def test_kills_and_swapping_are_told() -> None:
    assert (memory.kills_for_memory(3).level, memory.kills_for_memory(0).level) == ("warning", "ok")
    assert (memory.swap(GIB, GIB - 1).level, memory.swap(GIB, 0).level, memory.swap(0, 0).level) == (
        "warning",
        "ok",
        "ok",
    )


@pytest.mark.parametrize(
    ("usable", "quota", "workers", "slurm", "remedy"),
    [
        (8, None, 8, "", ""),
        (8, 2.5, None, "", ""),
        (8, 2.5, 4, "", "num_workers=2"),
        (8, 2.5, 3, "", ""),
        (8, 0.5, 1, "", ""),
        (4, None, 8, "", "num_workers=4"),
        (64, None, None, "4", "num_workers=4"),
    ],
)
def test_more_workers_than_cores_are_a_warning(
    usable: int, quota: float | None, workers: int | None, slurm: str, remedy: str
) -> None:
    found = cores.cores(64, usable, quota, Plans(GIB, workers), {"SLURM_CPUS_PER_TASK": slurm})
    assert (found.level == "warning") == bool(remedy)
    assert found.remedy.endswith(remedy)


@pytest.mark.parametrize(
    ("found", "level", "remedy"),
    [
        (limits.open_files(80, 4096, 4), "error", "ulimit -n 4096"),
        (limits.open_files(256, 256, 4), "warning", "limits.conf"),
        (limits.open_files(65536, math.inf, 4), "ok", ""),
        (limits.processes(100, 90, None, 4), "error", "ulimit -u"),
        (limits.processes(math.inf, 90, (64, 10), 4), "error", "--pids-limit"),
        (limits.processes(4096, None, None, 4), "ok", ""),
        (limits.address_space(GIB, PLANS), "error", "ulimit -v unlimited"),
        (limits.address_space(8 * GIB, PLANS), "warning", "ulimit -v unlimited"),
        (limits.address_space(math.inf, PLANS), "ok", ""),
        (limits.file_size(GIB, PLANS), "error", "ulimit -f unlimited"),
        (limits.file_size(3 * GIB, PLANS), "ok", ""),
        (limits.locked_memory(65536), "ok", ""),
    ],
)
def test_limits_that_are_too_low_come_with_their_remedy(found: Finding, level: str, remedy: str) -> None:
    assert found.level == level
    assert remedy in found.remedy


def test_shm_matters_only_where_batches_lie_there() -> None:
    small = shared_memory.Shm(64 << 20, 64 << 20)
    assert shared_memory.shm(small, PLANS, is_used=False).level == "ok"
    assert "--shm-size" in shared_memory.shm(small, PLANS, is_used=True).remedy
    assert shared_memory.shm(None, PLANS, is_used=True).level == "error"
    assert shared_memory.shm(None, PLANS, is_used=False).level == "ok"


def test_a_memfd_is_tried_and_bounds_are_told() -> None:
    assert shared_memory.memfd(shared_memory.try_memfd(), Plans(1)).level == "ok"
    assert shared_memory.memfd(shared_memory.Memfd("refused"), PLANS).level == "warning"
    assert shared_memory.memfd(shared_memory.Memfd("this system has none"), PLANS).level == "ok"
    assert shared_memory.memfd(shared_memory.Memfd(bound_bytes=GIB), PLANS).level == "error"


@pytest.mark.parametrize(
    ("torch", "torchcodec", "level", "remedy"),
    [
        ("2.13.0+cpu", "0.13.0", "ok", ""),
        ("2.8.0", "0.7.0", "ok", ""),
        ("2.10.0+cu128", "0.9.1", "warning", "torchcodec==0.10.*"),
        ("2.9.1", "0.13.0", "warning", "torchcodec==0.9.*"),
        ("2.13.0", "0.11.1", "warning", "torchcodec>=0.12"),
        ("2.11.0", "0.12.0", "ok", ""),
        ("2.3.1", None, "error", "torch>=2.4"),
        ("2.13.0", None, "ok", ""),
        (None, None, "ok", ""),
        (None, "0.9.0", "warning", "pip install torch"),
        ("2.13.0", "0.0.3", "warning", "torchcodec>=0.12"),
    ],
)
def test_torchcodec_must_go_with_torch(torch: str | None, torchcodec: str | None, level: str, remedy: str) -> None:
    found = packages.torch_and_torchcodec(torch, torchcodec)
    assert found.level == level
    assert remedy in found.remedy


def test_packages_that_are_missing_or_too_old_are_errors() -> None:
    wanted = ["av>=18.0", "numpy>=2.0", "obstore>=0.12", 'torch>=2.4; extra == "torch"']
    missing, old = packages.packages(wanted, {"numpy": "2.0", "obstore": "0.9.3"}.get)
    assert (missing.subject, missing.remedy) == ("av", "pip install 'av>=18.0'")
    assert (old.subject, old.found) == ("obstore", "0.9.3, and millpond needs 0.12 or later")
    assert [each.level for each in packages.packages()] == ["ok"]


def test_a_clock_before_the_installation_is_a_warning() -> None:
    assert packages.clock(2e9, 1.9e9).level == "ok"
    assert packages.clock(0.0, 1.9e9).found == "1970-01-01 00:00:00 UTC, before millpond was installed"


def test_start_methods_that_fork_threads_or_are_none_are_told() -> None:
    methods = ["fork", "spawn", "forkserver"]
    told = [surroundings.start_methods(methods, chosen).level for chosen in (None, "", "spawn", "fork", "frok")]
    assert told == ["ok", "ok", "ok", "warning", "error"]


def test_variables_with_bad_values_or_likely_typos_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_TIMEOUT", "soon")
    given = {"MILLPOND_TIMEOUT": "soon", "MILLPOND_CACHEDIR": "/x", "MILLPOND_JOBS": "of a sweep"}
    bad, typo = surroundings.settings(given)
    assert (bad.level, bad.subject) == ("error", "MILLPOND_TIMEOUT")
    assert "'soon'" in bad.found
    assert (typo.level, typo.remedy) == ("warning", "rename it to MILLPOND_CACHE_DIR")


def test_a_sanitizer_in_every_process_is_told() -> None:
    assert surroundings.preloaded_libraries({}).level == "ok"
    assert surroundings.preloaded_libraries({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}).level == "ok"
    assert surroundings.preloaded_libraries({"LD_PRELOAD": "libasan.so.8 libx.so"}).level == "warning"


def test_a_folder_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    found = folders.look_at_folder(tmp_path / "not" / "there")
    assert (found.place, found.problem) == (str(tmp_path), "")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert folders.look_at_folder(tmp_path / "file").problem == "Not a directory"


def test_a_full_or_closed_folder_is_a_warning() -> None:
    told = [
        folders.folder("cache", folders.Folder("/x", problem, free, has_inodes=inodes), "move it")
        for problem, free, inodes in (("", 9 * GIB, True), ("", 9, True), ("", 9 * GIB, False), ("denied", 0, True))
    ]
    assert [each.level for each in told] == ["ok", "warning", "warning", "warning"]
    assert told[3].found == "'/x' cannot be written: denied"
