"""Checks of arguments that several constructors take: misuse is named by the argument's own name."""

from __future__ import annotations

import math
import os
from typing import Any

from millpond._amounts import parse_bytes
from millpond._anon_memory import STATM_PATH


def check_integer(name: str, value: Any, *, least: int) -> None:
    """TypeError or ValueError if `value` is no integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def check_positive(name: str, value: Any) -> None:
    """TypeError or ValueError if `value` is neither a positive number nor None."""
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number or None, not {value!r}")
    if not value > 0 or not math.isfinite(value):
        raise ValueError(f"{name} must be positive and finite, or None, not {value}")


def check_anon(value: Any) -> None:
    """ValueError if `value` is no size of a worker's own memory, or this platform does not tell it."""
    if parse_bytes(value) <= 0:
        raise ValueError(f"max_worker_anon must be positive, or None, not {value!r}")
    if not os.path.exists(STATM_PATH):
        raise ValueError("max_worker_anon needs /proc, which this platform does not have; use max_tasks_per_worker")
