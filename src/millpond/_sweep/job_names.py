"""What jobs are called: a name is what ledger, metrics and errors know a job by, so each has one of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_SHOWN = 5


def job_name(job: Any, position: int, name_key: str = "name") -> str:
    """The name of a job: of a text or a whole number that itself; of a mapping what it has under `name_key`.

    Args:
        job: As it stands in the jobs file.
        position: In the list, from 0; errors count from 1.
        name_key: Key of the name.

    Raises:
        ValueError: It has none, or one that is neither text nor a whole number, or is empty or no valid Unicode.
    """
    where = f"job {position + 1}"
    if not isinstance(job, Mapping):
        return _checked(job, where, "write each job as an object with a name, or as a text that is its name")
    if name_key not in job:
        keys = ", ".join(repr(key) for key in list(job)[:_MAX_SHOWN]) or "no keys"
        raise ValueError(f"{where} has no {name_key!r}: give each job one, or say --name-key (it has {keys})")
    return _checked(job[name_key], f"{where}: its {name_key!r}", "write the name as a text, or say --name-key")


def check_unique(names: Sequence[str]) -> None:
    """See that no two jobs have one name.

    Raises:
        ValueError: Some have; up to five of their names are in the message.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        shown = ", ".join(repr(name) for name in repeated[:_MAX_SHOWN])
        more = f" and {len(repeated) - _MAX_SHOWN} more" if len(repeated) > _MAX_SHOWN else ""
        raise ValueError(f"names must be unique: more than one job is called {shown}{more}; rename them")


def _checked(value: Any, where: str, remedy: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{where} is {_kind(value)}, which is no name: {remedy}")
    name = str(value)
    if not name:
        raise ValueError(f"{where} is an empty text, which is no name: {remedy}")
    if name != name.encode("utf-8", "replace").decode():
        raise ValueError(f"{where} is {name!r}, which has half a surrogate pair and is no valid Unicode: {remedy}")
    return name


def _kind(value: Any) -> str:
    return "null" if value is None else f"{value!r:.60} ({type(value).__name__})"
