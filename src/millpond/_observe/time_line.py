"""A chart of what was worked on when: a row for each worker, a bar for each stretch of its work.

A bar finer than a pixel says nothing, and thousands of them make a slow page: neighbours that nobody could tell apart
are drawn as one bar, paler the less of its time was worked, as the eye would have mixed them. It is done here for a
large screen, which bounds the page, and again by the page's script where the screen is smaller.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from millpond._observe.charts import Colour

_PIXELS, _FEWEST_PIXELS = 1000, 200
"""Of the width of a chart on a large screen, and on a small one."""
_LONGEST_MERGED_PIXELS = 5
"""A merged bar ends there, so that a row that grows busier is seen to."""
_FAR = 0.2
"""Of the axis: that much of it is left empty to begin at zero, and no more."""
_MOST_ROWS = 64
"""Of a chart: more do not fit a screen."""
_MERGED = "Stretches of work less than a pixel apart are one bar, paler the less of its time was worked."


class Stretch(NamedTuple):
    """Work of one row, without a break.

    Attributes:
        row: Whose it is, such as "worker 3".
        kind: What it is, such as "decode"; in the legend.
        begins: On the horizontal axis.
        ends: On it, too.
        label: What is shown where it is looked at.
    """

    row: str
    kind: str
    begins: float
    ends: float
    label: str


@dataclass(frozen=True, slots=True)
class TimeLine:
    """Stretches of work, by row.

    Attributes:
        title: Says what is drawn.
        stretches: In any order; those of one row and kind do not overlap.
        colours: By kind, in the order of the legend.
        caption: Below the chart; what was merged or left out is added.
        axis: Title of the horizontal axis.
        unit: Of that axis, short.
        rows: From top to bottom; () for the order in which they come up.
    """

    title: str
    stretches: Sequence[Stretch]
    colours: Mapping[str, Colour]
    caption: str = ""
    axis: str = "seconds"
    unit: str = "s"
    rows: Sequence[str] = ()


@dataclass(slots=True)
class DrawnBar:
    """Stretches of one row and kind that are drawn as one bar.

    Attributes:
        begins: On the axis.
        ends: On the axis.
        worked: Length of the stretches alone.
        label: Of the first one.
        count: How many.
    """

    begins: float
    ends: float
    worked: float
    label: str
    count: int = 1

    @property
    def share(self) -> float:
        """Of its length that was worked."""
        length = self.ends - self.begins
        return min(1.0, self.worked / length) if length > 0 else 1.0


def time_line_as_data(chart: TimeLine) -> dict[str, Any]:
    """As the page's script takes it: what cannot be told apart is merged, rows that are too many are left out."""
    named = list(chart.rows) or list(dict.fromkeys(stretch.row for stretch in chart.stretches))
    rows = {row: place for place, row in enumerate(named[:_MOST_ROWS])}
    shown = sorted(stretch for stretch in chart.stretches if stretch.row in rows)
    begins, ends = _extent(shown)
    length = ends - begins
    groups = [(row, kind, list(group)) for (row, kind), group in groupby(shown, key=itemgetter(0, 1))]
    bars: dict[str, list[tuple[int, DrawnBar]]] = {kind: [] for kind in chart.colours}
    for row, kind, group in groups:
        bars[kind] += [(rows[row], bar) for bar in merged(group, length / _PIXELS)]
    is_merged = any(len(merged(group, length / _FEWEST_PIXELS)) < len(group) for _, _, group in groups)
    digits = max(0, 4 - len(str(int(length))))
    remarks = (chart.caption, _remark_of_rows(len(rows), len(named)), _MERGED if is_merged else "")
    return {
        "kind": "rows",
        "axis": chart.axis,
        "unit": chart.unit,
        "digits": digits,
        "rows": list(map(html.escape, rows)),
        "range": [begins, ends],
        "caption": " ".join(filter(None, remarks)),
        "lines": [_series(kind, chart.colours[kind], found, digits + 1) for kind, found in bars.items()],
        "limits": [],
    }


def _extent(stretches: Sequence[Stretch]) -> tuple[float, float]:
    """From the first to the last, and from zero where that is not far."""
    if not stretches:
        return 0.0, 0.0
    begins, ends = min(stretch.begins for stretch in stretches), max(stretch.ends for stretch in stretches)
    return (0.0 if 0 <= begins < ends * _FAR else begins), ends


def merged(stretches: Iterable[Stretch], pixel: float) -> list[DrawnBar]:
    """Bars of one row and kind, sorted: one for each run of stretches with gaps of less than a pixel between them."""
    bars: list[DrawnBar] = []
    for _, _, begins, ends, label in stretches:
        last = bars[-1] if bars else None
        if last and begins - last.ends < pixel and last.ends - last.begins < _LONGEST_MERGED_PIXELS * pixel:
            last.ends, last.worked, last.count = max(last.ends, ends), last.worked + ends - begins, last.count + 1
        else:
            bars.append(DrawnBar(begins, ends, ends - begins, label))
    return bars


def _series(kind: str, colour: Colour, bars: Sequence[tuple[int, DrawnBar]], digits: int) -> dict[str, Any]:
    """Plotly reads markup in texts, as HTML does."""
    return {
        "name": html.escape(kind),
        "colour": colour,
        "row": [row for row, _ in bars],
        "base": [round(bar.begins, digits) for _, bar in bars],
        "x": [round(bar.ends - bar.begins, digits) for _, bar in bars],
        "share": [round(bar.share, 2) for _, bar in bars],
        "count": [bar.count for _, bar in bars],
        "labels": ["" if bar.count > 1 else html.escape(bar.label) for _, bar in bars],
    }


def _remark_of_rows(shown: int, count: int) -> str:
    return f"The first {shown} of {count} rows." if shown < count else ""
