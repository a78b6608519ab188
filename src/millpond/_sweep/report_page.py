"""`report.html` of a sweep: what was measured, what failed, and the memory of its chunks."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from millpond._observe.report import Report, Table, render_report
from millpond._plan.chunks import JobState
from millpond._sweep.ledger import Ledger
from millpond._sweep.ledger_records import ChunkRecord, JobRecord
from millpond._sweep.out_folder import OutFolder
from millpond._sweep.report_charts import jobs_over_time, memory_over_time, peak_of_each_chunk, slots_over_time
from millpond._sweep.report_tables import chunks_table, failures_table, results_tables


def write_report_page(
    out: OutFolder,
    ledger: Ledger,
    summary: Mapping[str, Any],
    wall_seconds: float,
    *,
    budget_bytes: int | None = None,
) -> None:
    """Write the page of a sweep into its folder.

    Args:
        out: Open.
        ledger: Of the sweep.
        summary: `metrics`, `success` and `groups` as `summarize` gives them.
        wall_seconds: That the sweep took, this time.
        budget_bytes: Of each chunk; None: it had none.
    """
    report = sweep_report(
        f"millpond sweep {out.path.name}",
        ledger.jobs(),
        ledger.chunks(),
        summary,
        ledger.facts,
        wall_seconds=wall_seconds,
        budget_bytes=budget_bytes,
    )
    out.write(out.report_path, render_report(report))


def sweep_report(
    title: str,
    jobs: Sequence[JobRecord],
    chunks: Sequence[ChunkRecord],
    summary: Mapping[str, Any],
    facts: Mapping[str, str],
    *,
    wall_seconds: float,
    budget_bytes: int | None,
) -> Report:
    """What the page shows; arguments as for `write_report_page`."""
    charts = (
        jobs_over_time(jobs, chunks),
        memory_over_time(chunks, budget_bytes),
        slots_over_time(chunks),
        peak_of_each_chunk(chunks, budget_bytes),
    )
    return Report(
        title=title,
        subtitle=f"{len(jobs):,} jobs, a fresh process for each chunk of them.",
        headlines=_headlines(jobs, chunks, wall_seconds, budget_bytes),
        charts=[chart for chart in charts if chart],
        tables=[
            *results_tables(summary),
            failures_table(jobs, chunks),
            chunks_table(chunks),
            Table("The sweep", _facts_shown(facts)),
        ],
    )


def _headlines(
    jobs: Sequence[JobRecord], chunks: Sequence[ChunkRecord], wall_seconds: float, budget_bytes: int | None
) -> dict[str, str]:
    states = Counter(job.state for job in jobs)
    left = states[JobState.PENDING] + states[JobState.RUNNING]
    peak = max((chunk.peak_pss_bytes for chunk in chunks), default=0)
    budget = f" of {_mebibytes(budget_bytes)}" if budget_bytes is not None else ""
    shown = {
        "jobs done": f"{states[JobState.DONE]:,} of {len(jobs):,}",
        "failed": f"{states[JobState.FAILED]:,}" if states[JobState.FAILED] else "",
        "left to do": f"{left:,}" if left else "",
        "chunks": f"{len(chunks):,}",
        "peak memory of a chunk": f"{_mebibytes(peak)}{budget} MiB" if peak else "",
        "wall time": _duration(wall_seconds),
    }
    return {name: text for name, text in shown.items() if text}


def _facts_shown(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """As people write them: a command as for a shell, and digests called what they are."""
    words = {"jobs file": "SHA-256 of the jobs file", "jobs": "SHA-256 of the jobs"}
    shown = {**facts, **{name: shlex.join(json.loads(facts[name])) for name in ("command",) if name in facts}}
    return [(words.get(name, name), text) for name, text in shown.items()]


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
