"""What the columns of a manifest are: numbers, which become arrays, or anything else, which stays Python values.

The rules. A column is an array where every value is a number (or every one a bool), or every one is a list of numbers
of one length (or lists of lists of one shape). Integers are int64 and the others float64, or what a Parquet file says.
Values that are missing become NaN, so a column of integers with missing values is float64; it stays a column of Python
values where float64 would not hold its integers exactly, as do bools with missing values (True, False, None). Whatever
else there is (text, lists of varying length, objects, numbers mixed with text, integers beyond 64 bits) is given as it
is, None where it is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from millpond._datasets.manifest_formats import Row

_DTYPES = {"b": "bool", "i": "int64", "f": "float64"}
_EXACT_IN_FLOAT64 = 1 << 53
_INT64 = (-(1 << 63), (1 << 63) - 1)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: Of the manifest.
        dtype: numpy's, of a column of numbers; None: Python values.
        shape: Of one row's array.
        longest: The most entries of a row's list, 0 where there is no list.
    """

    name: str
    dtype: str | None
    shape: Shape
    longest: int

    @property
    def is_array(self) -> bool:
        """A column of numbers."""
        return self.dtype is not None


class _Seen:
    """What was seen of one column."""

    def __init__(self) -> None:
        self.kinds: set[str | None] = set()  # "b", "i", "f"; None for what is no number
        self.shapes: set[Shape] = set()
        self.present = 0
        self.longest = 0
        self.low = self.high = 0  # of integers

    def note(self, value: Any) -> None:
        self.present += 1
        if isinstance(value, list):
            self.longest = max(self.longest, len(value))
        if None not in self.kinds:
            kind, shape = self._of(value)
            self.kinds.add(kind)
            if len(self.shapes) < 2:
                self.shapes.add(shape)

    def _of(self, value: Any) -> tuple[str | None, Shape]:
        """The kind of the numbers in a value, and its shape."""
        if isinstance(value, list):
            return self._of_list(value)
        if isinstance(value, bool):
            return "b", ()
        if isinstance(value, int):
            self.low, self.high = min(self.low, value), max(self.high, value)
            return "i", ()
        return ("f" if isinstance(value, float | np.floating) else None), ()

    def _of_list(self, values: list[Any]) -> tuple[str | None, Shape]:
        if not values:
            return None, ()
        types = {type(value) for value in values}
        if types == {float}:
            return "f", (len(values),)
        kinds, shapes = set(), set()
        for value in values:
            kind, shape = self._of(value)
            kinds.add(kind)
            shapes.add(shape)
        kind = _merged(kinds)
        return (kind, (len(values), *shapes.pop())) if kind is not None and len(shapes) == 1 else (None, ())

    def column(self, name: str, num_rows: int, hint: str | None) -> Column:
        """What it is, all rows seen."""
        others = Column(name, None, (), self.longest)
        kind = _merged(self.kinds)
        if kind is None or len(self.shapes) != 1:
            return others
        dtype = np.dtype(hint or _DTYPES[kind])
        if dtype.kind in "iu" and not self._fits(_INT64 if hint is None else _limits(dtype)):
            return others
        if self.present < num_rows:
            if dtype.kind == "b" or not self._fits((-_EXACT_IN_FLOAT64, _EXACT_IN_FLOAT64)):
                return others
            dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
        return Column(name, dtype.name, next(iter(self.shapes)), self.longest)

    def _fits(self, limits: tuple[int, int]) -> bool:
        return limits[0] <= self.low and self.high <= limits[1]


def _merged(kinds: Collection[str | None]) -> str | None:
    """The kind of a column of such kinds; None where they do not go together."""
    unlike = set(kinds)
    if unlike == {"i", "f"}:
        return "f"
    return unlike.pop() if len(unlike) == 1 else None


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def find_columns(
    rows: Iterable[Row], dtypes: Mapping[str, str], as_values: Collection[str]
) -> tuple[tuple[Column, ...], int]:
    """Go through a manifest and say what its columns are.

    Args:
        rows: All of them.
        dtypes: What the file itself says.
        as_values: Columns that stay Python values whatever they hold: those of paths.

    Returns:
        The columns in the order in which they were first seen, and the number of rows.
    """
    seen: dict[str, _Seen] = {}
    num_rows = 0
    for row in rows:
        num_rows += 1
        for name, value in row.items():
            column = seen.get(name)
            if column is None:
                column = seen[name] = _Seen()
            if value is not None:
                column.note(value)
    found = tuple(column.column(name, num_rows, dtypes.get(name)) for name, column in seen.items())
    return tuple(Column(c.name, None, (), c.longest) if c.name in as_values else c for c in found), num_rows
