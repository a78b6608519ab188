"""Memory of a process tree: shared pages are shared out, and the peak is seen."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from millpond._observe.memory import (
    Memory,
    MemorySampler,
    _parse_rollup,
    process_memory,
    tree_memory,
    tree_pids,
)

MIB = 2**20
ROLLUP = """\
5581d2a5c000-7fff3b9c1000 ---p 00000000 00:00 0                          [rollup]
Rss:               20480 kB
Pss:               10240 kB
Pss_Dirty:          3072 kB
Pss_Anon:           2048 kB
Private_Clean:      1024 kB
Private_Dirty:      3072 kB
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="PSS is read from /proc, which only Linux has")


def wait_for_line(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"


def spawn(code: str) -> subprocess.Popen[str]:
    code += "; print('ready', flush=True); input()"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_rollup_is_read_in_kibibytes_and_private_pages_are_added() -> None:
    assert _parse_rollup(ROLLUP) == Memory(10 * MIB, 20 * MIB, 4 * MIB, 2 * MIB, 1)


def test_memory_of_a_process_that_ended_is_zero() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert process_memory(ended.pid) == Memory()
    assert tree_pids(ended.pid) == []


def test_tree_has_the_children_and_leaves_out_what_it_is_told() -> None:
    with spawn("block = bytearray(64 << 20)") as child:
        wait_for_line(child)
        with_child, without_child = tree_memory(), tree_memory(without=[child.pid])
        child.communicate("\n")
    assert with_child.num_processes == without_child.num_processes + 1
    assert with_child.uss_bytes - without_child.uss_bytes > 64 * MIB


@linux_only
def test_pss_counts_shared_pages_once_where_rss_counts_them_twice() -> None:
    size = 64 * MIB
    descriptor = os.memfd_create("test")
    os.truncate(descriptor, size)
    before = tree_memory()
    with mmap.mmap(descriptor, size) as shared:
        shared[:] = bytes(size)
        code = f"import mmap; shared = mmap.mmap({descriptor}, {size}); total = sum(shared[::4096])"
        command = [sys.executable, "-c", code + "; print('ready', flush=True); input()"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[descriptor]
        ) as child:
            wait_for_line(child)
            after = tree_memory()
            child.communicate("\n")
    os.close(descriptor)
    assert after.rss_bytes - before.rss_bytes > 2 * size
    assert size * 0.75 < after.pss_bytes - before.pss_bytes < size * 1.5


@linux_only
def test_sampler_sees_a_peak_that_is_gone_at_the_end() -> None:
    with MemorySampler(interval_seconds=0.002) as sampler:
        with mmap.mmap(-1, 128 * MIB) as block:
            block[:: mmap.PAGESIZE] = bytes(len(block) // mmap.PAGESIZE)
            looks = len(sampler.points)
            while len(sampler.points) < looks + 2:  # of two looks, the second began while the block was there
                pass
    # the rest of the tree's PSS moves, too, as processes that share its libraries come and go
    assert sampler.peak_growth_bytes > 64 * MIB
    assert sampler.points[-1].total.pss_bytes < sampler.peak_pss_bytes - 64 * MIB


def test_sampler_closes_twice_and_its_first_and_last_looks_are_there() -> None:
    sampler = MemorySampler(interval_seconds=60)
    sampler.close()
    sampler.close()
    assert len(sampler.points) == 2
    assert sampler.cpu_seconds > 0
    assert sampler.points[0].training.num_processes == 1
