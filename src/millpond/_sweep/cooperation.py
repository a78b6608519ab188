"""What a user's own script takes from a sweep that runs it: its jobs one by one, and a place for their metrics."""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from millpond._observe.memory import tree_memory
from millpond._sweep.job_names import job_name
from millpond._sweep.jobs_file import read_jobs_file
from millpond._sweep.json_text import fault_of, parse_json
from millpond._sweep.progress import ChildSettings, ProgressWriter, append_line
from millpond._sweep.variables import CHILD_VARIABLE, JOBS_VARIABLE, METRICS_VARIABLE
from millpond.errors import UsageError


def sweep_jobs(
    jobs: str | os.PathLike[str] | Sequence[Any] | None = None, *, jobs_key: str = "jobs", name_key: str = "name"
) -> Iterator[Any]:
    """Hand out the jobs of this chunk, one by one, until the memory budget is reached; then stop.

    Under `millpond sweep` these are the chunk's jobs, and the sweep is told when each begins and ends. The budget is
    `--max-rss`, against the summed PSS (proportional set size) of this process and everything below it: before each job
    but the first of a chunk, what is in use plus the greatest growth that a job has brought so far has to lie within
    it. Jobs that are not handed out go to a fresh process. Elsewhere all jobs are handed out.

    Args:
        jobs: Where the script does not run under `millpond sweep`: the path of a jobs file, or the jobs themselves.
        jobs_key: Top-level key of the list in that file.
        name_key: Key of a job's name.

    Yields:
        Each job as it stands in the file. One is over when the next is asked for: report its metrics before.

    Raises:
        UsageError: Neither `$MILLPOND_JOBS` nor `jobs` says which jobs.
        ValueError: A jobs file that cannot be used.
    """
    text = os.environ.get(CHILD_VARIABLE)
    path = os.environ.get(JOBS_VARIABLE)
    if text is None or path is None:
        yield from _all_jobs(path, jobs, jobs_key, name_key)
        return
    settings = ChildSettings.from_json(text)
    file = read_jobs_file(Path(path), jobs_key=settings.jobs_key or jobs_key, name_key=settings.name_key)
    writer = ProgressWriter(settings.progress_path)
    for name, job in handed_out(list(zip(file.names, file.jobs, strict=True)), settings.budget_bytes, writer):
        yield job
        writer.over(name)


def _all_jobs(
    path: str | None, jobs: str | os.PathLike[str] | Sequence[Any] | None, jobs_key: str, name_key: str
) -> Sequence[Any]:
    if path is not None or isinstance(jobs, str | os.PathLike):
        return read_jobs_file(Path(path or os.fspath(jobs)), jobs_key=jobs_key, name_key=name_key).jobs  # type: ignore[arg-type]
    if jobs is None:
        raise UsageError(
            "there are no jobs to hand out: this is no child of `millpond sweep` ($MILLPOND_JOBS is not set); "
            "give sweep_jobs() the path of a jobs file, or a list"
        )
    return jobs


def handed_out(
    jobs: Sequence[tuple[str, Any]], budget_bytes: int | None, writer: ProgressWriter
) -> Iterator[tuple[str, Any]]:
    """Yield names and jobs, tell that each begins, and stop where the next one might pass the budget."""
    growth = _Growth(budget_bytes)
    for position, (name, job) in enumerate(jobs):
        if position > 0 and not growth.leaves_room():
            writer.given_back()
            return
        writer.begun(name)
        yield name, job


class _Growth:
    """How much more memory this process tree has after each job."""

    def __init__(self, budget_bytes: int | None) -> None:
        self._budget_bytes = budget_bytes
        self._last_bytes = self._look()
        self._greatest_bytes = 0

    def leaves_room(self) -> bool:
        """Look after a job: whether another one like the hungriest so far has room."""
        if self._budget_bytes is None:
            return True
        now = self._look()
        self._greatest_bytes = max(self._greatest_bytes, now - self._last_bytes)
        self._last_bytes = now
        return now + self._greatest_bytes <= self._budget_bytes

    def _look(self) -> int:
        return 0 if self._budget_bytes is None else tree_memory().pss_bytes


def report_metrics(job: Any, metrics: Mapping[str, Any]) -> None:
    """Give a job's metrics to the sweep that runs this script; at once, so that they outlive what comes after.

    Appends a line to `$MILLPOND_METRICS`; where that is not set the metrics are looked at, and go nowhere.

    Args:
        job: The job as `sweep_jobs` gave it, or its name.
        metrics: Numbers, bools, texts, lists or mappings of them, by name; numpy's scalars and tensors of one element
            are taken for the numbers they hold.

    Raises:
        ValueError: A value that JSON has no word for; names the job and the metric.
    """
    path = os.environ.get(METRICS_VARIABLE)
    if not path:
        plain_metrics(str(job), metrics)
        return
    text = os.environ.get(CHILD_VARIABLE)
    name_key = "name" if text is None else ChildSettings.from_json(text).name_key
    append_line(path, record_line(job_name(job, 0, name_key), metrics, name_key))


def record_line(name: str, metrics: Mapping[str, Any], name_key: str) -> bytes:
    """One job's metrics as a line of JSON."""
    return json.dumps({name_key: name, "metrics": plain_metrics(name, metrics)}).encode() + b"\n"


def plain_metrics(name: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A job's metrics as JSON has them."""
    try:
        by_name = dict(metrics)
    except (TypeError, ValueError):
        kind = type(metrics).__name__
        raise ValueError(
            f"the metrics of job {name!r} are {metrics!r:.60} ({kind}): give a mapping, such as {{'return': 0.3}}"
        ) from None
    try:
        plain: dict[str, Any] = parse_json(json.dumps(by_name, default=_plain))
        if fault := fault_of(plain):  # the keys 1 and "1" are one in JSON
            raise ValueError(fault)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metrics of job {name!r} cannot be reported: {error}") from None
    return plain


def exception_in_words(error: BaseException) -> str:
    """Class and message, as the last lines of a traceback have them."""
    return "".join(traceback.format_exception_only(error)).strip()


def _plain(value: Any) -> Any:
    """What an array or tensor holds: a number where it is one, else lists."""
    tolist = getattr(value, "tolist", None)
    if not callable(tolist):
        raise TypeError(f"{type(value).__name__} is no number, bool, text, list or mapping")
    return value.item() if math.prod(getattr(value, "shape", (0,))) == 1 else tolist()
