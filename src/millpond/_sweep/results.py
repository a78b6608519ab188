"""What a sweep came to, and the files that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millpond._sweep.ledger import Ledger
from millpond._sweep.out_folder import OutFolder
from millpond._sweep.report_page import write_report_page
from millpond._sweep.runner import SweepRun
from millpond._sweep.summary import merged_json, pretty_json, summarize
from millpond._sweep.watching import Counts, Failure
from millpond._sweep.work import Work
from millpond.errors import JobFailed


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        folder: Holds metrics.json, summary.json, ledger.sqlite, logs and report.html; None where a chunk of another
            sweep ran the jobs itself.
        metrics: Of each job that is done, by name, sorted.
        summary: Count, mean, std, min and max of each metric, success rates, groups, failures: as in summary.json.
        counts: Jobs by state.
        failures: Jobs that failed, and chunks that ended badly though their jobs were done.
        exit_code: 0 where all is done and well; else as `millpond sweep` ends.
        interrupted_by: The signal that ended the sweep; None where none did.
    """

    folder: Path | None
    metrics: Mapping[str, Mapping[str, Any]]
    summary: Mapping[str, Any]
    counts: Counts
    failures: tuple[Failure, ...]
    exit_code: int
    interrupted_by: int | None = None

    def raise_for_failures(self) -> None:
        """Do nothing if all went well.

        Raises:
            JobFailed: Something did not; names the first failure, and where the results and logs are.
        """
        if not self.failures:
            return
        first = self.failures[0]
        what = f"job {first.job!r}" if first.job else f"chunk {first.chunk}"
        more = f" ({len(self.failures)} failures in all)" if len(self.failures) > 1 else ""
        done = f"{self.counts.done} of {self.counts.total} jobs are done"
        where = "" if self.folder is None else f"; metrics and logs: '{self.folder}'; resume=True runs what is not done"
        raise JobFailed(
            f"{what} failed{more}: {first.reason.strip()}\n{done}{where}",
            job=first.job,
            chunk=first.chunk,
            folder=None if self.folder is None else str(self.folder),
            exit_code=self.exit_code,
        )


@dataclass(frozen=True, slots=True)
class SummaryKeys:
    """What a summary goes by.

    Attributes:
        weight: A metric that says how many episodes a job's other metrics stand for.
        group: Key of a job, or of its metrics, by which there is a table for each value.
    """

    weight: str = "count"
    group: str = "group"


def conclude(
    work: Work,
    metrics: Mapping[str, Mapping[str, Any]],
    failures: Sequence[Failure],
    keys: SummaryKeys,
    *,
    folder: Path | None,
    exit_code: int,
    interrupted_by: int | None = None,
) -> SweepResult:
    """Put together what a sweep came to."""
    failed = sum(1 for failure in failures if failure.job)
    counts = Counts(len(work.names), len(metrics), failed)
    summary = {
        "counts": {"total": counts.total, "done": counts.done, "failed": counts.failed, "left": counts.left},
        **summarize(metrics, jobs=work.jobs, weight_key=keys.weight, group_by=keys.group),
        "failures": [
            {"job": failure.job, "chunk": failure.chunk, "attempt": failure.attempt, "reason": failure.reason}
            for failure in failures
        ],
    }
    return SweepResult(
        folder, dict(sorted(metrics.items())), summary, counts, tuple(failures), exit_code, interrupted_by
    )


def write_results(
    run: SweepRun,
    work: Work,
    ledger: Ledger,
    out: OutFolder,
    keys: SummaryKeys,
    *,
    wall_seconds: float,
    budget_bytes: int | None,
) -> SweepResult:
    """Write metrics.json, summary.json and report.html."""
    metrics = ledger.metrics()
    result = conclude(
        work,
        metrics,
        run.failures,
        keys,
        folder=out.path,
        exit_code=run.exit_code,
        interrupted_by=run.interrupted_by,
    )
    out.write(out.metrics_path, merged_json(metrics))
    out.write(out.summary_path, pretty_json(result.summary))
    write_report_page(out, ledger, result.summary, wall_seconds, budget_bytes=budget_bytes)
    return result
