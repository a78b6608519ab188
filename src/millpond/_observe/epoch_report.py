"""What the page of an epoch shows: throughput, memory and the pond over time, the books, where it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millpond._observe.environment import environment_facts
from millpond._observe.memory import MemoryPoint
from millpond._observe.meter import BatchMeter
from millpond._observe.report import Chart, Limit, Line, Table

_ENDS_IN_A_SPIKE = (
    "Where the curve ends in a spike, everything was decoded: the pond then empties faster than frames can be decoded."
)


def throughput_chart(meter: BatchMeter, ceiling_samples_per_second: float | None = None) -> Chart:
    """Samples per second over time, below the ceiling where that is known."""
    throughput = meter.throughput()
    line = Line("samples/s", throughput.elapsed_seconds.tolist(), throughput.samples_per_second.tolist())
    limits = [] if ceiling_samples_per_second is None else [Limit("ceiling", ceiling_samples_per_second)]
    return Chart("Throughput (samples/s)", "samples/s", [line], limits, _ENDS_IN_A_SPIKE)


def memory_chart(points: Sequence[MemoryPoint], budget_bytes: int) -> Chart:
    """Growth of PSS since the first look, by part of the process tree, below `memory=`."""
    lines = [
        _growth("training process", points, [point.training.pss_bytes for point in points]),
        _growth("workers", points, [point.below.pss_bytes for point in points]),
    ]
    limits = [Limit("memory= budget", budget_bytes / 2**20)]
    return Chart("Memory since before construction (PSS, MiB)", "MiB", lines, limits, kind="stack")


def pond_chart(meter: BatchMeter, pond_slots: int) -> Chart:
    """Open slots at each batch, of how many there are."""
    seconds, levels = meter.pond_levels()
    line = Line("open slots", seconds.tolist(), levels.tolist())
    return Chart("Pond level (open slots)", "slots", [line], [Limit("all slots", pond_slots)])


def books_table(books: Mapping[str, int]) -> Table:
    """Of the epoch, in order: planned, delivered, ..."""
    return Table("The epoch's books", list(books.items()))


def environment_table() -> Table:
    """This machine, and the versions that matter."""
    return Table("Measured on", list(environment_facts().items()))


def _growth(name: str, points: Sequence[MemoryPoint], sizes: Sequence[int]) -> Line:
    grown = [max(0, size - sizes[0]) / 2**20 for size in sizes]
    return Line(name, [point.elapsed_seconds for point in points], grown)
