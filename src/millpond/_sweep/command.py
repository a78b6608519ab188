"""The command that runs a chunk: where in it the chunk's files are filled in, and whether it can run at all."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Sequence

JOBS, METRICS, CHUNK = "{jobs}", "{metrics}", "{chunk}"
"""Placeholders: of the chunk's jobs file, of the file its metrics are read from, and of its number."""

_NAMES = ("jobs", "metrics", "chunk")
_PLACEHOLDER = re.compile(r"\{(jobs|metrics|chunk)\}")


def check_command(command: Sequence[str], *, jobs_from_environment: bool = False, runs_here: bool = True) -> None:
    """See that a command takes its jobs, and that its program is there, before anything runs.

    Args:
        command: Argument vector with placeholders.
        jobs_from_environment: It reads `$MILLPOND_JOBS`, so that it needs no `{jobs}`.
        runs_here: Its program must be on this machine, found as a shell here would.

    Raises:
        TypeError: It is one text, not a list of arguments.
        ValueError: It is empty, nothing in it is `{jobs}`, or a placeholder is misspelt.
        FileNotFoundError: There is no such program.
        PermissionError: Its program is a file that may not be executed.
    """
    if isinstance(command, str):
        raise TypeError(f"the command must be a list of arguments, not the text {command!r}: shlex.split() makes one")
    if not command:
        raise ValueError("there is no command: write it after --, such as -- python eval.py --eval_jobs_config {jobs}")
    if not jobs_from_environment and not any(JOBS in argument for argument in command):
        raise ValueError(
            "nothing in the command is {jobs}: write {jobs} where your program takes its jobs file, such as "
            "--eval_jobs_config {jobs}; or read $MILLPOND_JOBS and say --jobs-from-environment"
        )
    _check_spelling(command)
    if runs_here:
        _check_program(command[0])


def _check_spelling(command: Sequence[str]) -> None:
    """Other braces are the program's own, but for those that are nearly a placeholder; `${job}` is a shell's."""
    for word in re.findall(r"(?<!\$)\{(\w+)\}", " ".join(command)):
        meant = difflib.get_close_matches(word.lower(), _NAMES, n=1, cutoff=0.8)
        if word not in _NAMES and meant:
            raise ValueError(f"the command has {{{word}}}, which nothing is filled in for: write {{{meant[0]}}}")


def fill_command(command: Sequence[str], *, jobs: str, metrics: str, chunk: int) -> list[str]:
    """The command with its placeholders filled in; other braces are left alone.

    Args:
        command: Argument vector with placeholders, each of them anywhere and any number of times.
        jobs: Path of the chunk's jobs file.
        metrics: Path of the file that its metrics are read from.
        chunk: Its number.
    """
    values = {JOBS: jobs, METRICS: metrics, CHUNK: str(chunk)}
    return [_PLACEHOLDER.sub(lambda found: values[found[0]], argument) for argument in command]


def uses_metrics(command: Sequence[str]) -> bool:
    """Whether the command is told where to write its metrics, so that it is known to write some."""
    return any(METRICS in argument for argument in command)


def _check_program(program: str) -> None:
    if shutil.which(program):
        return
    if os.path.isfile(program) and os.path.dirname(program):
        raise PermissionError(f"{program!r} may not be executed: chmod +x it, or name what runs it, such as python")
    if os.path.isfile(program):
        raise FileNotFoundError(f"there is no program {program!r} on PATH: write {'./' + program!r} for the file here")
    where = "" if os.path.dirname(program) else " on PATH"
    raise FileNotFoundError(f"there is no program {program!r}{where}: install it, or write its whole path")
