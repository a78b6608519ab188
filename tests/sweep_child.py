"""A command that a sweep runs over its jobs: `python sweep_child.py JOBS METRICS`. Imports little, to start fast.

A job may say what it does beside reporting: {"name": "j1", "does": "kill"}. What it does `once` it does when it is run
for the first time: the folder SWEEP_MARKS remembers.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LEAK_BYTES = 24 << 20


def metrics_of(name: str) -> dict[str, Any]:
    """The same for a name in every process: floats that do not add up the same in every order."""
    numbers = random.Random(name)
    value = numbers.uniform(-1, 1) * 10 ** numbers.randint(-8, 8)
    return {"return": value, "success": numbers.random() < 0.5, "count": numbers.randint(1, 9), "group": name[-1]}


def act(name: str, does: str) -> None:
    """What a job does before it reports."""
    if does == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif does == "hang":
        print(f"{name} hangs", flush=True)
        time.sleep(60)
    elif does == "leave a process":
        subprocess.Popen(["sleep", "60"], start_new_session=True)
    elif does == "leak":
        # straight from C, as a simulator's: nothing of Python's can free it
        allocate = ctypes.CDLL(None).malloc
        allocate.restype = ctypes.c_void_p
        ctypes.memset(ctypes.c_void_p(allocate(ctypes.c_size_t(LEAK_BYTES))), 1, LEAK_BYTES)
    elif does.startswith("exit"):
        sys.exit(int(does.removeprefix("exit")))


def main(jobs_path: str, metrics_path: str) -> None:
    with open(metrics_path, "a", encoding="utf-8") as file:
        for job in json.loads(Path(jobs_path).read_text(encoding="utf-8"))["jobs"]:
            name, does = job["name"], job.get("does", "")
            if does.startswith("once "):
                mark = Path(os.environ["SWEEP_MARKS"], name)
                does = "" if mark.exists() else does.removeprefix("once ")
                mark.touch()
            act(name, does)
            for _ in range({"silent": 0, "twice": 2}.get(does, 1)):
                file.write(json.dumps({"name": name, "metrics": metrics_of(name)}) + "\n")
            file.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
