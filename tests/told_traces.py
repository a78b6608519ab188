"""Loaders' traces as tests question them: what is on which track, and what a delivery came from, by its flows alone."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from chrome_traces import Event, of_kind
from millpond import Loader
from millpond._observe.spans import LOSSES
from millpond._plan.epoch import EpochPlan
from millpond._plan.memory import plan_within

Track = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Told:
    """A span as a trace tells it.

    Attributes:
        stage: Such as "decode".
        name: Such as "wait".
        track: Its process and thread in the trace.
        began_ns: As written.
        ended_ns: As written.
        facts: About it.
    """

    stage: str
    name: str
    track: Track
    began_ns: int
    ended_ns: int
    facts: dict[str, Any]


class ToldTrace:
    """A loader's trace, from its events.

    Attributes:
        spans: In order of time, by track.
        origins: Of each span, those whose flows lead to it.
    """

    def __init__(self, events: list[Event]) -> None:
        self.spans: dict[Track, list[Told]] = defaultdict(list)
        for span in sorted(map(_told, of_kind(events, "X")), key=lambda span: span.began_ns):
            self.spans[span.track].append(span)
        self.origins: dict[Told, list[Told]] = defaultdict(list)
        last: dict[int, Told] = {}  # where each flow was last
        for event in sorted(of_kind(events, "s", "t", "f"), key=lambda event: (_ns(event["ts"]), event["ph"] != "s")):
            here = self._enclosing(event)
            if event["ph"] == "s":
                assert event["id"] not in last, f"flow {event['id']} begins twice"
            else:
                self.origins[here].append(last[event["id"]])  # KeyError: it ends before it has begun
            last[event["id"]] = here

    def _enclosing(self, event: Event) -> Told:
        """The span that a flow is bound to."""
        on_track = self.spans[event["pid"], event["tid"]]
        at_ns = _ns(event["ts"])
        span = on_track[bisect_right(on_track, at_ns, key=lambda span: span.began_ns) - 1]
        assert span.began_ns <= at_ns < span.ended_ns, f"{event} is in no span"
        return span

    def of(self, stage: str, name: str | None = None, **facts: Any) -> list[Told]:
        """Spans of a stage, by name and facts, in order of time."""
        found = [span for spans in self.spans.values() for span in spans if span.stage == stage]
        chosen = [span for span in found if name in (None, span.name) and facts.items() <= span.facts.items()]
        return sorted(chosen, key=lambda span: span.began_ns)

    def deliveries(self, epoch: int) -> list[Told]:
        """Of batches, in order."""
        return self.of("consumer", "delivery", epoch=epoch)

    def behind(self, span: Told, stage: str) -> list[Told]:
        """Spans of a stage that flows lead from to this one, over however many others."""
        near = self.origins[span]
        return [origin for origin in near if origin.stage == stage] + [
            far for origin in near for far in self.behind(origin, stage)
        ]


def _ns(microseconds: float) -> int:
    return round(microseconds * 1000)


def _told(event: Event) -> Told:
    began_ns = _ns(event["ts"])
    track = event["pid"], event["tid"]
    return Told(event["cat"], event["name"], track, began_ns, began_ns + _ns(event["dur"]), event["args"])


def epoch_plan(loader: Loader, epoch: int) -> EpochPlan:
    """What an epoch of a loader that has begun one does, from the start."""
    assert loader._running is not None
    return plan_within(loader._demand, loader._plan, loader._running.cutting, epoch)


def segments_by_batch(plan: EpochPlan) -> dict[int, set[int]]:
    """Which segments have rows in each batch."""
    segments = np.repeat(np.arange(plan.num_segments), np.diff(plan.segment_bounds))
    found: dict[int, set[int]] = defaultdict(set)
    for batch, segment in zip(plan.batches.tolist(), segments.tolist(), strict=True):
        found[batch].add(segment)
    return found


def require_tracks_without_overlap(trace: ToldTrace) -> None:
    """What a viewer would draw as nested was never so."""
    for spans in trace.spans.values():
        for earlier, later in pairwise(spans):
            assert earlier.ended_ns <= later.began_ns, (earlier, later)


def require_flows_forward_in_time(trace: ToldTrace) -> None:
    """What leads to a span ended before that began."""
    for span, origins in trace.origins.items():
        for origin in origins:
            assert origin.ended_ns <= span.began_ns, (origin, span)


def require_origins(trace: ToldTrace, plan: EpochPlan, epoch: int, parts: set[str]) -> None:
    """Each batch has a delivery, and behind it are all parts of the segments that it has rows of, and no others."""
    expected = segments_by_batch(plan)
    deliveries = trace.deliveries(epoch)
    assert [span.facts["batch"] for span in deliveries] == sorted(expected)
    for delivery in deliveries:
        decodes = trace.behind(delivery, "decode")
        assert {span.facts["epoch"] for span in decodes} == {epoch}
        wanted = {(segment, part) for segment in expected[delivery.facts["batch"]] for part in parts}
        assert {decoded for span in decodes for decoded in _parts(span)} == wanted


def _parts(span: Told) -> Iterator[tuple[int, str]]:
    return ((span.facts["segment"], part) for part in span.facts["parts"].split(", "))


def decoded_samples(trace: ToldTrace, epoch: int) -> Counter[str]:
    """How many samples the decodes of an epoch had that came to their end, of each part."""
    counts: Counter[str] = Counter()
    for span in trace.of("decode", epoch=epoch):
        if span.name in LOSSES.values():
            continue
        for _, part in _parts(span):
            counts[part] += span.facts["samples"]
    return counts
