"""Charts of a page: lines, stacks and bars with their units and limits, as plain values."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Colour = Literal["first", "second", "third", "fourth", "fifth", "neutral", "limit"]
"""Of the page's palette. The five are told apart without red or green, too; "neutral" only stands back from them."""

_TURNS: tuple[Colour, ...] = ("first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time, or over whatever else: `values[i]` at `places[i]`; None, and what is not finite, leaves a gap.

    Attributes:
        name: In the legend, where there is more than one.
        places: On the horizontal axis.
        values: As many, in the chart's unit.
        labels: As many texts that are shown in place of the name when a point is looked at; or none.
        colour: None: as the line's turn is.
    """

    name: str
    places: Sequence[float]
    values: Sequence[float | None]
    labels: Sequence[str] = ()
    colour: Colour | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A value that is drawn as a line across."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines, or bars, that share their axes.

    Attributes:
        title: Says what is drawn, with its unit.
        unit: Of the values.
        lines: At least one.
        limits: Drawn across.
        caption: Below the chart.
        kind: "stack": lines upon each other, which share their places.
        axis: Title of the horizontal axis.
        at: Where a point is, when it is looked at; %{x} is its place.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    limits: Sequence[Limit] = ()
    caption: str = ""
    kind: Literal["lines", "stack", "bars"] = "lines"
    axis: str = "seconds"
    at: str = "at %{x:.1f} s"


def colour_in_turn(turn: int) -> Colour:
    """Of a line that has none of its own."""
    return _TURNS[turn % len(_TURNS)]


def chart_as_data(chart: Chart) -> dict[str, Any]:
    """As the page's script takes it; plotly reads markup in texts, as HTML does."""
    return {
        "kind": chart.kind,
        "unit": chart.unit,
        "axis": chart.axis,
        "at": chart.at,
        "caption": chart.caption,
        "lines": [_series(line, colour_in_turn(turn)) for turn, line in enumerate(chart.lines)],
        "limits": [
            {"name": html.escape(limit.name), "y": _drawn(limit.value)}
            for limit in chart.limits
            if math.isfinite(limit.value)
        ],
    }


def _drawn(value: float | None) -> float | None:
    """None: a gap."""
    return None if value is None or not math.isfinite(value) else round(float(value), 2)


def _series(line: Line, colour: Colour) -> dict[str, Any]:
    series: dict[str, Any] = {
        "name": html.escape(line.name),
        "x": [round(float(place), 3) for place in line.places],
        "y": list(map(_drawn, line.values)),
        "colour": line.colour or colour,
    }
    if line.labels:
        series["labels"] = [html.escape(label) for label in line.labels]
    return series
