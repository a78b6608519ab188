"""Traces in the Chrome format as tests look at them: read strictly, also cut short, and held against the format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]

# After the "Trace Event Format" document of the Chromium project: of each kind exactly these keys, on a track each.
_KEYS = {
    "X": {"name", "cat", "ts", "dur", "args"},
    "s": {"name", "cat", "ts", "id"},
    "t": {"name", "cat", "ts", "id"},
    "f": {"name", "cat", "ts", "id", "bp"},
    "C": {"name", "ts", "args"},
    "i": {"name", "cat", "ts", "s"},
    "M": {"name", "args"},
}
_METADATA = {
    "process_name": ("name", str),
    "thread_name": ("name", str),
    "process_sort_index": ("sort_index", int),
    "thread_sort_index": ("sort_index", int),
}


def read_events(path: Path) -> list[Event]:
    """All events of a trace that was ended, each held against the format."""
    return _checked(json.loads(path.read_text(encoding="utf-8")))


def read_cut_short(path: Path) -> list[Event]:
    """All events of a trace without its end: the format says that the bracket may be missing."""
    return _checked(json.loads(path.read_text(encoding="utf-8") + "]"))


def of_kind(events: list[Event], *kinds: str) -> Iterator[Event]:
    return (event for event in events if event["ph"] in kinds)


def _checked(events: list[Event]) -> list[Event]:
    for event in events:
        _check(event)
    return events


def _check(event: Event) -> None:
    assert set(event) == _KEYS[event["ph"]] | {"ph", "pid", "tid"}, event
    assert event["name"], event
    assert min(event["pid"], event["tid"]) >= 1, event
    assert event.get("ts", 0) >= 0, event
    assert event.get("dur", 1) > 0, event
    assert event.get("bp", "e") == "e", event
    if event["ph"] == "M":
        key, kind = _METADATA[event["name"]]
        assert isinstance(event["args"][key], kind), event
    if event["ph"] == "C":
        assert all(isinstance(value, int) for value in event["args"].values()), event
