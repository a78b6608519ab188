"""Batches of clips as they leave: padded to the longest of the batch, or lists of arrays of true lengths. No copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from millpond._values import Field

Padding = Literal["pad", "list"]


def present_lengths(batch: dict[str, Any], fields: Sequence[Field], padding: Padding) -> None:
    """Cut every field whose length varies, in place.

    Args:
        batch: Field to (B, longest of the dataset, ...), arrays or tensors; what lies behind a row's length is zero.
        fields: Of a sample.
        padding: "pad": views of (B, longest of this batch, ...); "list": B views of (length, ...).
    """
    for field in fields:
        if field.length is None or field.name not in batch:
            continue
        whole, lengths = batch[field.name], [int(length) for length in batch[field.length]]
        if padding == "list":
            batch[field.name] = [row[:length] for row, length in zip(whole, lengths, strict=True)]
        else:
            batch[field.name] = whole[:, : max(lengths, default=0)]
