"""Python values of a row as one line of JSON, and back: what Parquet holds beyond JSON is marked, never pickled."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from millpond.errors import UnsupportedFormat

_MARK = "$millpond:"

_Coder = tuple[type, Callable[[Any], Any], Callable[[Any], Any]]

_CODERS: Mapping[str, _Coder] = {
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),  # before date, of which it is a kind
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "timedelta": (
        timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: timedelta(*parts),
    ),
    "decimal": (Decimal, str, Decimal),
}


def encode_values(values: Sequence[Any]) -> bytes:
    """The values of one row.

    Raises:
        UnsupportedFormat: A value is of a type that is neither JSON's nor one of dates, times, decimals and bytes.
    """
    return json.dumps(values, default=_marked).encode()


def decode_values(data: bytes) -> list[Any]:
    """The values again."""
    found: list[Any] = json.loads(data, object_hook=_unmarked if _MARK.encode() in data else None)
    return found


def _marked(value: Any) -> dict[str, Any]:
    for name, (kind, encode, _) in _CODERS.items():
        if isinstance(value, kind):
            return {_MARK + name: encode(value)}
    raise UnsupportedFormat(
        f"a manifest holds a {type(value).__name__}, which millpond does not pass through; leave that column out",
        type_name=type(value).__name__,
    )


def _unmarked(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        (name, value), *_ = found.items()
        coder = _CODERS.get(name.removeprefix(_MARK)) if name.startswith(_MARK) else None
        if coder is not None:
            return coder[2](value)
    return found
