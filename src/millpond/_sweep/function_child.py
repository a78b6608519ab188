"""The process of a chunk of a function's jobs: `python -m millpond._sweep.function_child JOBS`."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from millpond._sweep.cooperation import exception_in_words, handed_out, record_line
from millpond._sweep.progress import ChildSettings, ProgressWriter, append_line
from millpond._sweep.variables import CHILD_VARIABLE, METRICS_VARIABLE


def main(path: str) -> None:
    """Run the jobs of a chunk, and tell of each."""
    settings = ChildSettings.from_json(os.environ[CHILD_VARIABLE])
    given = pickle.loads(Path(path).read_bytes())
    sys.path[:] = given["sys_path"]
    sys.argv[:] = given["arguments"]  # as processes of multiprocessing have them: functions parse them
    run_job = pickle.loads(Path(path).with_name("function.pickle").read_bytes())
    jobs = pickle.loads(given["jobs"])
    writer = ProgressWriter(settings.progress_path)
    for name, job in handed_out(jobs, settings.budget_bytes, writer):
        if not _run(name, job, run_job, settings, writer) and given["stops"]:
            writer.given_back()
            return


def _run(
    name: str,
    job: Any,
    run_job: Callable[[Any], Mapping[str, Any] | None],
    settings: ChildSettings,
    writer: ProgressWriter,
) -> bool:
    """One job; whether it went well."""
    try:
        metrics = run_job(job)
        line = record_line(name, {} if metrics is None else metrics, settings.name_key)
    except Exception as error:  # noqa: BLE001 - whatever it raises is what the sweep has to tell of this job
        traceback.print_exc()  # the log has all of it
        writer.failed(name, exception_in_words(error))
        return False
    append_line(os.environ[METRICS_VARIABLE], line)
    writer.over(name)
    return True


if __name__ == "__main__":
    main(sys.argv[1])
