"""A sweep within a chunk of another one: its jobs run there and then, since a child never splits again."""

from __future__ import annotations

import traceback
from typing import Any

from millpond._sweep.cooperation import plain_metrics
from millpond._sweep.function_work import FunctionWork
from millpond._sweep.results import SummaryKeys, SweepResult, conclude
from millpond._sweep.runner import SOME_FAILED
from millpond._sweep.watching import Failure


def run_here(work: FunctionWork, keys: SummaryKeys) -> SweepResult:
    """Call the function for each job in this process."""
    metrics: dict[str, dict[str, Any]] = {}
    failures: list[Failure] = []
    for name, job in work.jobs.items():
        try:
            metrics[name] = plain_metrics(name, work.run_job(job) or {})
        except Exception:  # noqa: BLE001 - whatever it raises is what the sweep has to tell of this job
            failures.append(Failure(name, traceback.format_exc(), chunk=0, attempt=1, log=""))
            if work.stops:
                break
    return conclude(work, metrics, failures, keys, folder=None, exit_code=SOME_FAILED if failures else 0)
