"""Tables of a sweep's page: what was measured, what failed, how each chunk went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from millpond._observe.report import Cell, Table
from millpond._plan.chunks import JobState
from millpond._sweep.ledger_records import ChunkRecord, ChunkState, JobRecord

_MIB = 1 << 20
_MOST_ROWS = 300
"""Of a table; more than that is for programs to read."""
_MOST_LETTERS = 1500
"""Of a reason. What an error says stands at the end of its traceback: that end is kept."""

_STATISTICS = ("count", "mean", "std", "min", "max")


def results_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Statistics of each metric and success rates, of all jobs and then by group."""
    groups: Mapping[str, Any] = summary["groups"]
    metrics = [(name, row) for name, row in summary["metrics"].items()]
    success = [(name, row) for name, row in summary["success"].items()]
    grouped = [(group, name, row) for group, table in groups.items() for name, row in table["metrics"].items()]
    succeeded = [(group, name, row) for group, table in groups.items() for name, row in table["success"].items()]
    return [
        _statistics("Results", ("metric",), metrics),
        _rates("Success", ("metric",), success),
        _statistics("Results by group", ("group", "metric"), grouped),
        _rates("Success by group", ("group", "metric"), succeeded),
    ]


def failures_table(jobs: Sequence[JobRecord], chunks: Sequence[ChunkRecord]) -> Table:
    """Jobs that have failed, and why."""
    logs = {chunk.number: chunk.log for chunk in chunks}
    failed = [job for job in jobs if job.state is JobState.FAILED]
    rows: list[Sequence[Cell]] = [
        (job.name, job.chunk, job.attempt, _shortened(job.error), logs.get(job.chunk or 0, "")) for job in failed
    ]
    return _capped("Failures", ("job", "chunk", "attempt", "reason", "log"), rows, "summary.json")


def chunks_table(chunks: Sequence[ChunkRecord]) -> Table:
    """How each chunk went; those that did not end well first."""
    rows: list[Sequence[Cell]] = [
        (
            str(chunk.number),
            _how_it_went(chunk),
            len(chunk.names),
            chunk.attempt,
            None if chunk.duration_seconds is None else round(chunk.duration_seconds, 1),
            round(chunk.peak_pss_bytes / _MIB),
            round(chunk.peak_rss_bytes / _MIB),
            chunk.oom_kills,
            chunk.num_left_behind,
            chunk.log,
        )
        for chunk in sorted(chunks, key=lambda chunk: (_is_well(chunk), chunk.number))
    ]
    columns = ("chunk", "how it went", "jobs", "attempt", "seconds", "peak PSS, MiB", "peak RSS, MiB")
    return _capped("Chunks", (*columns, "OOM kills", "left behind", "log"), rows, "ledger.sqlite")


def _statistics(title: str, keys: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Table:
    """Rows of keys and what `summarize` says of a metric; columns that say nothing are left out."""
    has_weights = any("weighted" in row for *_, row in rows)
    has_nonfinite = any(row["nonfinite"] for *_, row in rows)
    columns = [*keys, "jobs", *_STATISTICS[1:]]
    columns += ["weighted mean", "weighted std"] if has_weights else []
    columns += ["not finite"] if has_nonfinite else []
    cells: list[Sequence[Cell]] = []
    for *names, row in rows:
        weighted = row.get("weighted", {})
        cells.append(
            [
                *names,
                *(row[statistic] for statistic in _STATISTICS),
                *((weighted.get("mean"), weighted.get("std")) if has_weights else ()),
                *((row["nonfinite"],) if has_nonfinite else ()),
            ]
        )
    return _capped(title, columns, cells, "summary.json")


def _rates(title: str, keys: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Table:
    has_weights = any("weighted" in row for *_, row in rows)
    columns = [*keys, "jobs", "true", "rate", *(["weighted rate"] if has_weights else [])]
    cells: list[Sequence[Cell]] = []
    for *names, row in rows:
        weighted = [row.get("weighted", {}).get("rate")] if has_weights else []
        cells.append([*names, row["count"], row["true"], row["rate"], *weighted])
    return _capped(title, columns, cells, "summary.json")


def _capped(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], where: str) -> Table:
    more = len(rows) - _MOST_ROWS
    caption = f"{more:,} more rows: all {len(rows):,} stand in {where}." if more > 0 else ""
    return Table(title, rows[:_MOST_ROWS], columns, caption)


def _is_well(chunk: ChunkRecord) -> bool:
    return chunk.state is ChunkState.ENDED and not chunk.reason


def _how_it_went(chunk: ChunkRecord) -> str:
    if chunk.state is ChunkState.ENDED:
        return _shortened(chunk.reason) or "ended well"
    return "the sweep was killed" if chunk.state is ChunkState.INTERRUPTED else "runs"


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MOST_LETTERS else f"… {text[-_MOST_LETTERS:]}"
