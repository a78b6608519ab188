"""Pictures kept in parquet: the bytes of PNGs by row."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from millpond._datasets.parquet_files import ParquetReader
from millpond.errors import CorruptMedia


class ImageFile:
    """One image column of one parquet file. Keeps the row group that was read last: a segment stays within one or two.

    Args:
        file: The parquet file; owned from now on.
        path: What errors call it.
        column: The image feature.
    """

    def __init__(self, file: BinaryIO, path: str, column: str) -> None:
        self._path, self._column = path, column
        self._parquet = ParquetReader(file, path)
        self._kept: tuple[int, Any] | None = None

    def read(self, row: int) -> bytes:
        """The bytes of one picture.

        Raises:
            CorruptMedia: The row group does not read, or the row has no bytes.
        """
        group = int(np.searchsorted(self._parquet.bounds, row, side="right")) - 1
        if self._kept is None or self._kept[0] != group:
            self._kept = None  # first let go of the old one
            self._kept = (group, self._parquet.row_group(group, [self._column]).column(0))
        value = self._kept[1][row - int(self._parquet.bounds[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise CorruptMedia(
                f"row {row} of column {self._column!r} in '{self._path}' holds no bytes of an image", path=self._path
            )
        return data

    def close(self) -> None:
        """Give the descriptor and the row group back. Idempotent."""
        self._kept = None
        self._parquet.close()
