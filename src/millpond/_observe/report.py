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
from itertools import pairwise
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from millpond._observe.charts import Chart, Colour, Limit, Line, chart_as_data
from millpond._observe.time_line import Stretch, TimeLine, time_line_as_data

__all__ = [
    "Cell",
    "Chart",
    "Colour",
    "Limit",
    "Line",
    "Report",
    "Stretch",
    "Table",
    "Text",
    "TimeLine",
    "render_report",
    "write_report",
]

Cell = str | int | float | None
_LONG_LETTERS = 40
"""A text of more has a column of some width, also on a phone."""

_MOST_IN_LEGEND = 8
"""Lines; more of them are told apart where they are looked at."""


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
    charts: Sequence[Chart | TimeLine] = ()
    tables: Sequence[Table] = ()
    texts: Sequence[Text] = ()


def write_report(report: Report, path: Path) -> None:
    """Write the page, replacing what is there."""
    path.write_text(render_report(report), encoding="utf-8")


def render_report(report: Report) -> str:
    """Make the page: HTML, a few MB, nearly all of it plotly.js."""
    template = files("millpond._observe").joinpath("report_template.html").read_text(encoding="utf-8")
    drawn = list(map(_drawn, report.charts))
    # "</script" would end the element that holds the data, and "<!--<script" would hide its end
    data = json.dumps(drawn, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "title": html.escape(report.title),
        "subtitle": html.escape(report.subtitle),
        "headlines": "".join(map(_headline, report.headlines.items())),
        "figures": "".join(map(_figure, range(len(drawn)), drawn, report.charts, _widths(drawn))),
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
    return "".join(filled).encode("utf-8", "replace").decode("utf-8")  # names of files need not be Unicode


def _widths(charts: Sequence[dict[str, Any]]) -> list[str]:
    """The class of each: two share a row where there is room, and none is alone in half of one."""
    widths: list[str] = []
    for chart in charts:
        if chart["kind"] == "rows":
            widths.append("rows")
        else:
            widths.append("right" if widths[-1:] == ["left"] else "left")
    return ["alone" if pair == ("left", "rows") else pair[0] for pair in pairwise([*widths, "rows"])]


def _figure(number: int, drawn: dict[str, Any], chart: Chart | TimeLine, width: str) -> str:
    title, caption = html.escape(chart.title), html.escape(drawn["caption"])
    rows = f' style="--rows:{len(drawn["rows"])}"' if width == "rows" else ""
    return (
        f'<figure id="chart-{number}" class={width}{rows}><h2>{title}</h2>{_legend(drawn)}'
        f'<div role=img aria-label="{title}"></div>{f"<figcaption>{caption}</figcaption>" if caption else ""}</figure>'
    )


def _legend(drawn: dict[str, Any]) -> str:
    """Buttons that hide and show lines; names are escaped already."""
    lines = drawn["lines"]
    if not 1 < len(lines) <= _MOST_IN_LEGEND:
        return ""
    buttons = (
        f'<button type=button aria-pressed=true style="--own:var(--{line["colour"]})">{line["name"]}</button>'
        for line in lines
    )
    return f"<p class=legend>{''.join(buttons)}</p>"


def _drawn(chart: Chart | TimeLine) -> dict[str, Any]:
    return chart_as_data(chart) if isinstance(chart, Chart) else time_line_as_data(chart)


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
    box = f'<div tabindex=0 role=region aria-label="{title}">' if table.columns else "<div>"  # keys scroll it
    return f"<section{kind}><h2>{title}</h2>{box}<table>{head}<tbody>{body}</tbody></table></div>{caption}</section>"


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
