"""JSON as sweeps read and write it: a key that is there twice is seen, and text stays as it is."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

MAX_DEPTH = 100
"""Levels of nesting that are read: no job has as many, and Python's own limit depends on who calls."""


class RepeatingObject(dict[str, Any]):
    """What is read for an object in which keys repeat: as Python reads it, the last of each stands.

    Attributes:
        repeated: Those keys.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = frozenset(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)


def parse_json(text: str) -> Any:
    """Read JSON, with NaN and Infinity as Python's `json` has them; objects with repeated keys are `RepeatingObject`.

    Raises:
        ValueError: It is no JSON; or has a whole number of more digits than Python reads, or thousands of levels.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None


def fault_of(value: Any) -> str:
    """What keeps a value that was read from being used: a key that repeats, or its depth; "" for nothing."""
    unseen = [(value, 0)]
    while unseen:
        item, depth = unseen.pop()
        if isinstance(item, RepeatingObject):
            return f"it has the key {min(item.repeated)!r} twice in one object"
        if depth > MAX_DEPTH:
            return f"it is nested deeper than {MAX_DEPTH} levels"
        if isinstance(item, dict | list):
            inner = item.values() if isinstance(item, dict) else item
            unseen.extend((each, depth + 1) for each in inner)
    return ""


def as_utf8(text: str) -> bytes:
    """JSON as bytes; half a surrogate pair, which UTF-8 does not have, is written as JSON's escape for it."""
    return text.encode("utf-8", "backslashreplace")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatingObject(pairs)
