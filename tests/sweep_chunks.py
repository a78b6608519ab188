"""Chunks of one job for tests of engines: what their commands do, and how a test learns that one is under way."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path

from millpond._sweep.orders import ChunkOrder

_BEGIN = """
import json, os, signal, subprocess, sys, time
jobs, metrics, place = sys.argv[1:]
(job,) = json.load(open(jobs))
def parent_of(pid):
    return int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
worker = parent_of(os.getppid())  # above the keeper
def report(**values):
    with open(metrics, "w") as file:
        json.dump({job: values}, file)
print("at", job, flush=True)
"""
REPORTS = """
blocked = [number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
report(worker=worker, niceness=os.nice(0), blocked=blocked)
"""
HANGS = """
report(steps=1)
subprocess.Popen(["setsid", "sleep", "60"])
open(place, "w").write("hangs")
time.sleep(60)
"""
KILLS_ITS_WORKER = "report(steps=1); os.kill(worker, signal.SIGKILL); time.sleep(60)"
TELLS_ITS_WORKER_TO_END = "report(steps=1); os.kill(worker, signal.SIGUSR2); time.sleep(60)"


def order_of(folder: Path, number: int, code: str) -> ChunkOrder:
    """A chunk of the job "job NUMBER", with its log, and its work folder, in a folder."""
    place = _place(folder, number)
    if not place.exists():
        os.mkfifo(place)
    name = f"job {number}"
    return ChunkOrder(
        number,
        (name,),
        (sys.executable, "-S", "-c", _BEGIN + textwrap.dedent(code), "{jobs}", "{metrics}", str(place)),
        {"jobs.json": json.dumps([name]).encode()},
        "jobs.json",
        work_folder=str(folder / f"work {number}"),
        log_path=str(folder / f"{number}.log"),
    )


def wait_until_it_hangs(folder: Path, number: int) -> None:
    """Until a chunk that HANGS does."""
    _place(folder, number).read_text()


def _place(folder: Path, number: int) -> Path:
    return folder / f"place {number}"
