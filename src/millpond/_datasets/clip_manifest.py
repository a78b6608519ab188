"""A manifest of clips: read once, and kept as two files that processes map, so that rows cost nobody memory.

One file holds a fixed-size row per sample: its numbers, and where its other values (paths, captions, ...) stand in the
second one, as JSON. Both are sidecars of the manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.columns import map_rows
from millpond._datasets.manifest_columns import Column, find_columns
from millpond._datasets.manifest_formats import ManifestFormat, Row, open_manifest
from millpond._datasets.manifest_values import decode_values, encode_values
from millpond._datasets.writable_store import WritableStore, crc_of_file
from millpond._media.sidecars import SidecarStore, version_of
from millpond.errors import CorruptMedia

_VERSION = 1
"""Goes up when the meaning of the two files changes."""

_CHUNK_ROWS = 4096
_PLACE = "place"  # of a row's values in the file of values: int64 (2,), start and stop

_ROWS_SUFFIX, _VALUES_SUFFIX = ".npy", ".values"


@dataclass(frozen=True)
class ManifestTable:
    """The rows of a manifest, mapped when they are first asked for. Picklable: what travels is where they are.

    Attributes:
        rows_path: An .npy file of structured rows.
        values_path: What is no number.
        num_rows: How many there are.
        columns: Of the manifest, in its order.
    """

    rows_path: str
    values_path: str
    num_rows: int
    columns: tuple[Column, ...]
    _maps: list[NDArray[Any]] = field(default_factory=list, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.rows_path, self.values_path, self.num_rows, self.columns)

    @property
    def numbers(self) -> tuple[Column, ...]:
        """Columns that are arrays."""
        return tuple(column for column in self.columns if column.is_array)

    @property
    def others(self) -> tuple[str, ...]:
        """Columns of Python values."""
        return tuple(column.name for column in self.columns if not column.is_array)

    def take(self, name: str, samples: NDArray[np.int64]) -> NDArray[Any]:
        """The numbers of some rows, (L, ...), in the column's dtype; the caller's own."""
        position = [column.name for column in self.numbers].index(name)
        return np.ascontiguousarray(self._mapped()[0][f"c{position}"][samples])

    def values(self, sample: int) -> dict[str, Any]:
        """What of a row is no number: column to Python value, None where it has none."""
        rows, values = self._mapped()
        start, stop = rows[_PLACE][sample].tolist()
        return dict(zip(self.others, decode_values(values[start:stop].tobytes()), strict=True))

    def close(self) -> None:
        """Unmap both files. Idempotent; they are mapped again when rows are asked for."""
        self._maps.clear()

    def _mapped(self) -> list[NDArray[Any]]:
        if not self._maps:
            self._maps[:] = [
                map_rows(self.rows_path),
                np.asarray(np.memmap(self.values_path, np.uint8, "r")),
            ]
        return self._maps


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read.

    Attributes:
        path: The file.
        table: Its rows.
        digest: SHA-256 of the file, in hexadecimal.
        store: Holds the table's files if they are temporary: whoever read the manifest keeps it.
    """

    path: Path
    table: ManifestTable
    digest: str
    store: WritableStore | None


def read_manifest(path: Path, store: SidecarStore, *, as_values: Collection[str]) -> Manifest:
    """Read a manifest, or find what was kept of it.

    Args:
        path: JSONL, CSV or Parquet, by its suffix.
        store: Where its table is kept.
        as_values: Columns that are no numbers whatever they look like: those of paths.

    Raises:
        ObjectMissing: No file there.
        UnsupportedFormat: Another suffix.
        CorruptMedia: A row does not parse.
        ValueError: It has no rows, or a column twice.
    """
    writable = WritableStore(store, "manifests")
    kind = _kind(as_values)

    def make() -> tuple[ManifestTable, str]:
        manifest = open_manifest(path, as_values)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        columns, num_rows = find_columns(manifest.rows(), manifest.dtypes, as_values)
        if not num_rows:
            raise ValueError(f"the manifest '{path}' has no rows: there is nothing to read")
        facts = _Facts(columns, num_rows, digest)
        return writable.write(lambda chosen: _make(manifest, path, chosen, kind, facts))

    table, digest = store.once(version_of(path), kind, lambda: _find(path, store, kind), make)
    return Manifest(path, table, digest, writable)


