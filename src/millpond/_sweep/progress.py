"""What a child that cooperates tells of its jobs, line by line, in a file beside its metrics.

`millpond.sweep_jobs` and functions of `millpond.sweep` write it; whoever runs the chunk reads it while it grows.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

_BEGUN, _OVER, _FAILED, _GIVEN_BACK = "begun", "over", "failed", "given back"


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What a child is told beside `$MILLPOND_JOBS` and `$MILLPOND_METRICS`.

    Attributes:
        progress_path: Where lines are appended.
        jobs_key: As in `ChunkOrder`.
        name_key: As in `ChunkOrder`.
        budget_bytes: At which it should hand out no more jobs; None: no limit.
    """

    progress_path: str
    jobs_key: str
    name_key: str
    budget_bytes: int | None

    def to_json(self) -> str:
        """For the environment."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_json(cls, text: str) -> ChildSettings:
        """As `to_json` wrote it."""
        return cls(**json.loads(text))


def append_line(path: str, line: bytes) -> None:
    """Write one line in one piece: what is there is whole, whenever the process dies.

    Raises:
        OSError: It cannot be written, or, on a full disk, not all of it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    finally:
        os.close(descriptor)


class ProgressWriter:
    """Appends what happens; each line is written at once, so that it is there when the process is killed."""

    def __init__(self, path: str) -> None:
        self._path = path

    def begun(self, job: str) -> None:
        """A job begins."""
        self._write({"event": _BEGUN, "job": job})

    def over(self, job: str) -> None:
        """It has ended, and reported."""
        self._write({"event": _OVER, "job": job})

    def failed(self, job: str, error: str) -> None:
        """It raised; `error` says what."""
        self._write({"event": _FAILED, "job": job, "error": error})

    def given_back(self) -> None:
        """No more jobs are begun here: the budget is reached, or one has failed."""
        self._write({"event": _GIVEN_BACK})

    def _write(self, record: dict[str, str]) -> None:
        line = json.dumps({**record, "time": time.time()}) + "\n"
        append_line(self._path, line.encode())


@dataclass(slots=True)
class Progress:
    """What a child has told so far.

    Attributes:
        cooperates: Whether it tells anything.
        begun: Jobs that have begun, in order.
        current: The job that has begun and is not over; "" between jobs.
        last_time: When it told something last, seconds since the epoch; 0.0 before.
        seconds: How long each job that is over took.
        failures: What jobs raised, in words.
        is_drained: Whether it gave back the jobs that it had not begun.
    """

    cooperates: bool = False
    begun: list[str] = field(default_factory=list)
    current: str = ""
    last_time: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    is_drained: bool = False
    _unfinished_line: bytes = b""

    def feed(self, data: bytes) -> None:
        """Read on; a line that is not whole yet is kept for the next time."""
        *lines, self._unfinished_line = (self._unfinished_line + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a full disk may have cut it
                self._take(json.loads(line))

    def _take(self, record: dict[str, Any]) -> None:
        event, now = record["event"], float(record["time"])
        if event == _BEGUN:
            self.current = record["job"]
            self.begun.append(self.current)
        elif event == _GIVEN_BACK:
            self.is_drained = True
        else:
            self.seconds[record["job"]] = now - self.last_time
            self.current = ""
            if event == _FAILED:
                self.failures[record["job"]] = record["error"]
        self.cooperates = True
        self.last_time = now
