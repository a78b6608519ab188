"""The columns of numbers of a data parquet as one memory-mappable array of rows, made once and kept as a sidecar."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from millpond._arrays import map_array
from millpond._datasets.arrow_numbers import numbers_of
from millpond._datasets.dataset_files import DatasetFiles
from millpond._datasets.layout import Feature
from millpond._datasets.parquet_files import ParquetReader, readable_parquet
from millpond._datasets.writable_store import WritableStore, crc_of_file
from millpond._media.sidecars import FileVersion, SidecarStore
from millpond.errors import CorruptMedia

_VERSION = 2
"""Goes up when the meaning of the rows changes."""


@dataclass(frozen=True)
class ColumnFile:
    """The rows of one data parquet.

    Attributes:
        path: An .npy file of structured rows; text is there as int32 codes.
        texts: Feature of text to the text of each code.
    """

    path: Path
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def rows(self) -> NDArray[Any]:
        """Map the rows, structured (R,); read-only."""
        return map_rows(self.path)


def map_rows(path: str | Path) -> NDArray[Any]:
    """Map an .npy file of rows; see `map_array`."""
    return map_array(path)


class ColumnStore:
    """Makes and finds column files.

    Args:
        files: Where the parquet files are.
        store: Where column files are kept. Where that cannot be written they go to a temporary folder, for as long as
            this object lives.
        features: All features; pictures are left out.
    """

    def __init__(self, files: DatasetFiles, store: SidecarStore, features: Sequence[Feature]) -> None:
        self._files = files
        self._store = store
        self._features = tuple(f for f in features if not f.is_camera)
        self._row_dtype = np.dtype([_row_field(f) for f in self._features])
        description = json.dumps([_VERSION, [(f.name, f.dtype, f.shape) for f in self._features]])
        self._kind = f"rows{zlib.crc32(description.encode()):08x}"
        self._writable = WritableStore(store, "table columns")

    def load(self, version: FileVersion, progress: Callable[[], None]) -> ColumnFile:
        """Find the rows of a parquet file, or make them.

        Args:
            version: Of the parquet file.
            progress: Called per row group, and while another process is waited for that makes them.

        Raises:
            ObjectMissing: No such file.
            CorruptMedia: It does not parse, or lacks a column, or has other shapes than info.json says.
        """

        def make() -> ColumnFile:
            return self._writable.write(lambda store: self._make(store, version, progress))

        return self._store.once(version, self._kind, lambda: self._find(version), make, progress)

    def _find(self, version: FileVersion) -> ColumnFile | None:
        texts = self._store.load(version, self._kind)
        found = self._store.find(version, self._kind, ".npy")
        if found is not None and texts is not None and crc_of_file(found) == int(texts.arrays["crc"][0]):
            return ColumnFile(found, dict(texts.facts))
        return None

    def _make(self, store: SidecarStore, version: FileVersion, progress: Callable[[], None]) -> ColumnFile:
        """Convert a file. An OSError that is no DataError is the store's."""
        with store.write(version, self._kind, ".npy") as temporary:
            texts = self._convert(store, version, temporary, progress)
        made = store.path_of(version, self._kind, ".npy")
        store.save(version, self._kind, {"crc": np.asarray([crc_of_file(made)], np.uint32)}, texts)
        return ColumnFile(made, texts)

    def _convert(
        self, store: SidecarStore, version: FileVersion, target: Path, progress: Callable[[], None]
    ) -> dict[str, list[str]]:
        path = version.name
        codes: dict[str, dict[str, int]] = {f.name: {} for f in self._features if f.is_text}
        with ParquetReader(self._opened(version, store), path) as parquet, open(target, "wb") as file:
            _require_columns(parquet.names, self._features, path)
            # Written, not mapped: on a full disk a store to a map is a SIGBUS, a write is an error.
            header = {"descr": self._row_dtype.descr, "fortran_order": False, "shape": (parquet.num_rows,)}
            np.lib.format.write_array_header_1_0(file, header)
            for table in parquet.row_groups([f.name for f in self._features]):
                file.write(self._rows_of(table, codes, path).tobytes())
                progress()
        return {name: list(of) for name, of in codes.items()}

    def _opened(self, version: FileVersion, store: SidecarStore) -> BinaryIO:
        with readable_parquet(version.name):
            return self._files.open(version, store)

    def _rows_of(self, table: Any, codes: dict[str, dict[str, int]], path: str) -> NDArray[Any]:
        """One row group, structured."""
        with readable_parquet(path):
            rows = np.empty(table.num_rows, self._row_dtype)
            for feature in self._features:
                rows[feature.name] = _values(table.column(feature.name), feature, codes, path)
        return rows


def _row_field(feature: Feature) -> tuple[str, Any, tuple[int, ...]]:
    return feature.name, np.dtype(np.int32 if feature.is_text else feature.dtype), feature.shape


def _require_columns(names: Sequence[str], features: Sequence[Feature], path: str) -> None:
    missing = [feature.name for feature in features if feature.name not in names]
    if missing:
        raise CorruptMedia(
            f"'{path}' has no column {', '.join(map(repr, missing))}, which meta/info.json lists",
            path=path,
            columns=missing,
        )


def _values(column: Any, feature: Feature, codes: dict[str, dict[str, int]], path: str) -> NDArray[Any]:
    """One column of a row group, (n, *shape), in the dtype that info.json says."""
    count = len(column)
    flat = column.combine_chunks()
    if hasattr(flat, "chunks"):  # an empty chunked array stays chunked
        return np.zeros((count, *feature.shape), feature.dtype)
    flat = _flattened(flat)
    if flat.null_count:
        raise CorruptMedia(
            f"'{path}' has {flat.null_count} empty values in column {feature.name!r}",
            path=path,
            column=feature.name,
        )
    if feature.is_text:
        known = codes[feature.name]
        numbers = [known.setdefault(text, len(known)) for text in flat.to_pylist()]
        return np.asarray(numbers, np.int32).reshape(count, *feature.shape)
    values = numbers_of(flat)
    wanted = int(np.prod(feature.shape, dtype=np.int64)) * count
    if len(values) != wanted:
        raise CorruptMedia(
            f"'{path}' has {len(values)} numbers in column {feature.name!r}, where {count} rows of shape "
            f"{feature.shape} make {wanted}",
            path=path,
            column=feature.name,
        )
    return values.reshape(count, *feature.shape).astype(feature.dtype, copy=False)


def _flattened(array: Any) -> Any:
    """Values below all lists; extension arrays (datasets' Array2D) by what they store."""
    import pyarrow as pa

    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_nested(array.type) and not pa.types.is_struct(array.type):
            array = array.flatten()
        else:
            return array
