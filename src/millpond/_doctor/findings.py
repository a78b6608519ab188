"""What the doctor says of one thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        level: "error" where a run would fail.
        subject: What was looked at: "/dev/shm".
        found: What it is like.
        remedy: What to do about it; "" where all is well.
    """

    level: Level
    subject: str
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Looking:
    """Said before what may hang or crash: "decoding av1"."""

    at: str


@dataclass(frozen=True, slots=True)
class Plans:
    """What the machine shall do.

    Attributes:
        memory_bytes: The budget of a loader.
        num_workers: None: one per core.
    """

    memory_bytes: int
    num_workers: int | None = None


def fine(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, subject, found)


def warning(subject: str, found: str, remedy: str) -> Finding:
    """It works, but worse than it might."""
    return Finding(Level.WARNING, subject, found, remedy)


def error(subject: str, found: str, remedy: str) -> Finding:
    """A run would fail."""
    return Finding(Level.ERROR, subject, found, remedy)
