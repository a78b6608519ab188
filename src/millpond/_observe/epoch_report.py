"""What the page of an epoch shows: throughput, memory, the pond and descriptors over time, the books, what was skipped,
where it was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from millpond._observe.environment import environment_facts
from millpond._observe.memory import MemoryPoint
from millpond._observe.meter import BatchMeter
from millpond._observe.report import Cell, Chart, Limit, Line, Table

_ENDS_IN_A_SPIKE = (
    "Where the curve ends in a spike, everything was decoded: the pond then empties faster than frames can be decoded."
)

_EPOCH_SECONDS = "seconds since the epoch began"
_LOADER_SECONDS = "seconds since construction"

_DESCRIPTORS = {
    "pipes": "pipes",
    "sockets": "sockets",
    "files": "files",
    "memfds": "shared memory",
    "others": "others (events, polls)",
}

_NOT_WHAT = {"time", "epoch", "sample", "error", "message", "stack"}
"""Of a quarantine record: what has a column of its own, or none."""

_MOST_ERRORS = 100
"""Rows; a programme reads the rest."""


def throughput_chart(meter: BatchMeter, ceiling_samples_per_second: float | None = None) -> Chart:
    """Samples per second over time, below the ceiling where that is known."""
    throughput = meter.throughput()
    line = Line("samples/s", throughput.elapsed_seconds.tolist(), throughput.samples_per_second.tolist())
    limits = [] if ceiling_samples_per_second is None else [Limit("ceiling", ceiling_samples_per_second)]
    return Chart("Throughput (samples/s)", "samples/s", [line], limits, _ENDS_IN_A_SPIKE, axis=_EPOCH_SECONDS)


def memory_chart(points: Sequence[MemoryPoint], budget_bytes: int) -> Chart:
    """Growth of PSS since the first look, by part of the process tree, below `memory=`."""
    lines = [
        _growth("training process", points, [point.training.pss_bytes for point in points]),
        _growth("workers", points, [point.below.pss_bytes for point in points]),
    ]
    limits = [Limit("budget", budget_bytes / 2**20)]
    return Chart(
        "Memory that the loader added (PSS, MiB)",
        "MiB",
        lines,
        limits,
        "PSS counts each page of the arena once, however many processes share it.",
        kind="stack",
        axis=_LOADER_SECONDS,
    )


def pond_chart(meter: BatchMeter, pond_slots: int) -> Chart:
    """Open slots at each batch, of how many there are."""
    seconds, levels = meter.pond_levels()
    line = Line("open slots", seconds.tolist(), levels.tolist())
    caption = "Open slots hold decoded samples that wait for their batches."
    limits = [Limit("all slots", pond_slots)]
    return Chart("Pond level (open slots)", "slots", [line], limits, caption, axis=_EPOCH_SECONDS)


def descriptors_chart(points: Sequence[MemoryPoint]) -> Chart:
    """Open descriptors of the process tree, by kind."""
    seconds = [point.elapsed_seconds for point in points]
    lines = [
        Line(name, seconds, [getattr(point.descriptors, kind) for point in points])
        for kind, name in _DESCRIPTORS.items()
    ]
    return Chart(
        "Open descriptors (all processes)",
        "",
        lines,
        caption="A leak is a curve that climbs as long as batches come, until the limit of open files ends the run.",
        kind="stack",
        axis=_LOADER_SECONDS,
    )


def books_table(books: Mapping[str, int]) -> Table:
    """Of the epoch, in order: planned, delivered, ..."""
    return Table("The epoch's books", list(books.items()))


def errors_table(quarantine: Path) -> Table:
    """Samples that were skipped, and why: the first ones of a quarantine file, and how many more it has."""
    if not quarantine.exists():
        return Table("Errors", [])
    with quarantine.open(encoding="utf-8", errors="replace") as lines:
        rows = [_error_row(_record(line)) for line in islice(lines, _MOST_ERRORS)]
        more = sum(1 for _ in lines)
    caption = f"{more:,} more rows: all {len(rows) + more:,} stand in {quarantine.name}." if more else ""
    return Table("Errors", rows, ("sample", "epoch", "what", "error", "message"), caption)


def environment_table() -> Table:
    """This machine, and the versions that matter."""
    return Table("Measured on", list(environment_facts().items()))


def _growth(name: str, points: Sequence[MemoryPoint], sizes: Sequence[int]) -> Line:
    grown = [max(0, size - sizes[0]) / 2**20 for size in sizes]
    return Line(name, [point.elapsed_seconds for point in points], grown)


def _record(line: str) -> Mapping[str, Any]:
    """A line that is not whole, since who wrote it was killed or the disk is full, is a record of itself."""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"error": "not a record", "message": line}


def _error_row(record: Mapping[str, Any]) -> Sequence[Cell]:
    """Of the message the first line; stacks are for the file."""
    told = {name: value for name, value in record.items() if name not in _NOT_WHAT}
    what = ", ".join(f"{name} {value}" for name, value in told.items())
    first, *_ = str(record.get("message", "")).splitlines() or [""]
    return str(record.get("sample", "")), record.get("epoch"), what, str(record.get("error")), first
