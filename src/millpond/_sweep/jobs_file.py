"""The file that names a sweep's jobs, and chunks of it: the same file with some of the jobs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millpond._sweep.job_names import check_unique, job_name
from millpond._sweep.jobs_forms import READERS, Form


@dataclass(frozen=True, slots=True)
class JobsFile:
    """A jobs file that was read whole; it is not looked at again.

    Attributes:
        path: Where it was.
        suffix: Of its name, in lower case, with the dot: its format, and that of chunks.
        jobs: In its order.
        names: Of the jobs, each once.
        jobs_key: Top-level key of the list; "" where the file is a list, or lines.
        name_key: Key of a job's name.
        sha256: Of its bytes, in hexadecimal.
    """

    path: Path
    suffix: str
    jobs: tuple[Any, ...]
    names: tuple[str, ...]
    jobs_key: str
    name_key: str
    sha256: str
    _form: Form = field(repr=False, compare=False)
    _positions: Mapping[str, int] = field(repr=False, compare=False)

    def chunk_bytes(self, names: Sequence[str]) -> bytes:
        """The file with these jobs alone, in this order, and every other top-level key as it was.

        Raises:
            KeyError: It has no job of such a name.
        """
        return self._form.written([self._positions[name] for name in names])


def read_jobs_file(path: str | os.PathLike[str], *, jobs_key: str = "jobs", name_key: str = "name") -> JobsFile:
    """Read a jobs file: JSON or YAML (a list of jobs, or an object with one), or JSONL (a job a line); in UTF-8.

    Args:
        path: Its suffix says the format.
        jobs_key: Top-level key of the list, where the file is an object.
        name_key: Key of a job's name, where jobs are objects.

    Raises:
        FileNotFoundError: It is not there.
        OSError: It cannot be read.
        ValueError: It is not what it should be; the message says what is wrong with which job, and what to do.
    """
    path = Path(path)
    data = _contents(path)
    try:
        form = _form_of(data, path.suffix.lower(), jobs_key)
        names = _names_of(form.jobs, name_key)
    except ValueError as error:
        raise ValueError(f"jobs file {str(path)!r} {error}") from None
    return JobsFile(
        path=path,
        suffix=path.suffix.lower(),
        jobs=tuple(form.jobs),
        names=names,
        jobs_key=form.jobs_key,
        name_key=name_key,
        sha256=hashlib.sha256(data).hexdigest(),
        _form=form,
        _positions={name: position for position, name in enumerate(names)},
    )


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no jobs file {str(path)!r} (in {os.getcwd()!r}): write one, such as "
            '{"jobs": [{"name": "first"}, {"name": "second"}]}, or correct its path'
        ) from None
    except IsADirectoryError:
        raise IsADirectoryError(f"the jobs file {str(path)!r} is a folder: name a file in it") from None


def _form_of(data: bytes, suffix: str, jobs_key: str) -> Form:
    if suffix not in READERS:
        raise ValueError(f"has the suffix {suffix!r}: its format is known by {', '.join(READERS)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start}: {error.reason}): save it as UTF-8") from None
    if not text.strip():
        raise ValueError("is empty: write at least one job into it")
    return READERS[suffix](text, jobs_key)


def _names_of(jobs: Sequence[Any], name_key: str) -> tuple[str, ...]:
    if not jobs:
        raise ValueError("has no jobs, its list is empty: write at least one job into it")
    try:
        names = tuple(job_name(job, position, name_key) for position, job in enumerate(jobs))
        check_unique(names)
    except ValueError as error:
        raise ValueError(f"cannot be used: {error}") from None
    return names
