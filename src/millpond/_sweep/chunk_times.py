"""When each chunk ran, on the time that the sweep ran, and beside which others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millpond._sweep.ledger_records import ChunkRecord

_PAUSE_SECONDS = 10.0
"""When no chunk runs for longer, nobody ran the sweep: that time is left out."""


@dataclass(frozen=True, slots=True)
class PlacedChunk:
    """A chunk that has ended.

    Attributes:
        chunk: It.
        begins: Seconds since the sweep began.
        ends: Of the same.
        slot: From 0; chunks of a slot ran one after the other.
    """

    chunk: ChunkRecord
    begins: float
    ends: float
    slot: int


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """What an axis is in: its title, its short name, and how long it is."""

    name: str
    short: str
    seconds: float


def place_chunks(chunks: Sequence[ChunkRecord]) -> list[PlacedChunk]:
    """Those that have ended, in the order in which they began."""
    ended = sorted((chunk for chunk in chunks if chunk.duration_seconds), key=lambda chunk: chunk.began_at)
    placed, free_at = [], list[float]()
    for chunk, begins in zip(ended, _starts_without_pauses(ended), strict=True):
        ends = begins + (chunk.duration_seconds or 0.0)
        slot = next((slot for slot, free in enumerate(free_at) if free <= begins), len(free_at))
        free_at[slot : slot + 1] = [ends]
        placed.append(PlacedChunk(chunk, begins, ends, slot))
    return placed


def unit_of(placed: Sequence[PlacedChunk]) -> TimeUnit:
    """In which all of it reads well."""
    span_seconds = max((one.ends for one in placed), default=0.0)
    if span_seconds < 600:
        return TimeUnit("seconds", "s", 1.0)
    return TimeUnit("minutes", "min", 60.0) if span_seconds < 4 * 3600 else TimeUnit("hours", "h", 3600.0)


def _starts_without_pauses(chunks: Sequence[ChunkRecord]) -> list[float]:
    """Seconds since the sweep began at which each chunk did; chunks are sorted by that."""
    starts, left_out, latest_end = [], 0.0, 0.0
    for place, chunk in enumerate(chunks):
        if place == 0:
            left_out = latest_end = chunk.began_at
        if chunk.began_at - latest_end > _PAUSE_SECONDS:
            left_out += chunk.began_at - latest_end
        starts.append(chunk.began_at - left_out)
        latest_end = max(latest_end, chunk.began_at + (chunk.duration_seconds or 0.0))
    return starts
