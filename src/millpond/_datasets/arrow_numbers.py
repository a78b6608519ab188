"""Numbers out of arrow, without pandas, which pyarrow's own conversion imports wherever it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def numbers_of(values: Any) -> NDArray[Any]:
    """The values of an arrow array, chunked or not; of numbers without gaps views, read-only, where they can be."""
    chunks = getattr(values, "chunks", [values])
    arrays = [_of_chunk(chunk) for chunk in chunks if len(chunk)]
    if not arrays:
        return np.asarray(values.to_numpy())
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _of_chunk(chunk: Any) -> NDArray[Any]:
    import pyarrow as pa

    is_plain = pa.types.is_integer(chunk.type) or pa.types.is_floating(chunk.type)
    if is_plain and not chunk.null_count:
        return np.from_dlpack(chunk)
    return np.asarray(chunk.to_numpy(zero_copy_only=False))
