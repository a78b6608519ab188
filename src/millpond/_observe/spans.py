"""What the parts of a loader did, and when: a span is one stretch of work of one lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

Stage = Literal["plan", "fetch", "decode", "gather", "consumer"]


LOSSES = {"DIED": "died", "STALLED": "hung", "TIMED_OUT": "timed out"}
"""Names of spans of work that its worker did not survive, by the names of causes."""


class Span(NamedTuple):
    """One stretch of work; stretches of one lane never overlap.

    Attributes:
        stage: What kind of work.
        lane: decode and gather: the worker's index; fetch: a lane of its own for each that is under way; else 0.
        began_ns: Of `time.monotonic_ns()`, which all processes of a machine share.
        ended_ns: Of the same clock; not before `began_ns`.
        name: Such as "decode", "transform", "GET", "wait", "training", "epoch order".
        facts: Such as epoch, batch, segment, samples, bytes, pid; for people.
        flows_in: Flows that end here, or pass.
        flows_out: Flows that begin here; one that came in as well passes.
    """

    stage: Stage
    lane: int
    began_ns: int
    ended_ns: int
    name: str
    facts: Mapping[str, int | str] = {}
    flows_in: tuple[int, ...] = ()
    flows_out: tuple[int, ...] = ()


class SpanSink(Protocol):
    """Takes spans as they end: from any thread, one at a time."""

    def write(self, span: Span) -> None:
        """Take one; never raises for what its medium does."""

    def close(self) -> None:
        """No more come; idempotent."""
