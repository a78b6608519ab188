"""Jobs as those of `_sweep_job.py`, taken from `millpond.sweep_jobs()`: ends when its budget is reached."""

from __future__ import annotations

import millpond
from _sweep_job import act, reported


def main() -> None:
    for job in millpond.sweep_jobs():
        act(job)
        millpond.report_metrics(job, reported(job))


if __name__ == "__main__":
    main()
