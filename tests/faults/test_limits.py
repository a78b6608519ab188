"""Scarce descriptors and a small /dev/shm; hangs in C with the GIL held that end, are named, and cost one sample."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import millpond
from fakes import FakeDataset
from millpond import errors
from programs import program
from synthesized import MakeDataset
from test_loader_inline import make_loader, take
from torment import BallastDataset, HangingDataset
from transforms import hang_at

FEW_DESCRIPTORS = """
import os
import resource
import sys

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import millpond


def doubled(number):
    return os.listdir('/proc/self/fd') and 2 * number


with millpond.Guard(num_workers=8, timeout=60) as guard:
    print(list(guard.map(doubled, range(40))) == list(range(0, 80, 2)))
dataset = millpond.LeRobotDataset(sys.argv[1])
with millpond.Loader(dataset, batch_size=4, shuffle=True, num_workers=8, memory="500MiB", output="numpy") as loader:
    for epoch in range(2):
        print(sorted(int(index) for batch in loader for index in batch["index"]) == list(range(len(dataset))))
    print(loader.statistics().worker_restarts)
"""


def test_eight_workers_live_with_256_descriptors(synth: MakeDataset, tmp_path: Path) -> None:
    with program(FEW_DESCRIPTORS, tmp_path / "own", str(synth(cameras=2))) as running:
        exit_code, out, errors = running.ended()
    assert (exit_code, out.split()) == (0, ["True", "True", "True", "0"]), errors


SMALL_SHM = """
import os
import resource
import sys

import numpy as np

import millpond
from torment import BallastDataset

size = os.statvfs("/dev/shm")
assert size.f_blocks * size.f_frsize == 64 << 20, size


def large(megabytes):
    return np.full((megabytes, 1 << 20), 7, np.uint8)


def small_shm_is_empty():
    return os.listdir("/dev/shm") == []


with millpond.Guard(num_workers=2, timeout=60) as guard:
    print([int(result.sum()) == 7 * 100 << 20 for result in guard.map(large, [100, 100, 100])], small_shm_is_empty())
with millpond.Loader(
    BallastDataset(total=1200), batch_size=8, shuffle=True, num_workers=2, memory="400MiB", output="numpy"
) as loader:
    plan = loader.memory_plan()
    samples = []
    for batch in loader:
        samples += batch["index"].tolist()
        assert small_shm_is_empty()
    print(sorted(samples) == list(range(1200)), plan.pond_slots * batch["ballast"].nbytes > 64 << 20)
"""


def private_shm() -> list[str]:
    """A command that runs another one, with a /dev/shm of 64 MB of its own; skips where that may not be."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no command unshare, to mount a small /dev/shm with")
    command = [unshare, "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    command += ["sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"may not mount a small /dev/shm here: {tried.stderr.strip()}")
    return command


def test_a_small_dev_shm_is_no_limit(tmp_path: Path) -> None:
    """As in a container: the arena, and a guard's results of 100 MB, are several times its size."""
    with program(SMALL_SHM, tmp_path / "own", under=private_shm()) as running:
        exit_code, out, errors = running.ended()
    assert (exit_code, out.splitlines()) == (0, ["[True, True, True] True", "True True"]), errors


def shared_memory_files(pid: int) -> list[str]:
    """What of /dev/shm a process has mapped."""
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/dev/shm" in line]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_of_a_large_loader_or_guard_maps_anything_of_dev_shm() -> None:
    with millpond.Guard(num_workers=1, timeout=60) as guard:
        large = guard.call(np.full, (100, 1 << 20), 7, np.uint8)
        with make_loader(BallastDataset(total=800), num_workers=2, memory="400MiB") as loader:
            batch = next(iter(loader))
            assert loader.memory_plan().pond_slots * batch["ballast"].nbytes > 64 << 20
            callers = [worker.pid for worker in guard.statistics().workers if worker.pid is not None]
            pids = [os.getpid(), *loader.statistics().worker_pids, *callers]
            assert len(pids) == 4
            assert not [files for pid in pids if (files := shared_memory_files(pid))]
            del batch
    assert large[99, 99] == 7


def test_a_reader_that_hangs_in_c_costs_its_gop_and_the_next_batches_come(tmp_path: Path) -> None:
    dataset = HangingDataset(FakeDataset(gop=5), tmp_path, 203)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "stall_timeout": 0.5}
    with make_loader(cast(FakeDataset, dataset), num_workers=2, memory="300MiB", **options) as loader:
        delivered = sorted(sample for batch in take(loader) for sample in batch)
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert sorted({*range(400)} - {*delivered}) == sorted(line["sample"] for line in lines) == [*range(200, 205)]
    assert all("in hold_the_gil" in line["stack"] for line in lines)


def test_a_transform_that_hangs_in_c_costs_its_sample_and_the_next_batches_come(tmp_path: Path) -> None:
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "timeout": 0.7}
    transform = partial(hang_at, number=77)
    with make_loader(transform=transform, num_workers=2, memory="300MiB", **options) as loader:
        delivered = sorted(sample for batch in loader for sample in batch["index"].tolist())
    (line,) = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert delivered == [sample for sample in range(400) if sample != 77]
    assert (line["sample"], line["error"], "in hold_the_gil" in line["stack"]) == (77, "DecodeTimeout", True)


def test_a_hang_in_c_is_raised_with_its_stack_and_the_loader_goes_on_after_it(tmp_path: Path) -> None:
    dataset = HangingDataset(FakeDataset(), tmp_path, 203)
    with make_loader(cast(FakeDataset, dataset), num_workers=2, memory="300MiB", stall_timeout=0.5) as loader:
        with pytest.raises(errors.DecodeTimeout) as caught:
            take(loader)
        assert caught.value.limit_seconds == 0.5
        assert "in hold_the_gil" in caught.value.stack
        assert "in hold_the_gil" in "".join(caught.value.__notes__)
        assert len(next(iter(loader))["index"]) == 8
