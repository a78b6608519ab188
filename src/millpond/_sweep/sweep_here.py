"""A sweep within a chunk of another one: its jobs run there and then, since a child never splits again."""

from __future__ import annotations

import traceback
from typing import Any

from millpond._sweep.cooperation import exception_in_words, plain_metrics
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
            found = work.run_job(job)
            metrics[name] = plain_metrics(name, {} if found is None else found)
        except Exception as error:  # noqa: BLE001 - whatever it raises is what the sweep has to tell of this job
            traceback.print_exc()
            failures.append(Failure(name, exception_in_words(error), chunk=0, attempt=1, log=""))
            if work.stops:
                break
    return conclude(work, metrics, failures, keys, folder=None, exit_code=SOME_FAILED if failures else 0)
