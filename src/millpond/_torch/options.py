"""What the DataLoader takes beyond torch's arguments: the constructor's word, the environment's, or a default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from millpond._amounts import parse_bytes
from millpond._checks import check_anon, check_integer, check_positive
from millpond.settings import DataLoaderSettings

_NO_LIMIT = "none"


@dataclass(frozen=True, slots=True)
class Options:
    """Resolved; 0 and None are no limit.

    Attributes:
        timeout: Seconds that a batch may take in a worker.
        stall_timeout: Seconds that a sample may take.
        memory: Bytes for batches under way and held.
        max_tasks_per_worker: Batches of a worker.
        max_worker_anon: Bytes of a worker's own memory.
        on_error: What becomes of a sample that raises, hangs, or ends its worker.
        max_restarts: Workers that are replaced before it is given up.
        held_batches: That stay on their slots while they are held.
        quarantine: The file of what was skipped.
        has_arena: Whether batches travel through shared memory.
        keeps_heap: Whether workers keep what they freed.
    """

    timeout: float
    stall_timeout: float
    memory: int | None
    max_tasks_per_worker: int
    max_worker_anon: int | None
    on_error: Literal["raise", "skip"]
    max_restarts: int
    held_batches: int
    quarantine: Path
    has_arena: bool
    keeps_heap: bool


def resolve(**given: Any) -> Options:
    """Options of a constructor's arguments, of which None stands for what the environment says.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A value that cannot work; of the environment, it names the variable.
    """
    _check(**given)
    settings = _settings()

    def of(name: str) -> Any:
        return getattr(settings, name) if given[name] is None else given[name]

    anon = _bytes_of("max_worker_anon", of("max_worker_anon"), from_environment=given["max_worker_anon"] is None)
    if anon is not None:
        check_anon(anon)
    return Options(
        timeout=of("timeout"),
        stall_timeout=of("stall_timeout"),
        memory=_bytes_of("memory", of("memory"), from_environment=given["memory"] is None),
        max_tasks_per_worker=of("max_tasks_per_worker"),
        max_worker_anon=anon,
        on_error=of("on_error"),
        max_restarts=of("max_restarts"),
        held_batches=of("held_batches"),
        quarantine=Path(of("quarantine")).absolute(),
        has_arena=settings.transport == "arena",
        keeps_heap=settings.keep_heap,
    )


def _check(**given: Any) -> None:
    if given["stall_timeout"] != 0:
        check_positive("stall_timeout", given["stall_timeout"])
    for name in ("max_tasks_per_worker", "max_restarts", "held_batches"):
        if given[name] is not None:
            check_integer(name, given[name], least=0)
    if given["on_error"] not in (None, "raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip", not {given["on_error"]!r}')


def _settings() -> DataLoaderSettings:
    try:
        return DataLoaderSettings()
    except ValidationError as error:
        told = [f"MILLPOND_{problem['loc'][0]}".upper() + f": {problem['msg']}" for problem in error.errors()]
        got = [f"{problem['input']!r}" for problem in error.errors()]
        words = "; ".join(f"{what}, not {value}" for what, value in zip(told, got, strict=True))
        raise ValueError(f"an environment variable has a value that cannot work: {words}") from None


def _bytes_of(name: str, value: Any, *, from_environment: bool) -> int | None:
    if value is None or (isinstance(value, str) and value.strip().lower() == _NO_LIMIT):
        return None
    try:
        size = parse_bytes(value)
        if size <= 0:
            raise ValueError(f"must be positive, not {value!r}")
    except (ValueError, TypeError) as error:
        which = f"MILLPOND_{name.upper()}" if from_environment else name
        raise type(error)(f'{which}: {error}; give bytes, a text such as "2GiB", or "none"') from None
    return size
