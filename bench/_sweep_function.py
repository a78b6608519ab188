"""A function sweep of empty jobs: `python _sweep_function.py NUM_JOBS OUT [KEPT]`, a chunk each.

KEPT is a folder to which a chunk's own process copies its files, and how it was started (command.json), so that the
very same command can be run again without a sweep.
"""

from __future__ import annotations

import sys

import millpond


def run_job(job: int) -> dict[str, int]:
    return {"job": job}


def keep_command(job: str) -> None:
    import json
    import os
    import shutil
    import sys
    from pathlib import Path

    folder = str(Path(os.environ["MILLPOND_JOBS"]).parent)
    shutil.copytree(folder, job, dirs_exist_ok=True)
    command = {"argv": sys.orig_argv, "environment": dict(os.environ)}
    Path(job, "command.json").write_text(json.dumps(command).replace(folder, job), encoding="utf-8")


def main(num_jobs: str, out: str, kept: str = "") -> None:
    if kept:
        millpond.sweep([kept], keep_command, chunk_size=1, out=out)
    else:
        millpond.sweep(range(int(num_jobs)), run_job, chunk_size=1, out=out)


if __name__ == "__main__":
    main(*sys.argv[1:])
