"""Parquet files opened so that nothing leaks, and what pyarrow raises named as the file's fault."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millpond.errors import CorruptMedia, DataError


@contextlib.contextmanager
def readable_parquet(path: Path) -> Iterator[None]:
    """Whatever pyarrow raises in the block is this file's fault."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise CorruptMedia(f"'{path}' does not read as parquet: {error}", path=str(path)) from error


@contextlib.contextmanager
def opened_parquet(path: Path) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile` by our own descriptor, closed also where the footer does not parse."""
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        with readable_parquet(path):
            parquet = stack.enter_context(pq.ParquetFile(stack.enter_context(open(path, "rb"))))
        yield parquet
