"""Parquet files, on a disk or in a store: opened so that nothing leaks; what pyarrow raises is named as their fault."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from millpond._values import ByteRange
from millpond.errors import CorruptMedia, MillpondError

HELD_BYTES = 8 << 20
"""Of row groups that are fetched together."""


@runtime_checkable
class Holding(Protocol):
    """A file of which ranges can be fetched at once, and are then held until others are."""

    def hold(self, ranges: Sequence[ByteRange]) -> None:
        """Fetch some ranges, and let go of those that were held."""
        ...


@contextlib.contextmanager
def readable_parquet(path: str) -> Iterator[None]:
    """Whatever pyarrow raises in the block is this file's fault."""
    import pyarrow as pa

    try:
        yield
    except MillpondError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise CorruptMedia(f"'{path}' does not read as parquet: {error}", path=path) from error


class ParquetReader:
    """An open parquet file. One thread at a time.

    Args:
        file: Owned from now on; closed also where its footer does not parse.
        path: What errors call it.

    Attributes:
        num_rows: Of the file.
        bounds: int64 (G + 1,), the first row of each row group.
        schema: Of the columns, as arrow has it.
        names: Of the columns.

    Raises:
        CorruptMedia: The footer does not parse.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        import pyarrow.parquet as pq

        self._file, self._path = file, path
        try:
            with readable_parquet(path):
                self._parquet = pq.ParquetFile(file, pre_buffer=False)
                self._metadata = self._parquet.metadata
                self.schema = self._parquet.schema_arrow
        except BaseException:
            file.close()
            raise
        sizes = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]
        self.names: list[str] = self.schema.names
        self.num_rows: int = self._metadata.num_rows
        self.bounds: NDArray[np.int64] = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)

    def __enter__(self) -> ParquetReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def read(self, columns: Sequence[str] | None = None) -> Any:
        """An arrow table of some columns (None: all) of all rows; columns that are not there are left out."""
        self._hold(range(len(self.bounds) - 1), columns)
        with readable_parquet(self._path):
            return self._parquet.read(columns=None if columns is None else list(columns), use_threads=False)

    def row_groups(self, columns: Sequence[str]) -> Iterator[Any]:
        """An arrow table of some columns for each row group."""
        at = 0
        while at < len(self.bounds) - 1:
            stop, size = at + 1, self._size(at, columns)
            while stop < len(self.bounds) - 1 and size + self._size(stop, columns) <= HELD_BYTES:
                size += self._size(stop, columns)
                stop += 1
            self._hold(range(at, stop), columns)
            for group in range(at, stop):
                yield self._group(group, columns)
            at = stop

    def row_group(self, group: int, columns: Sequence[str]) -> Any:
        """An arrow table of some columns of one row group."""
        return self._group(group, columns)

    def _group(self, group: int, columns: Sequence[str]) -> Any:
        with readable_parquet(self._path):
            return self._parquet.read_row_group(group, columns=list(columns), use_threads=False)

    def batches(self, num_rows: int) -> Iterator[Any]:
        """Arrow record batches of all columns, of so many rows at most."""
        return iter(self._parquet.iter_batches(num_rows, use_threads=False))

    def ranges(self, group: int, columns: Sequence[str] | None) -> list[ByteRange]:
        """Where the values of some columns (None: all) of a row group lie."""
        row_group = self._metadata.row_group(group)
        chunks = [row_group.column(number) for number in range(row_group.num_columns)]
        return [_range_of(chunk) for chunk in chunks if columns is None or _is_of(chunk.path_in_schema, columns)]

    def _size(self, group: int, columns: Sequence[str]) -> int:
        return sum(map(len, self.ranges(group, columns)))

    def _hold(self, groups: Sequence[int], columns: Sequence[str] | None) -> None:
        if isinstance(self._file, Holding):
            self._file.hold([one for group in groups for one in self.ranges(group, columns)])


def _range_of(chunk: Any) -> ByteRange:
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    return ByteRange(start, start + chunk.total_compressed_size)


def _is_of(path: str, columns: Sequence[str]) -> bool:
    """Whether a leaf of the schema is one of the columns, or below one; names may have dots themselves."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)