@dataclass(frozen=True)
class _Facts:
    columns: tuple[Column, ...]
    num_rows: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        columns = [(c.name, c.dtype, c.shape, c.longest) for c in self.columns]
        return {"columns": columns, "num_rows": self.num_rows, "digest": self.digest}

    @classmethod
    def from_json(cls, facts: Any) -> _Facts:
        columns = tuple(Column(name, dtype, tuple(shape), longest) for name, dtype, shape, longest in facts["columns"])
        return cls(columns, facts["num_rows"], facts["digest"])


def _kind(as_values: Collection[str]) -> str:
    description = json.dumps([_VERSION, sorted(as_values)])
    return f"manifest{zlib.crc32(description.encode()):08x}"


def _find(path: Path, store: SidecarStore, kind: str) -> tuple[ManifestTable, str] | None:
    version = version_of(path)
    kept = store.load(version, kind)
    rows, values = store.find(version, kind, _ROWS_SUFFIX), store.find(version, kind, _VALUES_SUFFIX)
    if kept is None or rows is None or values is None:
        return None
    if [crc_of_file(rows), crc_of_file(values)] != kept.arrays["crcs"].tolist():
        return None
    facts = _Facts.from_json(kept.facts)
    return ManifestTable(str(rows), str(values), facts.num_rows, facts.columns), facts.digest


def _make(
    manifest: ManifestFormat, path: Path, store: SidecarStore, kind: str, facts: _Facts
) -> tuple[ManifestTable, str]:
    """Convert it. An OSError that is no DataError is the store's."""
    before = version_of(path)
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(store.write(before, kind, s)) for s in (_ROWS_SUFFIX, _VALUES_SUFFIX)]
        rows_file, values_file = (stack.enter_context(open(target, "wb")) for target in targets)
        written = _write(manifest.rows(), facts, rows_file, values_file)
        if written != facts.num_rows or version_of(path) != before:
            raise CorruptMedia(f"the manifest '{path}' changed while it was read; read it again", path=str(path))
    made = [store.path_of(before, kind, suffix) for suffix in (_ROWS_SUFFIX, _VALUES_SUFFIX)]
    crcs = np.asarray([crc_of_file(file) for file in made], np.uint32)
    store.save(before, kind, {"crcs": crcs}, facts.to_json())
    return ManifestTable(str(made[0]), str(made[1]), facts.num_rows, facts.columns), facts.digest


def _write(rows: Iterator[Row], facts: _Facts, rows_file: BinaryIO, values_file: BinaryIO) -> int:
    """Write both files, and say how many rows there were."""
    numbers = [column for column in facts.columns if column.is_array]
    others = [column.name for column in facts.columns if not column.is_array]
    dtype = np.dtype([(_PLACE, "<i8", (2,)), *((f"c{n}", c.dtype, c.shape) for n, c in enumerate(numbers))])
    header = {"descr": dtype.descr, "fortran_order": False, "shape": (facts.num_rows,)}
    np.lib.format.write_array_header_1_0(rows_file, header)
    written, stop = 0, 0
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        table = np.empty(len(chunk), dtype)
        for n, column in enumerate(numbers):
            table[f"c{n}"] = _numbers(column, [row.get(column.name) for row in chunk])
        for place, row in zip(table[_PLACE], chunk, strict=True):
            start, stop = stop, stop + values_file.write(encode_values([row.get(name) for name in others]))
            place[:] = start, stop
        rows_file.write(table.tobytes())
        written += len(chunk)
    return written


def _numbers(column: Column, values: Sequence[Any]) -> NDArray[Any]:
    """(n, *shape), NaN where a value is missing."""
    array = np.empty((len(values), *column.shape), column.dtype)
    for position, value in enumerate(values):
        array[position] = np.nan if value is None else value
    return array
