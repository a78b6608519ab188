"""`report.html`: one page that says how a run went, for the demo and for benches alike.

The page is complete in itself (plotly.js is inlined, nothing is fetched), follows the reader's light or dark setting,
and reads on a phone. It is drawn from a plain `Report`: this module measures nothing.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from millpond._observe.memory import MemoryPoint

_ENDS_IN_A_SPIKE = (
    "Where the curve ends in a spike, everything was decoded: the pond then empties faster than frames can be decoded."
)


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time: `values[i]` at `elapsed_seconds[i]`."""

    elapsed_seconds: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Report:
    """What the page shows; everything that is left empty is left out.

    Attributes:
        title: Of the page.
        subtitle: One sentence: what ran, on what.
        headlines: Figure by what it says: {"samples/s": "612"}. The first ones are read, so the first ones matter.
        throughput: Samples per second over time.
        ceiling_samples_per_second: Drawn as a line across.
        memory: Growth in bytes of each part of the process tree since before construction, to be stacked.
        budget_bytes: `memory=`, drawn as a line across.
        pond: Open slots over time.
        pond_slots: How many there are.
        books: Of the epoch, in order: {"planned": 2994, ...}.
        memory_plan: The loader's own arithmetic, as it prints it.
        environment: As `environment_facts` says it.
    """

    title: str
    subtitle: str = ""
    headlines: Mapping[str, str] = field(default_factory=dict)
    throughput: Line | None = None
    ceiling_samples_per_second: float | None = None
    memory: Mapping[str, Line] = field(default_factory=dict)
    budget_bytes: int | None = None
    pond: Line | None = None
    pond_slots: int | None = None
    books: Mapping[str, int] = field(default_factory=dict)
    memory_plan: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def memory_growth(points: Sequence[MemoryPoint]) -> dict[str, Line]:
    """Turn looks at the process tree into what `Report.memory` draws: growth of PSS since the first look, bytes."""
    if not points:
        return {}
    seconds = [point.elapsed_seconds for point in points]
    first = points[0]
    training = [max(0, point.training.pss_bytes - first.training.pss_bytes) for point in points]
    below = [max(0, point.below.pss_bytes - first.below.pss_bytes) for point in points]
    return {"training process": Line(seconds, training), "workers": Line(seconds, below)}


def write_report(report: Report, path: Path) -> None:
    """Write the page, replacing what is there."""
    path.write_text(render_report(report), encoding="utf-8")


def render_report(report: Report) -> str:
    """Make the page: HTML, a few MB, nearly all of it plotly.js."""
    template = files("millpond._observe").joinpath("report_template.html").read_text(encoding="utf-8")
    charts = [chart for chart in (_throughput(report), _memory(report), _pond(report)) if chart]
    # "</" would end the script element that holds the data
    data = json.dumps(charts, separators=(",", ":")).replace("</", "<\\/")
    parts = {
        "title": html.escape(report.title),
        "subtitle": html.escape(report.subtitle),
        "headlines": "".join(map(_headline, report.headlines.items())),
        "figures": "".join(map(_figure, charts)),
        "tables": _table("The epoch's books", report.books) + _table("Measured on", report.environment),
        "plan": _preformatted("Memory plan", report.memory_plan),
        "charts": data,
        "plotly": get_plotlyjs(),
    }
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _figure(chart: Mapping[str, Any]) -> str:
    caption = f"<figcaption>{chart['caption']}</figcaption>" if "caption" in chart else ""
    return f'<figure id="{chart["id"]}"><h2>{chart["title"]}</h2><div></div>{caption}</figure>'


def _throughput(report: Report) -> dict[str, Any] | None:
    if report.throughput is None:
        return None
    lines = [_series("samples/s", report.throughput)]
    limits = _limit("ceiling", report.ceiling_samples_per_second)
    return {
        "id": "throughput",
        "title": "Throughput (samples/s)",
        "unit": "samples/s",
        "lines": lines,
        "limits": limits,
        "caption": _ENDS_IN_A_SPIKE,
    }


def _memory(report: Report) -> dict[str, Any] | None:
    if not report.memory:
        return None
    lines = [_series(name, line, scale=1 / 2**20) | {"stack": True} for name, line in report.memory.items()]
    budget = None if report.budget_bytes is None else report.budget_bytes / 2**20
    title = "Memory since before construction (PSS, MiB)"
    return {"id": "memory", "title": title, "unit": "MiB", "lines": lines, "limits": _limit("memory= budget", budget)}


def _pond(report: Report) -> dict[str, Any] | None:
    if report.pond is None:
        return None
    lines = [_series("open slots", report.pond)]
    limits = _limit("all slots", report.pond_slots)
    return {"id": "pond", "title": "Pond level (open slots)", "unit": "slots", "lines": lines, "limits": limits}


def _series(name: str, line: Line, *, scale: float = 1.0) -> dict[str, Any]:
    return {
        "name": name,
        "x": [round(float(second), 3) for second in line.elapsed_seconds],
        "y": [round(float(value) * scale, 2) for value in line.values],
    }


def _limit(name: str, value: float | None) -> list[dict[str, Any]]:
    return [] if value is None else [{"name": name, "y": round(float(value), 2)}]


def _headline(item: tuple[str, str]) -> str:
    name, value = item
    return f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"


def _table(title: str, rows: Mapping[str, int] | Mapping[str, str]) -> str:
    if not rows:
        return ""
    shown = {name: f"{value:,}" if isinstance(value, int) else value for name, value in rows.items()}
    cells = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in shown.items()
    )
    return f"<section><h2>{html.escape(title)}</h2><table>{cells}</table></section>"


def _preformatted(title: str, text: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2><pre>{html.escape(text)}</pre></section>" if text else ""
