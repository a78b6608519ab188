"""Which requests fetch many ranges of one object, and where in them each range lies. Pure: no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from millpond._values import ByteRange


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `stop` of what request `request` brings, counted from the request's own start."""

    request: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """What to fetch, and what becomes of it.

    Attributes:
        requests: Disjoint, by offset, none empty.
        pieces: For each range, in the order given: what it consists of, in order. An empty range has none.
    """

    requests: tuple[ByteRange, ...]
    pieces: tuple[tuple[Piece, ...], ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all requests."""
        return sum(map(len, self.requests))


def plan_requests(ranges: Sequence[ByteRange], max_gap_bytes: int, max_request_bytes: int) -> RequestPlan:
    """Join ranges that lie close together, and split what is large.

    Args:
        ranges: Any order, overlaps allowed, empty ones too.
        max_gap_bytes: Up to so many bytes between two ranges are fetched along. 0 joins only what touches.
        max_request_bytes: What is longer is split into requests of nearly equal length.
    """
    if max_gap_bytes < 0 or max_request_bytes < 1:
        raise ValueError(f"gaps of {max_gap_bytes} and requests of {max_request_bytes} bytes make no plan")
    requests: list[ByteRange] = []
    pieces: list[tuple[Piece, ...]] = [()] * len(ranges)
    for run, members in _runs(ranges, max_gap_bytes):
        first, cuts = len(requests), _cuts(run, max_request_bytes)
        requests += map(ByteRange, cuts[:-1], cuts[1:])
        for member in members:
            pieces[member] = _pieces(ranges[member], requests, first)
    return RequestPlan(tuple(requests), tuple(pieces))


def _runs(ranges: Sequence[ByteRange], max_gap_bytes: int) -> list[tuple[ByteRange, list[int]]]:
    """Ranges that are fetched together, with the places of those in the list given."""
    runs: list[tuple[ByteRange, list[int]]] = []
    for place in sorted((i for i in range(len(ranges)) if len(ranges[i]) > 0), key=lambda i: ranges[i]):
        wanted = ranges[place]
        if runs and wanted.start - runs[-1][0].stop <= max_gap_bytes:
            run, members = runs[-1]
            members.append(place)
            runs[-1] = ByteRange(run.start, max(run.stop, wanted.stop)), members
        else:
            runs.append((wanted, [place]))
    return runs


def _cuts(run: ByteRange, max_request_bytes: int) -> list[int]:
    parts = -(-len(run) // max_request_bytes)
    return [run.start + len(run) * i // parts for i in range(parts + 1)]


def _pieces(wanted: ByteRange, requests: Sequence[ByteRange], first: int) -> tuple[Piece, ...]:
    found = []
    for i in range(max(first, bisect_right(requests, wanted.start, key=lambda one: one.start) - 1), len(requests)):
        if requests[i].start >= wanted.stop:
            break
        start, stop = max(wanted.start, requests[i].start), min(wanted.stop, requests[i].stop)
        if start < stop:
            found.append(Piece(i, start - requests[i].start, stop - requests[i].start))
    return tuple(found)
