"""Numbers come out of arrow as arrow itself gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from millpond._datasets.arrow_numbers import numbers_of

KINDS = [pa.int64(), pa.uint8(), pa.float16(), pa.float64()]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_numbers_of_every_kind_are_views_of_arrow(kind: Any) -> None:
    values = pa.array(np.arange(5), pa.int64()).cast(pa.float32()).cast(kind).slice(1, 3)
    found = numbers_of(values)
    assert (found.tolist(), found.dtype) == ([1, 2, 3], kind.to_pandas_dtype())
    assert np.shares_memory(found, np.frombuffer(values.buffers()[1], np.uint8))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.chunked_array([[1, 2], [], [3]]), [1, 2, 3]),
        (pa.chunked_array([], pa.int32()), []),
        (pa.array([], pa.float32()), []),
        (pa.array([True, False]), [True, False]),
        (pa.array([1.5, None]), [1.5, np.nan]),
    ],
)
def test_what_has_gaps_or_comes_in_pieces_is_copied(values: Any, expected: list[Any]) -> None:
    found = numbers_of(values)
    assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")
    assert found.dtype == values.type.to_pandas_dtype()
