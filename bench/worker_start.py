"""What does a worker cost: start, memory before its first task, a task's overhead, a hang?

The workers' own machinery has no public name, so this bench goes to `millpond._workers` directly.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from _results import Results
from millpond._workers.cells import Cells, cells_bytes
from millpond._workers.descriptors import anonymous_file, close_all
from millpond._workers.messages import encode
from millpond._workers.supervisor import Supervisor
from millpond._workers.verdicts import TaskLimits
from millpond._workers.zygote import shutdown

PRELOAD = ("numpy", "av", "millpond._loader.work", "millpond._media.frames", "millpond._datasets.lerobot_reader")


def obey(payload: Any, progress: Callable[[], None]) -> Any:
    """Hang in C with the GIL held if told to."""
    if payload == "hang":
        import re

        re.match(r"(a+)+$", "a" * 60 + "b")
    return None


def open_workers(num_workers: int, preload: tuple[str, ...], **limits: Any) -> Supervisor:
    return Supervisor(encode(obey), num_workers=num_workers, preload=preload, **limits)


def starts_ms(preload: tuple[str, ...], repeats: int) -> list[float]:
    """From the request to the ready message, one worker at a time from a warm zygote."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        with open_workers(1, preload) as supervisor:
            supervisor.wait_until_ready()
            found.append((time.perf_counter() - began) * 1e3)
    return found


def pss_mib(preload: tuple[str, ...], num_workers: int) -> list[float]:
    """Of each worker, ready and without a task so far; what it shares with zygote and siblings counts in part."""
    with open_workers(num_workers, preload) as supervisor:
        supervisor.wait_until_ready()
        pids = [worker.pid for worker in supervisor.statistics().workers]
        return [psutil.Process(pid).memory_full_info().pss / 2**20 for pid in pids]


def task_cpu_us(preload: tuple[str, ...], tasks: int) -> tuple[float, float]:
    """CPU and wall-clock of this process for an empty task with a payload of 1 kB, two workers."""
    payload = ("front", list(range(100)), "x" * 700)
    with open_workers(2, preload) as supervisor:
        supervisor.wait_until_ready()
        sent = done = 0
        cpu, wall = time.process_time(), time.perf_counter()
        while done < tasks:
            while sent < tasks and supervisor.capacity:
                supervisor.submit(sent, payload)
                sent += 1
            done += len(supervisor.wait(30))
        return (time.process_time() - cpu) / tasks * 1e6, (time.perf_counter() - wall) / tasks * 1e6


def recoveries_ms(preload: tuple[str, ...], repeats: int, limit_seconds: float = 0.1) -> list[float]:
    """From the moment a hang passes its limit: stack dump, death, successor, and the answer of its first task."""
    found = []
    for _ in range(repeats):
        with open_workers(1, preload, limits=TaskLimits(stall_timeout_seconds=limit_seconds)) as supervisor:
            supervisor.wait_until_ready()
            supervisor.submit(0, "hang")
            supervisor.submit(1, "hang")
            began = time.perf_counter()
            while not supervisor.wait(30):
                pass
            found.append((time.perf_counter() - began - 2 * limit_seconds) * 1e3 / 2)
    return found


def progress_us(calls: int) -> float:
    """One call of progress()."""
    file = anonymous_file("millpond-bench", cells_bytes(1))
    _, progress = Cells(file, 1).recorder(0)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(calls):
            progress()
        best = min(best, time.perf_counter() - began)
    close_all([file])
    return best / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--preload", nargs="*", default=list(PRELOAD))
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--hangs", type=int, default=10)
    parser.add_argument("--calls", type=int, default=200_000, help="of progress()")
    parser.add_argument("--json", type=Path, help="JSON goes here, too")
    given = parser.parse_args()
    logging.getLogger("millpond").setLevel(logging.ERROR)  # not a stack for each worker that hangs
    preload = tuple(given.preload)
    cold = starts_ms(preload, 1)[0]
    cpu_us, wall_us = task_cpu_us(preload, given.tasks)
    settings = {
        "preload": preload,
        "repeats": given.repeats,
        "tasks": given.tasks,
        "hangs": given.hangs,
        "calls": given.calls,
    }
    results = Results("worker_start", "what a worker costs: start, memory, a task, a hang", settings)
    results.add("start", "cold zygote", "start_ms", "ms", [cold])
    results.add("start", "warm zygote", "start_ms", "ms", starts_ms(preload, given.repeats))
    for count in (1, 2, 4):
        results.add("PSS before the first task", f"workers: {count}", "pss_mib", "MiB", pss_mib(preload, count))
    results.add("a task", "CPU in the parent", "us_per_task", "us", [cpu_us])
    results.add("a task", "wall clock", "us_per_task", "us", [wall_us])
    results.add("a hang", "limit passed to successor ready", "hang_ms", "ms", recoveries_ms(preload, given.hangs))
    results.add("a task", "a call of progress()", "us_per_call", "us", [progress_us(given.calls)])
    shutdown()
    results.publish(given.json)


if __name__ == "__main__":
    main()
