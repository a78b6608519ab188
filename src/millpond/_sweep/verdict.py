"""What a chunk's end says of its jobs: read from its metrics, from what it told of its progress, and its exit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millpond._plan.chunks import ChunkEnd
from millpond._sweep.exits import exit_in_words
from millpond._sweep.orders import ChunkOrder, ChunkOutcome, EndedBy
from millpond._sweep.progress import Progress
from millpond._sweep.reports import Reports, read_reports

REPORTED_NOTHING = "reported nothing, though its process ended well"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of a chunk.

    Attributes:
        end: For the plan.
        metrics: Of the jobs that are done.
        seconds: How long jobs took, where the child told.
        warning: What is odd about its metrics file, and is no job's fault; "" if nothing.
    """

    end: ChunkEnd
    metrics: Mapping[str, Mapping[str, Any]]
    seconds: Mapping[str, float]
    warning: str = ""


def judge(order: ChunkOrder, outcome: ChunkOutcome, *, must_report: bool) -> Verdict:
    """Say which jobs of a chunk are done, and what is wrong with the others."""
    is_clean = outcome.exit_code == 0 and outcome.ended_by is EndedBy.ITSELF
    progress = Progress()
    progress.feed(outcome.progress)
    reports = read_reports(outcome.metrics, order.names, name_key=order.name_key, may_be_cut=not is_clean)
    reason = "" if is_clean else exit_in_words(outcome)
    if is_clean and _left_amid_job(progress, reports):
        is_clean, reason = False, f"{exit_in_words(outcome)} before its job was over"
    metrics = dict(reports.metrics)
    if not must_report and not outcome.metrics:
        metrics = {name: {} for name in _done_without_metrics(order, progress, is_clean=is_clean)}
    metrics = {name: metrics[name] for name in order.names if name in metrics and name not in progress.failures}
    errors = {**reports.errors, **progress.failures}
    if is_clean:
        begun_or_due = progress.begun if progress.is_drained else order.names
        silent = [name for name in begun_or_due if name not in metrics and name not in errors]
        errors |= dict.fromkeys(silent, _why_silent(reports))
    end = ChunkEnd(
        done=frozenset(metrics),
        errors=errors,
        is_clean=is_clean,
        reason=reason,
        is_over_budget=outcome.ended_by is EndedBy.BUDGET,
        is_drained=progress.is_drained,
        cooperates=progress.cooperates,
        current=progress.current,
        peak_bytes=max(outcome.peak_pss_bytes, outcome.peak_rss_bytes),
    )
    return Verdict(end, metrics, progress.seconds, _warning(reports))


def _left_amid_job(progress: Progress, reports: Reports) -> bool:
    """Whether a process ended in a job it had told of, such as by `sys.exit()`: its other jobs have no part in that."""
    name = progress.current
    return bool(name) and name not in reports.metrics and name not in reports.errors


def _done_without_metrics(order: ChunkOrder, progress: Progress, *, is_clean: bool) -> list[str]:
    """Where nobody asked for metrics: the jobs that the child told are over, or all where it tells nothing."""
    if progress.cooperates:
        return [name for name in order.names if name in progress.seconds]
    return list(order.names) if is_clean else []


def _why_silent(reports: Reports) -> str:
    what_it_reported = _warning(reports)
    return f"{REPORTED_NOTHING}: {what_it_reported}" if what_it_reported else REPORTED_NOTHING


def _warning(reports: Reports) -> str:
    if not reports.strangers:
        return reports.problem
    names = ", ".join(map(repr, reports.strangers[:5]))
    return f"its metrics are of names that are no jobs of this chunk, and were left out: {names}"
