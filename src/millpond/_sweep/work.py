"""What a sweep has to do: jobs by name, and the command and files that each chunk of them is run with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from millpond._sweep.command import check_command, uses_metrics
from millpond._sweep.jobs_file import JobsFile


class Work(Protocol):
    """Jobs, and how a chunk of them is run."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all jobs, in order."""

    @property
    def jobs(self) -> Mapping[str, Any]:
        """All jobs by name."""

    @property
    def command(self) -> tuple[str, ...]:
        """With its placeholders."""

    @property
    def jobs_file_name(self) -> str:
        """Of the file in the work folder that `{jobs}` is."""

    @property
    def must_report(self) -> bool:
        """Whether a job without metrics is an error, also where its chunk wrote none at all."""

    @property
    def jobs_key(self) -> str:
        """Top-level key of the list of jobs."""

    @property
    def name_key(self) -> str:
        """Key of a job's name."""

    def files(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """What a chunk of these jobs has in its work folder."""

    def facts(self) -> Mapping[str, str]:
        """What has to be the same when the sweep is resumed, by what it is called in messages."""


@dataclass(frozen=True)
class CommandWork:
    """A command over the jobs of a file.

    Attributes:
        file: The jobs.
        command: With `{jobs}` and, where it takes them, `{metrics}` and `{chunk}`.
        jobs_from_environment: Whether the command reads `$MILLPOND_JOBS`, and so needs no `{jobs}`.
        runs_here: Whether its program has to be on this machine.
        is_inert: Whether all jobs are one chunk that runs as the command would by itself: with the file that was given,
            and this process's terminal.
    """

    file: JobsFile
    command: tuple[str, ...]
    jobs_from_environment: bool = False
    runs_here: bool = True
    is_inert: bool = False

    def __post_init__(self) -> None:
        check_command(self.command, jobs_from_environment=self.jobs_from_environment, runs_here=self.runs_here)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all jobs, in order."""
        return self.file.names

    @property
    def jobs(self) -> Mapping[str, Any]:
        """All jobs by name."""
        return dict(zip(self.file.names, self.file.jobs, strict=True))

    @property
    def jobs_file_name(self) -> str:
        """In the format of the file that they come from; or that file."""
        return str(self.file.path.absolute()) if self.is_inert else f"jobs{self.file.suffix}"

    @property
    def must_report(self) -> bool:
        """Where the command has a place for metrics, each job is to have some."""
        return uses_metrics(self.command)

    @property
    def jobs_key(self) -> str:
        """As in the file."""
        return self.file.jobs_key

    @property
    def name_key(self) -> str:
        """As in the file."""
        return self.file.name_key

    def files(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The jobs file, with these jobs only."""
        return {} if self.is_inert else {self.jobs_file_name: self.file.chunk_bytes(names)}

    def facts(self) -> Mapping[str, str]:
        """The file's bytes and the command."""
        return {
            "jobs file": self.file.sha256,
            "command": json.dumps(self.command),
            "working directory": os.fsencode(os.getcwd()).decode(errors="backslashreplace"),
        }


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
