"""Statistics as one flat mapping of names to numbers: what W&B, TensorBoard and Prometheus take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

_PIDS = "_pids"


def flat_values(statistics: Any, prefix: str = "") -> dict[str, float | int | str]:
    """The values of a dataclass under the names of its fields; those of a field within it as "field_name".

    Of pids it is told how many there are: `worker_pids` is "workers". What is None is left out.

    Args:
        statistics: An instance whose fields hold numbers, texts, None, mappings of names to such, or dataclasses.
        prefix: Put before each name, such as "train/".

    Raises:
        TypeError: A field holds something else.
    """
    return {prefix + name: value for name, value in _values("", statistics)}


def _values(name: str, value: Any) -> Iterator[tuple[str, float | int | str]]:
    if isinstance(value, int | float | str):
        yield name, value
    elif isinstance(value, tuple) and name.endswith(_PIDS):
        yield f"{name.removesuffix(_PIDS)}s", len(value)
    elif value is not None:
        for part, inner in _parts(name, value):
            yield from _values(f"{name}_{part}" if name else part, inner)


def _parts(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    raise TypeError(f"{name or 'statistics'} has no flat form: it is a {type(value).__name__}")
