"""A function over jobs: each chunk of them is a command that calls it in a fresh process."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from millpond._guard.functions import name_of, send_main_by_value
from millpond._sweep.job_names import check_unique, job_name
from millpond._sweep.work import digest
from millpond._workers.surroundings import absolute_sys_path

_JOBS_FILE, _FUNCTION_FILE = "jobs.pickle", "function.pickle"


@dataclass(frozen=True)
class FunctionWork:
    """A function and its jobs.

    Attributes:
        run_job: Takes a job, gives its metrics, or None.
        jobs: By name, in order.
        stops: Whether a chunk ends at the first job that raises.
        name_key: Key of the name of a job that is a mapping.
    """

    run_job: Callable[[Any], Mapping[str, Any] | None]
    jobs: Mapping[str, Any]
    stops: bool
    name_key: str = "name"
    _pickled: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        send_main_by_value()
        object.__setattr__(self, "_pickled", _pickled_function(self.run_job))

    @classmethod
    def of(
        cls, jobs: Sequence[Any], run_job: Callable[[Any], Mapping[str, Any] | None], *, stops: bool, name_key: str
    ) -> FunctionWork:
        """Name jobs: a text or whole number is its own name, a mapping's stands under `name_key`, others are numbered.

        Raises:
            ValueError: No jobs, or two of one name.
            TypeError: `run_job` cannot be called, or cannot be pickled, or `jobs` is a mapping or a text.
        """
        if not callable(run_job):
            raise TypeError(f"run_job= is {run_job!r}, and has to be a function of one job")
        if isinstance(jobs, str | bytes | Mapping):
            raise TypeError("jobs= has to be a list of jobs; for a jobs file use `millpond sweep`, or read it first")
        listed = list(jobs)
        if not listed:
            raise ValueError("jobs= has no jobs: give at least one")
        names = [_name(job, position, name_key) for position, job in enumerate(listed)]
        check_unique(names)
        return cls(run_job, dict(zip(names, listed, strict=True)), stops, name_key)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all jobs, in order."""
        return tuple(self.jobs)

    @property
    def command(self) -> tuple[str, ...]:
        """A process that imports what the function needs and nothing else."""
        return (sys.executable, "-m", "millpond._sweep.function_child", "{jobs}")

    @property
    def jobs_file_name(self) -> str:
        """A pickle: jobs may be any values."""
        return _JOBS_FILE

    @property
    def must_report(self) -> bool:
        """A function that gives None has no metrics."""
        return False

    @property
    def jobs_key(self) -> str:
        """There is no file with keys."""
        return ""

    def files(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The function, these jobs, where modules are looked for, and the arguments of the program."""
        payload = cloudpickle.dumps([(name, self.jobs[name]) for name in names])
        surroundings = pickle.dumps(
            {"sys_path": absolute_sys_path(), "arguments": sys.argv, "stops": self.stops, "jobs": payload}
        )
        return {_JOBS_FILE: surroundings, _FUNCTION_FILE: self._pickled}

    def facts(self) -> Mapping[str, str]:
        """Names, since two pickles of one function are not always the same bytes."""
        return {"jobs": digest(_spelled(self.jobs).encode()), "function": name_of(self.run_job)}


def _spelled(jobs: Mapping[str, Any]) -> str:
    """Jobs as far as JSON has words for them; of what it has none for the type, since a pickle may differ each time."""
    try:
        return json.dumps(list(jobs.items()), default=lambda value: type(value).__name__, skipkeys=True)
    except (ValueError, RecursionError):  # it holds itself, or is very deep
        return json.dumps(list(jobs))


def _pickled_function(run_job: Callable[[Any], Mapping[str, Any] | None]) -> bytes:
    try:
        pickled: bytes = cloudpickle.dumps(run_job)
    except (TypeError, pickle.PicklingError) as error:
        raise TypeError(
            f"run_job= cannot travel to a fresh process ({error}): what it refers to has to pickle; make anything else "
            "within it, such as an environment or a lock"
        ) from error
    return pickled


def _name(job: Any, position: int, name_key: str) -> str:
    has_name = name_key in job if isinstance(job, Mapping) else isinstance(job, str | int) and not isinstance(job, bool)
    return job_name(job, position, name_key) if has_name else f"job-{position:05d}"
