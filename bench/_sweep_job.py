"""What sweeps of the benches run: `python _sweep_job.py JOBS METRICS [MARKS]`, with the standard library alone.

A job may leak ("leak_bytes", taken from C, so that nothing of Python's gives them back), take a while ("seconds", after
the leak) and always reports. MARKS is a file to which each job's beginning and its report are appended, a line each.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def act(job: dict[str, Any]) -> None:
    """What a job does before it reports."""
    if num_bytes := job.get("leak_bytes", 0):
        import ctypes  # only where it is needed, as this is to start fast

        allocate = ctypes.CDLL(None).malloc
        allocate.restype = ctypes.c_void_p
        ctypes.memset(ctypes.c_void_p(allocate(ctypes.c_size_t(num_bytes))), 1, num_bytes)
    if seconds := job.get("seconds", 0.0):
        time.sleep(seconds)


def metrics_of(name: str) -> dict[str, Any]:
    """The same for a name in every process: floats whose sum depends on their order."""
    bits = zlib.crc32(name.encode())
    value = (bits / 2**31 - 1) / 3 * 10.0 ** (bits % 17 - 8)
    return {"return": value, "success": bits % 2 == 0, "count": 1 + bits % 9, "group": name[-1]}


def resident_bytes() -> int:
    """RSS of this process; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


def reported(job: dict[str, Any]) -> dict[str, Any]:
    """What a leaking job measures is its process, and what another one does is made up."""
    return {"rss_bytes": resident_bytes()} if "leak_bytes" in job else metrics_of(job["name"])


def append(path: str, line: str) -> None:
    """In one piece: whoever kills this process finds the line, or nothing of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def main(jobs_path: str, metrics_path: str, marks_path: str = os.devnull) -> None:
    with open(jobs_path, encoding="utf-8") as file:
        jobs = json.load(file)["jobs"]
    for job in jobs:
        append(marks_path, f"begun {job['name']}")
        act(job)
        append(metrics_path, json.dumps({"name": job["name"], "metrics": reported(job)}))
        append(marks_path, f"reported {job['name']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
