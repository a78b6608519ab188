"""The rows of a manifest as dicts of Python values, one after the other, from JSONL, CSV or Parquet.

A manifest is gone through more than once, and never held as a whole: it may have millions of rows.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from millpond._datasets.parquet_files import ParquetReader, readable_parquet
from millpond.errors import CorruptMedia, DataError, UnsupportedFormat

Row = Mapping[str, Any]
"""Column to value; None, or no entry at all, where a row has none."""

_PARQUET_ROWS = 4096
"""Converted at once: some megabytes of Python objects."""


class ManifestFormat(Protocol):
    """One manifest. Each call of `rows` goes through the file anew."""

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Column to numpy dtype, where the file itself says it; of the elements where they are lists."""
        ...

    def rows(self) -> Iterator[Row]:
        """Every row.

        Raises:
            CorruptMedia: A row does not parse.
            ValueError: A column is there twice.
        """
        ...


class JsonLines:
    """One JSON object per line; empty lines are no rows.

    Args:
        path: The file, UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.dtypes: dict[str, str] = {}

    def rows(self) -> Iterator[Row]:
        """See `ManifestFormat`."""
        with open(self._path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield self._row(number, line.removeprefix(b"\xef\xbb\xbf"))

    def _row(self, number: int, line: bytes) -> Row:
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except _DuplicateKey as error:
            raise ValueError(f"'{self._path}' line {number} has {error.args[0]!r} twice; rename one") from None
        except (ValueError, RecursionError) as error:
            raise _broken(self._path, f"line {number} is no JSON: {error}", line=number) from error
        if not isinstance(row, dict):
            raise _broken(self._path, f"line {number} is no JSON object, {{...}}", line=number)
        return row


class _DuplicateKey(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _DuplicateKey(_first_double([name for name, _ in pairs]))
    return found


class CommaSeparated:
    """CSV with a header. What the cells of a column are is found out from all of them.

    Integers, floats and true/false where every cell that is not empty is one; lists and objects where every one is
    JSON of that kind; else text. An empty cell is None, but "" in a column of text.

    Args:
        path: The file, UTF-8.
        as_text: Columns that are text, whatever they look like.
    """

    def __init__(self, path: Path, as_text: Collection[str]) -> None:
        self._path = path
        self.dtypes: dict[str, str] = {}
        self._parsers = self._find_parsers(as_text)

    def rows(self) -> Iterator[Row]:
        """See `ManifestFormat`."""
        for cells in self._cells():
            yield {name: self._parsers[name](cell) for name, cell in cells.items()}

    def _find_parsers(self, as_text: Collection[str]) -> dict[str, _Parser]:
        left: dict[str, list[_Parser]] = {}
        for cells in self._cells():
            for name, cell in cells.items():
                fitting = left.setdefault(name, [] if name in as_text else list(_PARSERS))
                if cell and fitting:
                    left[name] = [parser for parser in fitting if _parses(parser, cell)]
        return {name: fitting[0] if fitting else str for name, fitting in left.items()}

    def _cells(self) -> Iterator[dict[str, str]]:
        with open(self._path, newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            try:
                names = next(lines, [])
                if len(set(names)) < len(names):
                    raise ValueError(f"'{self._path}' has {_first_double(names)!r} twice in its header; rename one")
                for cells in lines:
                    if cells:  # an empty line
                        yield self._row(lines.line_num, names, cells)
            except (csv.Error, UnicodeDecodeError) as error:
                raise _broken(self._path, f"line {lines.line_num}: {error}", line=lines.line_num) from error

    def _row(self, line: int, names: list[str], cells: list[str]) -> dict[str, str]:
        if len(cells) != len(names):
            raise _broken(self._path, f"line {line} has {len(cells)} cells, its header {len(names)}", line=line)
        return dict(zip(names, cells, strict=True))


_Parser = Callable[[str], Any]

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")  # 007 is a name
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?|nan", re.IGNORECASE)


def _integer(cell: str) -> int | None:
    if not cell:
        return None
    if not _INTEGER.fullmatch(cell):
        raise ValueError(cell)
    return int(cell)


def _float(cell: str) -> float | None:
    if not cell:
        return None
    if not _FLOAT.fullmatch(cell) or re.fullmatch(r"[+-]?0[0-9]+", cell):
        raise ValueError(cell)
    return float(cell)


def _bool(cell: str) -> bool | None:
    return {"": None, "true": True, "false": False}[cell.lower()]


def _json(cell: str) -> Any:
    if not cell:
        return None
    if cell[0] not in "[{":
        raise ValueError(cell)
    return json.loads(cell)


_PARSERS: tuple[_Parser, ...] = (_integer, _float, _bool, _json)


def _parses(parser: _Parser, cell: str) -> bool:
    try:
        parser(cell)
    except (ValueError, KeyError, RecursionError):
        return False
    return True


class Parquet:
    """A Parquet file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.dtypes: dict[str, str] = {}
        with ParquetReader(open(path, "rb"), str(path)) as parquet:
            names = parquet.names
            if len(set(names)) < len(names):
                raise ValueError(f"'{path}' has the column {_first_double(names)!r} twice; rename one")
            for field in parquet.schema:
                dtype = _numpy_dtype(field.type)
                if dtype is not None:
                    self.dtypes[field.name] = dtype

    def rows(self) -> Iterator[Row]:
        """See `ManifestFormat`."""
        with ParquetReader(open(self._path, "rb"), str(self._path)) as parquet:
            yield from self._rows_of(parquet.batches(_PARQUET_ROWS))

    def _rows_of(self, batches: Iterator[Any]) -> Iterator[Row]:
        while True:
            with readable_parquet(str(self._path)):
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            if batch is None:
                return
            yield from rows


def _numpy_dtype(kind: Any) -> str | None:
    """The dtype of numbers of an arrow type, or of the numbers in its lists; None for all else."""
    import pyarrow as pa

    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    return str(kind.to_pandas_dtype().__name__).removesuffix("_")


_FORMATS: Mapping[str, Callable[[Path, Collection[str]], ManifestFormat]] = {
    ".jsonl": lambda path, as_text: JsonLines(path),
    ".csv": CommaSeparated,
    ".parquet": lambda path, as_text: Parquet(path),
}


def open_manifest(path: Path, as_text: Collection[str]) -> ManifestFormat:
    """Open a manifest by its suffix.

    Args:
        path: The file, which is there.
        as_text: Columns of paths: in a CSV they are text, whatever they look like.

    Raises:
        UnsupportedFormat: Another suffix.
        CorruptMedia: It does not read.
        ValueError: A column is there twice.
    """
    make = _FORMATS.get(path.suffix.lower())
    if make is None:
        raise UnsupportedFormat(
            f"'{path}' is no manifest that millpond reads: its suffix is {path.suffix!r}, not one of "
            f"{', '.join(_FORMATS)}",
            path=str(path),
            suffix=path.suffix,
        )
    return make(path, as_text)


def _first_double(names: list[str]) -> str:
    return next(name for name, count in Counter(names).items() if count > 1)


def _broken(path: Path, text: str, **facts: Any) -> DataError:
    return CorruptMedia(f"the manifest '{path}' does not read: {text}", path=str(path), **facts)
