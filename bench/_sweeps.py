"""Sweeps for benches: jobs files, the command line over them, and what its ledger says of the chunks."""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
JOB = (sys.executable, "-I", "-S", str(FOLDER / "_sweep_job.py"), "{jobs}", "{metrics}")
"""A command that imports little, to start fast."""
SCRIPT = (sys.executable, str(FOLDER / "_sweep_script.py"))


@dataclass(frozen=True)
class SweptChunk:
    """A chunk, as the ledger has it.

    Attributes:
        names: Of its jobs.
        num_done: How many of them it got through.
        began_at: Seconds since the epoch.
        seconds: From its start to its end; None where the sweep was killed.
        peak_rss_bytes: Greatest RSS of any one process of it, as the kernel kept it.
    """

    names: tuple[str, ...]
    num_done: int
    began_at: float
    seconds: float | None
    peak_rss_bytes: int


@contextmanager
def bench_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="millpond-bench-", dir=parent) as folder:
        yield Path(folder)


def write_jobs(path: Path, count: int, **each: Any) -> Path:
    """A jobs file with job-000, job-001, ...; `each` is what every job has beside its name."""
    jobs = [{"name": f"job-{number:03d}", **each} for number in range(count)]
    path.write_text(json.dumps({"jobs": jobs}), encoding="utf-8")
    return path


def sweep_argv(jobs: Path, out: Path, *options: str, command: Sequence[str] = JOB) -> list[str]:
    """`millpond sweep`, by the interpreter that runs this."""
    return [
        *(sys.executable, "-m", "millpond", "sweep", str(jobs), "--out", str(out), "--quiet"),
        *options,
        *("--", *command),
    ]


def chunks_of(out: Path) -> list[SweptChunk]:
    """All that began, in order."""
    with closing(sqlite3.connect(out / "ledger.sqlite")) as ledger:
        done = dict(ledger.execute("SELECT chunk, count(*) FROM jobs WHERE state = 'done' GROUP BY chunk"))
        columns = "number, names, began_at, duration_seconds, peak_rss_bytes"
        rows = ledger.execute(f"SELECT {columns} FROM chunks ORDER BY number").fetchall()
    return [SweptChunk(tuple(json.loads(names)), done.get(number, 0), *rest) for number, names, *rest in rows]


def summary(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Median, range, and how far they are apart, over the median."""
    median = statistics.median(values)
    return {
        "median": round(median, digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
        "spread": round((max(values) - min(values)) / median, 4) if median else 0.0,
        "count": len(values),
    }
