"""Batches as blocks of Ray Data: Arrow tables, with pictures and vectors as columns of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.data.block import BlockAccessor


def block_of(batch: Mapping[str, Any], pictures: frozenset[str], *, channels_last: bool) -> Any:
    """A batch as a table with memory of its own: Ray keeps blocks for as long as it likes.

    Args:
        batch: Column to numpy array, or list of text.
        pictures: Columns of uint8, (n, ..., 3, H, W), channels-last in memory.
        channels_last: Whether they become (n, ..., H, W, 3), which is the quicker copy.
    """
    columns = {
        name: np.moveaxis(values, -3, -1) if channels_last and name in pictures else values
        for name, values in batch.items()
    }
    owned = {name: np.array(v, order="C") if isinstance(v, np.ndarray) else v for name, v in columns.items()}
    return BlockAccessor.batch_to_arrow_block(owned)
