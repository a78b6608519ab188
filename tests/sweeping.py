"""Sweeps for tests: a jobs file, the command line over it, and what it left."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sweep_child

# No site packages: a child starts in a third of the time.
COMMAND = (sys.executable, "-I", "-S", str(Path(sweep_child.__file__)), "{jobs}", "{metrics}")


def write_jobs(folder: Path, count: int, does: Mapping[int, str] | None = None, **beside: Any) -> Path:
    """`jobs.json` with job-0, job-1, ...; `does` says what some of them do, `beside` are other keys of the file."""
    acts = does or {}
    jobs = [{"name": f"job-{number}"} | ({"does": acts[number]} if number in acts else {}) for number in range(count)]
    path = folder / "jobs.json"
    path.write_text(json.dumps({**beside, "jobs": jobs}), encoding="utf-8")
    return path


def sweep_arguments(*options: str, command: Sequence[str] = COMMAND) -> list[str]:
    """Of `python`."""
    return ["-m", "millpond", "sweep", "jobs.json", *options, *(["--", *command] if command else [])]


def run_sweep(
    folder: Path, *options: str, command: Sequence[str] = COMMAND, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `millpond sweep` over a folder's jobs to its end."""
    return subprocess.run(
        [sys.executable, *sweep_arguments(*options, command=command)],
        cwd=folder,
        env={**os.environ, "SWEEP_MARKS": str(folder)},
        input=given,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def summary_of(out: Path) -> dict[str, Any]:
    """`summary.json` of a sweep's folder."""
    found: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return found


def chunks_of(out: Path, columns: str = "names") -> list[Any]:
    """Columns of the ledger's chunks, in order; names as lists."""
    ledger = sqlite3.connect(out / "ledger.sqlite")
    try:
        rows = ledger.execute(f"SELECT {columns} FROM chunks ORDER BY number").fetchall()
    finally:
        ledger.close()
    return [json.loads(row[0]) if columns == "names" else row for row in rows]
