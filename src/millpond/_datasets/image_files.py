"""Pictures kept in parquet: the bytes of PNGs by row."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._media.sidecars import file_identity
from millpond._values import FileIdentity
from millpond.errors import CorruptMedia, ObjectMissing


class ImageFile:
    """One image column of one parquet file. Keeps the row group that was read last: a segment stays within one or two.

    Args:
        path: The parquet file.
        column: The image feature.
        identity: The version of the file that the plan was made from.
    """

    def __init__(self, path: str, column: str, identity: FileIdentity) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if file_identity(path) != identity:
            raise CorruptMedia(f"'{path}' changed since the dataset was opened; open the dataset again", path=path)
        self._path, self._column = path, column
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self._parquet = pq.ParquetFile(self._file, pre_buffer=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            self._file.close()
            raise CorruptMedia(f"'{path}' does not read as parquet: {error}", path=path) from error
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._bounds: NDArray[np.int64] = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        self._kept: tuple[int, Any] | None = None

    def read(self, row: int) -> bytes:
        """The bytes of one picture.

        Raises:
            CorruptMedia: The row group does not read, or the row has no bytes.
        """
        group = int(np.searchsorted(self._bounds, row, side="right")) - 1
        if self._kept is None or self._kept[0] != group:
            self._kept = None  # first let go of the old one
            self._kept = (group, self._read_group(group))
        value = self._kept[1][row - int(self._bounds[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise CorruptMedia(
                f"row {row} of column {self._column!r} in '{self._path}' holds no bytes of an image", path=self._path
            )
        return data

    def _read_group(self, group: int) -> Any:
        import pyarrow as pa

        try:
            column = self._parquet.read_row_group(group, columns=[self._column], use_threads=False).column(0)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise CorruptMedia(
                f"row group {group} of '{self._path}' does not read: {error}", path=self._path
            ) from error
        return column

    def close(self) -> None:
        """Give the descriptor and the row group back. Idempotent."""
        self._kept = None
        self._file.close()


def open_image_file(path: str, column: str, identity: FileIdentity | None) -> ImageFile:
    """Open one; `identity` is None where it was missing from the start."""
    if identity is None or not os.path.exists(path):
        raise ObjectMissing(f"no file at '{path}'", path=path)
    return ImageFile(path, column, identity)
