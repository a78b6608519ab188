"""What `decoder_cache.py` measured, as lines: the trajectory of the first seed of each side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from _charts import look_of
from _lines import Line, Panel


def cache_panels(report: dict[str, Any]) -> list[Panel]:
    """Memory, descriptors, and memory without a bound."""
    bounded = report["details"]["bounded"]
    panels = [
        Panel("RSS over its baseline, MB", "accesses", list(_trajectories(bounded, _grown))),
        Panel("open descriptors", "accesses", list(_trajectories(bounded, _opened))),
    ]
    if "unbounded" in report["details"]:
        few = report["details"]["unbounded"]
        panels.append(Panel(f"without a bound, {few['files']} files: MB", "accesses", list(_trajectories(few, _grown))))
    return panels


def _trajectories(measured: dict[str, Any], value: Callable[[dict[str, Any]], list[float]]) -> Iterator[Line]:
    seen: set[str] = set()
    for side, found in measured["sides"].items():
        looks = found["runs"][0]["looks"]
        values, colour = value(looks), look_of(side)
        points = list(zip(looks["accesses"], values, strict=True))
        yield Line(f"{_label_of(side)}: {values[-1]:,.0f}", colour, points, is_second=colour in seen)
        seen.add(colour)


def _label_of(side: str) -> str:
    name, _, size = side.partition(":")
    return name.replace("-", " ") + (f", cap {size}" if size and size != "none" else "")


def _grown(looks: dict[str, Any]) -> list[float]:
    return [(rss - looks["rss_bytes"][0]) / 1e6 for rss in looks["rss_bytes"]]


def _opened(looks: dict[str, Any]) -> list[float]:
    return [float(count) for count in looks["descriptors"]]
