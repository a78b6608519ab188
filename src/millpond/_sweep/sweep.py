"""`millpond.sweep`, and what it shares with the command line."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from millpond._interrupts import told_of
from millpond._sweep.engines.choice import EngineChoice
from millpond._sweep.function_work import FunctionWork
from millpond._sweep.log import SweepLog
from millpond._sweep.options import SweepOptions
from millpond._sweep.out_folder import OutFolder, claim_default_path
from millpond._sweep.results import SummaryKeys, SweepResult, write_results
from millpond._sweep.resuming import check_unchanged, open_ledger
from millpond._sweep.runner import SweepRun
from millpond._sweep.sweep_here import run_here
from millpond._sweep.variables import CHUNK_VARIABLE
from millpond._sweep.watching import Watcher
from millpond._sweep.work import Work
from millpond.errors import UsageError

_FORMER_SWEEP_SECONDS = 30.0
"""How long a resumed sweep waits for processes of one that was killed; their keepers end them at once."""


def sweep(
    jobs: Sequence[Any],
    run_job: Callable[[Any], Mapping[str, Any] | None],
    *,
    chunk_size: int | str = "auto",
    max_rss: float | str | None = None,
    parallel: int | None = None,
    timeout: float | str | None = None,
    retries: int = 0,
    bisect: bool = False,
    on_error: str = "stop",
    grace: float | str = 10.0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    name_key: str = "name",
    weight_key: str = "count",
    group_by: str = "group",
    engine: str = "local",
    engine_options: Mapping[str, Any] | None = None,
) -> SweepResult:
    """Call a function for each job, in a fresh process for each chunk of jobs: what leaks below Python goes with it.

    Metrics are written down as each job ends, in a ledger that survives `kill -9`; the logger "millpond.sweep" tells
    of each chunk. In a process that is itself a chunk of a sweep nothing is split again: the jobs are run there and
    then, and no folder is written.

    Args:
        jobs: Any values that pickle. A text or a whole number is its own name, that of a mapping stands under
            `name_key`, others are called job-00000, job-00001, ... by their place.
        run_job: Takes a job and gives its metrics: numbers, bools, texts, or lists and mappings of them, by name; or
            None. It may come from `__main__` or a notebook: it travels by value.
        chunk_size: Jobs of a chunk; "auto": as many as have room in `max_rss`, learned from how memory grows.
        max_rss: Budget for the process tree of a chunk, as summed PSS (shared pages counted once): a number of bytes
            or a text such as "8GiB". When the next job might pass it, a fresh process goes on. None: no limit, or with
            "auto" half of the free memory, over `parallel`.
        parallel: Chunks at a time. None: one here, and as many as a cluster has room for.
        timeout: Seconds that a job may take, or a text such as "10m"; its process is killed then. None: no limit.
        retries: How often a job that failed is tried again.
        bisect: Whether jobs whose process died are tried in smaller chunks until the one that kills it is found. (A
            function's jobs tell when they begin, so that the one that was at work is tried alone at once.)
        on_error: "stop": begin nothing new after the first failure, and raise. "continue": all jobs get their turn.
        grace: Seconds from SIGTERM to SIGKILL for processes that are to end.
        out: Folder for metrics.json, summary.json, ledger.sqlite, logs and report.html; `sweep-<time>` if not given.
        resume: Whether `out` may hold this sweep already: jobs that are done are not run again.
        allow_changes: Whether a resumed sweep may have other jobs or another function; jobs that are done stay done.
        name_key: Key of a job's name.
        weight_key: A metric that says how many episodes a job's other metrics stand for; means are weighted by it.
        group_by: Key of a job, or of its metrics, by which the summary has a table for each value.
        engine: "local"; "ray": each chunk a task in a worker process of its own; "slurm": chunks as a job array.
        engine_options: For "ray": address, num_cpus, num_gpus, ... For "slurm": cluster, and submitit's parameters.

    Returns:
        Metrics by job, their summary, failures, and the folder.

    Raises:
        ValueError: An argument that cannot work, no jobs, or two of one name; before anything runs.
        JobFailed: A job failed, and `on_error` is "stop".
        UsageError: `out` holds another sweep, or this one, and `resume` does not say so; or `resume` without `out`.
        KeyboardInterrupt: Ctrl-C; what was done is in the folder.
    """
    options = SweepOptions.of(
        chunk_size=chunk_size,
        max_rss=max_rss,
        parallel=parallel,
        timeout=timeout,
        retries=retries,
        bisect=bisect,
        on_error=on_error,
        grace=grace,
    )
    work = FunctionWork.of(jobs, run_job, stops=options.stop_on_error, name_key=name_key)
    keys = SummaryKeys(weight_key, group_by)
    choice = EngineChoice(engine, parallel, engine_options or {})
    if CHUNK_VARIABLE in os.environ:
        result = run_here(work, keys)
    else:
        result = run_sweep(
            work,
            options,
            choice,
            keys,
            out=out,
            resume=resume,
            allow_changes=allow_changes,
            watcher=SweepLog(),
            signals=(signal.SIGINT,),
        )
        if result.interrupted_by is not None:
            raise KeyboardInterrupt
    if options.stop_on_error:
        result.raise_for_failures()
    return result


def run_sweep(
    work: Work,
    options: SweepOptions,
    choice: EngineChoice,
    keys: SummaryKeys,
    *,
    out: str | os.PathLike[str] | None,
    resume: bool,
    allow_changes: bool,
    watcher: Watcher,
    signals: Sequence[int],
) -> SweepResult:
    """Run a sweep in its folder, and write down what it came to; arguments as for `sweep`.

    Args:
        work: What there is to do.
        options: How.
        choice: Where.
        keys: Of the summary.
        signals: That end the sweep while it runs.

    Raises:
        UsageError: A folder that cannot be swept into, or none that is to be resumed.
    """
    if resume and out is None:
        raise UsageError("resume=True needs out=: say which folder holds the sweep that is to go on")
    path = claim_default_path(datetime.now(), Path.cwd()) if out is None else Path(out)
    folder = OutFolder(path)
    folder.open(resume=resume, patience_seconds=_FORMER_SWEEP_SECONDS if resume else 0.0)
    with folder:
        if not allow_changes:
            check_unchanged(folder, work)
        run = SweepRun(work, options, folder, watcher, os.getcwd())
        began = time.monotonic()
        with (
            told_of(signals, run.interrupt),
            closing(choice.make(folder, run.looked, run.printed if watcher.wants_output else None)) as engine,
            open_ledger(folder, work) as ledger,
        ):
            run.run(engine, ledger)
            seconds = time.monotonic() - began
            return write_results(
                run, work, ledger, folder, keys, wall_seconds=seconds, budget_bytes=options.budget_bytes
            )
