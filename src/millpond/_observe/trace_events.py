"""A loader's spans as events of the Chrome trace format, which Perfetto and chrome://tracing read.

Stages are the format's processes, and lanes its threads, so that each worker has a track of its own; the real pids are
among the facts. A span is a complete event ("X"). Its flows are bound to its last nanosecond, and where the consumer
waited for what flows to it, to an event of their own after the wait: so every flow runs forward in time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import get_args

from millpond._observe.spans import Span, Stage

_STAGES: tuple[str, ...] = get_args(Stage)
_LANES = {"fetch": "request", "decode": "worker", "gather": "worker"}
_NAMED_LANES = {("plan", 0): "epoch order", ("plan", 1): "tasks", ("consumer", 0): "training loop"}
_DELIVERY_NS = 100  # less than it takes to do anything with a batch
LEVEL_FACT = "open_slots"
"""Spans that carry this fact draw the pond's level."""
BEGINNING = '{"ph":"M","name":"process_sort_index","pid":1,"tid":1000,"args":{"sort_index":1}}'
"""A first event, of the plan's track, so that each that follows begins with a comma, whichever of them are lost."""
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: json.dumps would each time


class TraceEvents:
    """Makes the events of one trace; names each track once, before its first event."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[Stage, int], str] = {}

    def of(self, span: Span) -> Iterator[str]:
        """JSON objects, in order."""
        track = self._tracks.get((span.stage, span.lane))
        if track is None:
            track = self._tracks[span.stage, span.lane] = _track(span.stage, span.lane)
            yield from _names(span, track)
        for part in _parts(span):
            yield _work(part, track)
            yield from _flows(part, track)
        if LEVEL_FACT in span.facts:
            yield _level(span, track)


def last_remark(remark: str, at_ns: int) -> str:
    """An event, on the consumer's track, that says why nothing follows."""
    track = _track("consumer", 0)
    return f'{{"ph":"i","s":"t","name":{_as_json(remark)},"cat":"trace",{track},"ts":{_microseconds(at_ns)}}}'


def _microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"


def _process(stage: Stage) -> int:
    return _STAGES.index(stage) + 1  # 0 is the idle process of a system


def _track(stage: Stage, lane: int) -> str:
    """What says which track an event is on; no two tracks of a trace share their thread."""
    process = _process(stage)
    return f'"pid":{process},"tid":{1000 * process + lane}'


def _names(span: Span, track: str) -> Iterator[str]:
    yield _metadata(track, "process_name", "name", span.stage)
    yield _metadata(track, "process_sort_index", "sort_index", _process(span.stage))
    yield _metadata(track, "thread_name", "name", _lane_name(span))
    yield _metadata(track, "thread_sort_index", "sort_index", span.lane)


def _metadata(track: str, name: str, key: str, value: str | int) -> str:
    return f'{{"ph":"M","name":"{name}",{track},"args":{{"{key}":{_as_json(value)}}}}}'


def _lane_name(span: Span) -> str:
    if span.facts.get("pid") == os.getpid():
        return "training process"  # which decodes itself
    named = _NAMED_LANES.get((span.stage, span.lane))
    return named or f"{_LANES.get(span.stage, span.stage)} {span.lane}"


def _parts(span: Span) -> Iterator[Span]:
    """A wait as two: Perfetto has flows lead from what began earlier, and work that was waited for began later."""
    if span.stage != "consumer" or not span.flows_in:
        yield span._replace(ended_ns=max(span.ended_ns, span.began_ns + 1))  # an event of no length encloses no flow
        return
    yield from _parts(span._replace(flows_in=()))
    yield span._replace(name="delivery", began_ns=span.ended_ns, ended_ns=span.ended_ns + _DELIVERY_NS)


def _work(span: Span, track: str) -> str:
    name, args = _as_json(span.name), _as_json(dict(span.facts))
    times = f'"ts":{_microseconds(span.began_ns)},"dur":{_microseconds(span.ended_ns - span.began_ns)}'
    return f'{{"ph":"X","name":{name},"cat":"{span.stage}",{track},{times},"args":{args}}}'


def _flows(span: Span, track: str) -> Iterator[str]:
    passing = set(span.flows_in).intersection(span.flows_out)
    rest = f'"name":"sample","cat":"sample",{track},"ts":{_microseconds(span.ended_ns - 1)}}}'
    for flow in span.flows_in:
        kind = '"t"' if flow in passing else '"f","bp":"e"'
        yield f'{{"ph":{kind},"id":{flow},{rest}'
    for flow in span.flows_out:
        if flow not in passing:
            yield f'{{"ph":"s","id":{flow},{rest}'


def _level(span: Span, track: str) -> str:
    args = _as_json({"slots": span.facts[LEVEL_FACT]})
    return f'{{"ph":"C","name":"open slots",{track},"ts":{_microseconds(span.ended_ns)},"args":{args}}}'
