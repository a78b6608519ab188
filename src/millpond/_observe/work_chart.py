"""The time line of a loader: what plan, fetches, workers and the training loop did when, from its spans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millpond._observe.charts import Colour
from millpond._observe.spans import LOSSES, Span
from millpond._observe.time_line import Stretch, TimeLine

_COLOURS: dict[str, Colour] = {
    "plan": "fifth",
    "fetch": "fourth",
    "decode": "first",
    "gather": "second",
    "training": "neutral",
    "wait": "third",
    "died or hung": "limit",
}
_TOLD_FACTS = ("epoch", "batch", "segment", "samples", "bytes")


def work_chart(spans: Sequence[Span], since_ns: int) -> TimeLine | None:
    """What each lane did; None where there are no spans.

    Args:
        spans: Of `Loader.timeline()`: the last ones.
        since_ns: Where the axis begins, of `time.monotonic_ns()`; what ended before is left out.
    """
    shown = sorted((span for span in spans if span.ended_ns > since_ns), key=_rank)
    if not shown:
        return None
    stretches = [_stretch(span, since_ns) for span in shown]
    return TimeLine(
        "Who worked when",
        stretches,
        {kind: colour for kind, colour in _COLOURS.items() if any(stretch.kind == kind for stretch in stretches)},
        "The training loop waits where a batch that it wants is not ready; a worker is idle where the pond is full or "
        "bytes have not come yet. Of long epochs the end is drawn.",
        axis="seconds since the epoch began",
        rows=list(dict.fromkeys(stretch.row for stretch in stretches)),
    )


def _rank(span: Span) -> tuple[int, int]:
    """Rows from top to bottom: as work flows."""
    stages = ("plan", "fetch", "decode", "consumer")
    return stages.index("decode" if span.stage == "gather" else span.stage), span.lane


def _stretch(span: Span, since_ns: int) -> Stretch:
    began, ended = (max(0.0, (at - since_ns) / 1e9) for at in (span.began_ns, span.ended_ns))
    return Stretch(_row(span), _kind(span), began, ended, _label(span))


def _kind(span: Span) -> str:
    if span.name in LOSSES.values():
        return "died or hung"
    return ("wait" if span.name == "wait" else "training") if span.stage == "consumer" else span.stage


def _row(span: Span) -> str:
    """A worker decodes and gathers in turn: that is one row."""
    if span.stage == "consumer":
        return "training loop"
    if span.stage == "plan":
        return f"plan {span.lane}" if span.lane else "plan"
    return f"fetch {span.lane}" if span.stage == "fetch" else f"worker {span.lane}"


def _label(span: Span) -> str:
    facts: Iterable[str] = (f"{name} {_shown(span.facts[name])}" for name in _TOLD_FACTS if name in span.facts)
    return ", ".join([span.name, *facts])


def _shown(fact: int | str) -> str:
    return f"{fact:,}" if isinstance(fact, int) else fact
