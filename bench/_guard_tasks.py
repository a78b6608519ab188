"""Functions that bench/guard.py calls, in a module that every contender's workers can import."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a worker that was just forked imports this module within its first call
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray


def make_frames(count: int, value: float) -> NDArray[np.float32]:
    """What a decode returns: memory of its own, written once. float32 (count,)."""
    return np.full(count, value, np.float32)


def nothing() -> None:
    return None


def pid() -> int:
    return os.getpid()


def hang() -> None:
    """In C, with the GIL held."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def answer(pipe: Connection, count: int, value: float) -> None:
    """In a process of its own."""
    pipe.send(make_frames(count, value))
    pipe.close()
