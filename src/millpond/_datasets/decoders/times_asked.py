"""Times that a user asks for: numbers of seconds, and nothing that numpy would take for one."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NO_NUMBERS = ("bool", "complex")
"""In the name of a type: what `float` takes, and numpy's and torch's own."""


def seconds_of(name: str, values: Any) -> NDArray[np.float64]:
    """Several times: a list, an array or a tensor.

    Args:
        name: What errors call them.
        values: (n,).

    Returns:
        float64, (n,); NaN stays, see `nan_among`.

    Raises:
        TypeError: They are not one row of numbers.
    """
    if hasattr(values, "dtype") and np.ndim(values):
        if np.ndim(values) > 1:
            raise TypeError(f"{name} is of shape {tuple(values.shape)}: give a list of seconds")
        row = np.asarray(values)
        if row.dtype.kind not in "fiu":
            raise TypeError(f"{name} is of {row.dtype}: give seconds")
        return row.astype(np.float64)
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__") or hasattr(values, "dtype"):
        raise TypeError(f"{name} is {reprlib.repr(values)}: give a list of seconds")
    return np.array([one_number(f"{name}[{k}]", value) for k, value in enumerate(values)], np.float64)


def one_number(name: str, value: Any, unit: str = "seconds") -> float:
    """A number of seconds, also one of numpy's or torch's; TypeError for anything else."""
    if type(value) is float:
        return value
    kind = f"{type(value).__name__} {getattr(value, 'dtype', '')}"
    try:
        if not (isinstance(value, str | bytes) or any(word in kind for word in _NO_NUMBERS) or np.ndim(value)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise TypeError(f"{name} is {reprlib.repr(value)}: give {unit}")


def nan_among(name: str, seconds: NDArray[np.float64]) -> str | None:
    """What is to be said of the first time that is not a number; None where all are."""
    found = np.flatnonzero(np.isnan(seconds))
    return f"{name}[{found[0]}] is nan: give seconds" if len(found) else None
