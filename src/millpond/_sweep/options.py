"""How a sweep goes about its jobs, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from millpond._amounts import parse_bytes, parse_seconds
from millpond._arena.memory import available_bytes

AUTO = "auto"
_Amount = TypeVar("_Amount", int, float)
_SHARE_OF_FREE_MEMORY = 0.5
"""What all chunks together may take where no budget is given; the rest is for whatever else the machine does."""

_LEAST_BUDGET_BYTES = 1 << 20
"""A bare number is of bytes: who writes 8 means something else."""


def parse_chunk_size(size: int | str | None) -> int | None:
    """Jobs of a chunk; None for "auto".

    Raises:
        ValueError: It is not a whole number from 1 on, nor "auto".
    """
    if size is None or size == AUTO:
        return None
    text = str(size).strip()
    if isinstance(size, bool) or not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise ValueError(f"chunk_size= is {size!r}, and takes a whole number from 1 on, or 'auto'")
    return int(text)


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What the user said of a sweep.

    Attributes:
        chunk_size: Jobs of a chunk; None: learned from memory.
        budget_bytes: Summed PSS of a chunk's process tree; None: no limit.
        timeout_seconds: Of a chunk, or of a job where the child tells of its jobs; None: no limit.
        retries: How often a job that failed, or whose chunk did, is tried again.
        bisect: Whether a chunk that died is split until the job that kills it is found.
        stop_on_error: Whether nothing new begins after a failure.
        grace_seconds: From the signal that asks processes to end to SIGKILL.
    """

    chunk_size: int | None
    budget_bytes: int | None = None
    timeout_seconds: float | None = None
    retries: int = 0
    bisect: bool = False
    stop_on_error: bool = True
    grace_seconds: float = 10.0

    @property
    def is_supervised(self) -> bool:
        """Whether anything is asked for that a command that simply runs does not have."""
        return bool(self.budget_bytes or self.timeout_seconds or self.retries or self.bisect)

    @classmethod
    def of(
        cls,
        *,
        chunk_size: int | str | None,
        max_rss: float | str | None = None,
        parallel: int | None = None,
        timeout: float | str | None = None,
        retries: int = 0,
        bisect: bool = False,
        on_error: str = "stop",
        grace: float | str = 10.0,
    ) -> SweepOptions:
        """Check what was said, as `millpond.sweep` and the command line take it.

        Raises:
            ValueError: A value that cannot be; names it and what is accepted.
            TypeError: A value of the wrong kind.
        """
        size = parse_chunk_size(chunk_size)
        parallel = 1 if parallel is None else parallel
        for name, value, least in (("parallel", parallel, 1), ("retries", retries, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}= is {value!r}, and takes a whole number from {least} on")
        if on_error not in ("stop", "continue"):
            raise ValueError(f"on_error= is {on_error!r}, and takes 'stop' or 'continue'")
        budget = None if max_rss is None else _parsed(parse_bytes, max_rss, "max_rss")
        if budget is not None and budget < _LEAST_BUDGET_BYTES:
            raise ValueError(f"max_rss= is {max_rss!r}, less than any process needs: write a size such as '8GiB'")
        if size is None and budget is None:
            budget = int(available_bytes() * _SHARE_OF_FREE_MEMORY / parallel)
        return cls(
            chunk_size=size,
            budget_bytes=budget,
            timeout_seconds=None if timeout is None else _parsed(parse_seconds, timeout, "timeout"),
            retries=retries,
            bisect=bisect,
            stop_on_error=on_error == "stop",
            grace_seconds=_parsed(parse_seconds, grace, "grace"),
        )


def _parsed(parse: Callable[[float | str], _Amount], value: float | str, name: str) -> _Amount:
    """What a value means; an error says which one it is."""
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"{name}= {error}") from None
