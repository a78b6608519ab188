"""A terminal of a test's own: what this process writes to standard error is written to it, and can be read back."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, *, columns: int = 100, **environment: str) -> Iterator[Callable[[], str]]:
    """Standard error is a terminal; what is yielded gives what was written since the last time, of some KB."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": str(columns), **environment}.items():
        monkeypatch.setenv(name, value)

    def told() -> str:
        parts = []
        with contextlib.suppress(BlockingIOError):  # which says that there is no more
            while True:
                parts.append(os.read(ours, 1 << 16))
        return b"".join(parts).decode()

    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    with os.fdopen(theirs, "w", encoding="utf-8") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        try:
            yield told
        finally:
            os.close(ours)
