"""Charts of a sweep's page: what ran when, jobs and memory of its chunks over time, and chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from millpond._observe.report import Chart, Colour, Limit, Line, Stretch, TimeLine
from millpond._plan.chunks import JobState
from millpond._sweep.chunk_times import PlacedChunk, TimeUnit, place_chunks, unit_of
from millpond._sweep.ledger_records import ChunkRecord, JobRecord
from millpond._sweep.orders import Look

_MIB = 1 << 20
_MOST_POINTS = 20_000
"""Of a chart: about 1 MB of the page. A chunk has its peak and 4 points even where there are thousands of chunks."""
_FEWEST_POINTS = 4
_WITHOUT_PAUSES = "Time in which no chunk ran is left out."
_KINDS: dict[str, Colour] = {"ended well": "first", "did not": "limit"}


def slots_over_time(chunks: Sequence[ChunkRecord]) -> TimeLine | None:
    """Which chunk ran when, beside which others, those that did not end well in another colour."""
    placed = place_chunks(chunks)
    if not placed:
        return None
    unit = unit_of(placed)
    return TimeLine(
        "What ran when",
        [_stretch(one, unit) for one in placed],
        {kind: colour for kind, colour in _KINDS.items() if any(_kind(one.chunk) == kind for one in placed)},
        _WITHOUT_PAUSES,
        axis=unit.name,
        unit=unit.short,
        rows=[_slot(number) for number in range(1 + max(one.slot for one in placed))],
    )


def jobs_over_time(jobs: Sequence[JobRecord], chunks: Sequence[ChunkRecord]) -> Chart | None:
    """How many jobs were done by then, and how many had failed."""
    placed = sorted(place_chunks(chunks), key=lambda one: one.ends)
    if not placed:
        return None
    unit = unit_of(placed)
    places = [0.0, *(one.ends / unit.seconds for one in placed)]
    states = {"done": JobState.DONE, "failed": JobState.FAILED}
    colours: dict[str, Colour] = {"done": "first", "failed": "limit"}
    lines = [Line(name, places, _ended_by(placed, jobs, states[name]), colour=colours[name]) for name in states]
    return Chart(
        "Jobs that are done",
        "jobs",
        [line for line in lines if line.name == "done" or any(line.values)],
        [Limit("all jobs", len(jobs))],
        axis=unit.name,
        at="after %{x:.1f} " + unit.short,
    )


def memory_over_time(chunks: Sequence[ChunkRecord], budget_bytes: int | None) -> Chart | None:
    """Summed PSS of each chunk's processes over the time that the sweep ran; None where nobody looked.

    Chunks that ran at the same time are different lines; a line's chunks are parted by gaps.
    """
    placed = place_chunks(chunks)
    looked = [one for one in placed if one.chunk.looks]
    if not looked:
        return None
    unit, most = unit_of(placed), max(_FEWEST_POINTS, _MOST_POINTS // len(looked))
    slots = sorted({one.slot for one in looked})
    return Chart(
        "Memory of each chunk over time (PSS, MiB)",
        "MiB",
        [_line(slot, [one for one in looked if one.slot == slot], most, unit) for slot in slots],
        _limits(budget_bytes),
        f"Each chunk is a fresh process tree. {_WITHOUT_PAUSES}",
        axis=unit.name,
        at="at %{x:.1f} " + unit.short,
    )


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


def _line(slot: int, placed: Sequence[PlacedChunk], most: int, unit: TimeUnit) -> Line:
    """Chunks that ran one after the other, with a gap behind each."""
    places: list[float] = []
    values: list[float | None] = []
    labels: list[str] = []
    for one in placed:
        points = [*_points(one, most), (one.ends, None)]
        places += [place / unit.seconds for place, _ in points]
        values += [value for _, value in points]
        labels += [f"chunk {one.chunk.number}"] * len(points)
    return Line(_slot(slot), places, values, labels)


def _points(one: PlacedChunk, most: int) -> list[tuple[float, float | None]]:
    """Looks at a chunk, of many the greatest of each few; and its end, so that a single look is a line, too."""
    looks = one.chunk.looks
    stride = -(-len(looks) // most)
    kept: list[Look] = [max(looks[at : at + stride], key=_size) for at in range(0, len(looks), stride)]
    ends = max(one.chunk.duration_seconds or 0.0, kept[-1].elapsed_seconds)
    points = [(look.elapsed_seconds, look.pss_bytes) for look in kept] + [(ends, kept[-1].pss_bytes)]
    return [(one.begins + seconds, size / _MIB) for seconds, size in points]


def _size(look: Look) -> int:
    return look.pss_bytes


def _bars(name: str, chunks: Sequence[ChunkRecord], colour: Colour | None = None) -> Line:
    peaks = [chunk.peak_pss_bytes / _MIB for chunk in chunks]
    return Line(name, [chunk.number for chunk in chunks], peaks, colour=colour)


def _limits(budget_bytes: int | None) -> list[Limit]:
    return [] if budget_bytes is None else [Limit("budget", budget_bytes / _MIB)]


def _stretch(one: PlacedChunk, unit: TimeUnit) -> Stretch:
    chunk = one.chunk
    why = chunk.reason.strip().partition("\n")[0]
    label = f"chunk {chunk.number}, {len(chunk.names):,} jobs{f': {why}' if why else ''}"
    return Stretch(_slot(one.slot), _kind(chunk), one.begins / unit.seconds, one.ends / unit.seconds, label)


def _kind(chunk: ChunkRecord) -> str:
    return "did not" if chunk.reason else "ended well"


def _slot(number: int) -> str:
    return f"slot {number + 1}"


def _ended_by(placed: Sequence[PlacedChunk], jobs: Sequence[JobRecord], state: JobState) -> list[float]:
    """Jobs of a state at the sweep's beginning, and after each of the chunks."""
    of_chunk = Counter(job.chunk for job in jobs if job.state is state)
    return list(accumulate((float(of_chunk[one.chunk.number]) for one in placed), initial=0.0))
