"""Charts of a sweep's page: the memory of its chunks over time, and chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from millpond._observe.report import Chart, Colour, Limit, Line
from millpond._sweep.ledger_records import ChunkRecord
from millpond._sweep.orders import Look

_MIB = 1 << 20
_MOST_POINTS = 20_000
"""Of a chart: about 1 MB of the page. A chunk has its peak and 4 points even where there are thousands of chunks."""
_FEWEST_POINTS = 4
_PAUSE_SECONDS = 10.0
"""When no chunk runs for longer, nobody ran the sweep: that time is left out."""


@dataclass(slots=True)
class _Lane:
    """Chunks that ran one after the other, as one line with gaps."""

    free_at: float = 0.0
    places: list[float] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, number: int, points: Iterable[tuple[float, float]], ends_at: float) -> None:
        self.free_at = ends_at
        for place, value in points:
            self.places.append(place)
            self.values.append(value)
        self.places.append(ends_at)
        self.values.append(None)
        self.labels += [f"chunk {number}"] * (len(self.places) - len(self.labels))


def memory_over_time(chunks: Sequence[ChunkRecord], budget_bytes: int | None) -> Chart | None:
    """Summed PSS of each chunk's processes over the time that the sweep ran; None where nobody looked.

    Chunks that ran at the same time are different lines; a line's chunks are parted by gaps.
    """
    looked = sorted((chunk for chunk in chunks if chunk.looks and chunk.duration_seconds), key=lambda one: one.began_at)
    if not looked:
        return None
    most = max(_FEWEST_POINTS, _MOST_POINTS // len(looked))
    starts = _starts_without_pauses(looked)
    lanes: list[_Lane] = []
    for chunk, start in zip(looked, starts, strict=True):
        lane = next((lane for lane in lanes if lane.free_at <= start), None)
        if lane is None:
            lanes.append(lane := _Lane())
        lane.add(chunk.number, _points(chunk, start, most), start + (chunk.duration_seconds or 0.0))
    return _over_time(lanes, _limits(budget_bytes))


def peak_of_each_chunk(chunks: Sequence[ChunkRecord], budget_bytes: int | None) -> Chart | None:
    """The greatest summed PSS of each chunk, those that did not end well in another colour; None with less than two."""
    looked = [chunk for chunk in chunks if chunk.peak_pss_bytes]
    if len(looked) < 2:
        return None
    clean = _bars("ended well", [chunk for chunk in looked if not chunk.reason])
    others = _bars("did not", [chunk for chunk in looked if chunk.reason], "limit")
    return Chart(
        "Peak memory of each chunk (PSS, MiB)",
        "MiB",
        [line for line in (clean, others) if line.places],
        _limits(budget_bytes),
        kind="bars",
        axis="chunk",
        at="in chunk %{x}",
    )


def _over_time(lanes: Sequence[_Lane], limits: Sequence[Limit]) -> Chart:
    unit, short, seconds = _time_unit(max(lane.free_at for lane in lanes))
    lines = [
        Line(f"side by side, {number}", [place / seconds for place in lane.places], lane.values, lane.labels)
        for number, lane in enumerate(lanes, 1)
    ]
    return Chart(
        "Memory of each chunk over time (PSS, MiB)",
        "MiB",
        lines,
        limits,
        "Each chunk is a fresh process tree. Time in which no chunk ran is left out.",
        axis=unit,
        at="at %{x:.1f} " + short,
    )


def _starts_without_pauses(chunks: Sequence[ChunkRecord]) -> list[float]:
    """Seconds since the sweep began at which each chunk did; chunks are sorted by that."""
    starts, left_out, latest_end = [], chunks[0].began_at, chunks[0].began_at
    for chunk in chunks:
        if chunk.began_at - latest_end > _PAUSE_SECONDS:
            left_out += chunk.began_at - latest_end
        starts.append(chunk.began_at - left_out)
        latest_end = max(latest_end, chunk.began_at + (chunk.duration_seconds or 0.0))
    return starts


def _points(chunk: ChunkRecord, start: float, most: int) -> list[tuple[float, float]]:
    """Looks at a chunk, of many the greatest of each few; and its end, so that a single look is a line, too."""
    looks = chunk.looks
    stride = -(-len(looks) // most)
    kept: list[Look] = [max(looks[at : at + stride], key=_size) for at in range(0, len(looks), stride)]
    ends = max(chunk.duration_seconds or 0.0, kept[-1].elapsed_seconds)
    points = [(look.elapsed_seconds, look.pss_bytes) for look in kept] + [(ends, kept[-1].pss_bytes)]
    return [(start + seconds, size / _MIB) for seconds, size in points]


def _size(look: Look) -> int:
    return look.pss_bytes


def _bars(name: str, chunks: Sequence[ChunkRecord], colour: Colour | None = None) -> Line:
    peaks = [chunk.peak_pss_bytes / _MIB for chunk in chunks]
    return Line(name, [chunk.number for chunk in chunks], peaks, colour=colour)


def _limits(budget_bytes: int | None) -> list[Limit]:
    return [] if budget_bytes is None else [Limit("budget", budget_bytes / _MIB)]


def _time_unit(span_seconds: float) -> tuple[str, str, float]:
    if span_seconds < 600:
        return "seconds", "s", 1.0
    return ("minutes", "min", 60.0) if span_seconds < 4 * 3600 else ("hours", "h", 3600.0)
