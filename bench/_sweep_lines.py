"""What `sweep_leak.py` measured, as lines: memory of a sweep's whole process tree over time."""

from __future__ import annotations

from typing import Any

from _charts import BOUND, OURS, PEERS
from _lines import Line, Panel
from millpond._amounts import parse_bytes

_TITLES = {
    "auto": "--chunk-size auto --max-rss {max_rss}, MB",
    "script": "a script with millpond.sweep_jobs(), --max-rss {max_rss}, MB",
}


def leak_panels(measured: dict[str, Any]) -> list[Panel]:
    """The first round: chunks of fixed size beside one process, and each way with a budget below it."""
    settings, ways = measured["settings"], measured["details"]["ways"]
    panels = []
    if "chunks" in ways:
        lines = [_memory("chunks", "the sweep", measured)]
        title = f"--chunk-size {settings['chunk_size']}, MB"
        if "one process" in ways:
            lines.append(_memory("one process", f"one process, {settings['few_jobs']} jobs", measured, colour=PEERS))
            for_all = ways["one process"]["results"]["gb_for_all_by_the_slope"]["median"]
            title += f"; all {settings['jobs']} jobs in one process would take {for_all:.1f} GB"
        panels.append(Panel(title, "seconds", lines))
    for way in (way for way in _TITLES if way in ways):
        lines = [_memory(way, "the sweep", measured)]
        most_seconds, budget_mb = lines[0].points[-1][0], parse_bytes(settings["max_rss"]) / 1e6
        budget = Line(f"budget: {budget_mb:,.0f}", BOUND, [(0.0, budget_mb), (most_seconds, budget_mb)], is_second=True)
        panels.append(Panel(_TITLES[way].format(max_rss=settings["max_rss"]), "seconds", [budget, *lines]))
    return panels


def _memory(way: str, label: str, measured: dict[str, Any], colour: str = OURS) -> Line:
    run = measured["details"]["ways"][way]["runs"][0]
    looks = run["looks"]
    points = list(zip(looks["seconds"], looks["mb"], strict=True))
    return Line(f"{label}: {run['peak_mb']:,.0f}", colour, points)
