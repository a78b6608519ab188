"""`report.html`: one page that says how a run went: an epoch, a sweep, whatever can be told by figures and tables.

The page is complete in itself (plotly.js is inlined, nothing is fetched), follows the reader's light or dark setting,
and reads on a phone. It is drawn from a plain `Report`: this module measures nothing, and knows of no kind of run.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from plotly.offline import get_plotlyjs

Cell = str | int | float | None
_LONG_LETTERS = 40
"""A text of more has a column of some width, also on a phone."""

Colour = Literal["first", "second", "third", "fourth", "limit"]


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time, or over whatever else: `values[i]` at `places[i]`; None leaves a gap.

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


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts and numbers; without rows it is left out.

    Attributes:
        title: Of the table.
        rows: Each begins with what it is about. Whole numbers are grouped by thousands, others have six digits; None is
            an empty cell.
        columns: Headers. None: a small table of names and values, beside others of its kind.
        caption: Below the table.
    """

    title: str
    rows: Sequence[Sequence[Cell]]
    columns: Sequence[str] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Text whose lines and spaces stay as they are; left out where it is empty."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the page shows; everything that is left empty is left out.

    Attributes:
        title: Of the page.
        subtitle: One sentence: what ran, on what.
        headlines: Figure by what it says: {"samples/s": "612"}. The first ones are read, so the first ones matter.
        charts: In order.
        tables: Below them.
        texts: Below these.
    """

    title: str
    subtitle: str = ""
    headlines: Mapping[str, str] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    texts: Sequence[Text] = ()


def write_report(report: Report, path: Path) -> None:
    """Write the page, replacing what is there."""
    path.write_text(render_report(report), encoding="utf-8")


def render_report(report: Report) -> str:
    """Make the page: HTML, a few MB, nearly all of it plotly.js."""
    template = files("millpond._observe").joinpath("report_template.html").read_text(encoding="utf-8")
    # "</" would end the script element that holds the data
    data = json.dumps(list(map(_drawn, report.charts)), separators=(",", ":")).replace("</", "<\\/")
    parts = {
        "title": html.escape(report.title),
        "subtitle": html.escape(report.subtitle),
        "headlines": "".join(map(_headline, report.headlines.items())),
        "figures": "".join(_figure(number, chart) for number, chart in enumerate(report.charts)),
        "tables": "".join(map(_table, report.tables)),
        "texts": "".join(map(_text, report.texts)),
        "charts": data,
        "plotly": get_plotlyjs(),
    }
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _figure(number: int, chart: Chart) -> str:
    caption = f"<figcaption>{html.escape(chart.caption)}</figcaption>" if chart.caption else ""
    return f'<figure id="chart-{number}"><h2>{html.escape(chart.title)}</h2><div></div>{caption}</figure>'


def _drawn(chart: Chart) -> dict[str, Any]:
    return {
        "kind": chart.kind,
        "unit": chart.unit,
        "axis": chart.axis,
        "at": chart.at,
        "lines": list(map(_series, chart.lines)),
        "limits": [{"name": html.escape(limit.name), "y": round(float(limit.value), 2)} for limit in chart.limits],
    }


def _series(line: Line) -> dict[str, Any]:
    """As the page's script takes it; plotly reads markup in texts, as HTML does."""
    series: dict[str, Any] = {
        "name": html.escape(line.name),
        "x": [round(float(place), 3) for place in line.places],
        "y": [None if value is None else round(float(value), 2) for value in line.values],
    }
    if line.labels:
        series["labels"] = [html.escape(label) for label in line.labels]
    if line.colour:
        series["colour"] = line.colour
    return series


def _headline(item: tuple[str, str]) -> str:
    name, value = item
    return f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    head = "".join(f"<th scope=col>{html.escape(column)}</th>" for column in table.columns)
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    body = "".join(map(_row, table.rows))
    caption = f"<p>{html.escape(table.caption)}</p>" if table.caption else ""
    kind = " class=wide" if table.columns else ""
    title = html.escape(table.title)
    return f"<section{kind}><h2>{title}</h2><div><table>{head}<tbody>{body}</tbody></table></div>{caption}</section>"


def _row(cells: Sequence[Cell]) -> str:
    first, *rest = cells
    return f"<tr><th scope=row>{_shown(first)}</th>{''.join(map(_cell, rest))}</tr>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        kind = " class=long" if len(cell) > _LONG_LETTERS else ""
    else:
        kind = " class=number"
    return f"<td{kind}>{_shown(cell)}</td>"


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, int):
        return f"{cell:,}"
    return html.escape(cell) if isinstance(cell, str) else f"{cell:.6g}"


def _text(text: Text) -> str:
    return (
        f"<section><h2>{html.escape(text.title)}</h2><pre>{html.escape(text.text)}</pre></section>" if text.text else ""
    )
