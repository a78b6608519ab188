"""Orders for tests of how chunks run: Python programs with files of a chunk."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

from millpond._sweep.orders import ChunkOrder


def python_order(code: str, *arguments: str, number: int = 1, **others: Any) -> ChunkOrder:
    """An order that runs a Python program; it has the jobs file `jobs.json`, and 30 s of grace."""
    command = (sys.executable, "-S", "-c", textwrap.dedent(code), *arguments)
    return command_order(*command, number=number, **others)


def command_order(*command: str, number: int = 1, **others: Any) -> ChunkOrder:
    """As `python_order`, of any command."""
    settings = {"files": {"jobs.json": b'["a", "b"]'}, "jobs_file": "jobs.json", "grace_seconds": 30.0, **others}
    return ChunkOrder(number, ("a", "b"), command, **settings)
