"""Lines over a common axis, in panels one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from _charts import GRID, INK, QUIET, WIDTH_INCHES

_PANEL_INCHES, _FOOT_INCHES, _RIGHT_SHARE = 2.3, 0.35, 0.72
_LABEL_STEP = 0.09
"""Of a panel's height: what a label needs."""


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        label: At its end.
        colour: One of `_charts`.
        points: (x, y), ascending x.
        is_second: Dashed: another one of the same colour.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, float]]
    is_second: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over one pair of axes; both begin at 0.

    Attributes:
        title: What y is.
        x_name: What x is.
        lines: At least one.
    """

    title: str
    x_name: str
    lines: Sequence[Line]


def draw_panels(panels: Sequence[Panel], title: str) -> Figure:
    """One below the other; `title` stands below them, small."""
    height = _PANEL_INCHES * len(panels) + _FOOT_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, height))
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.08, right=_RIGHT_SHARE, top=1 - 0.25 / height, bottom=0.75 / height, hspace=0.45)
    for of_panel, panel in zip(axes, panels, strict=True):
        _draw_panel(of_panel, panel)
    figure.text(0, 0.03 / height, title, color=QUIET, fontsize=9)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    most_x = max(x for line in panel.lines for x, _ in line.points)
    most_y = max(y for line in panel.lines for _, y in line.points)
    for line in panel.lines:
        x, y = zip(*line.points, strict=True)
        axes.plot(x, y, color=line.colour, linewidth=1.6, dashes=(5, 3) if line.is_second else (None, None))
    axes.set(xlim=(0, most_x), ylim=(0, max(1.0, 1.06 * most_y)))
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(panel.x_name, loc="right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    top = axes.get_ylim()[1]
    ends = [line.points[-1][1] / top for line in panel.lines]
    for line, height in zip(panel.lines, apart(ends), strict=True):
        axes.text(1.01, height, line.label, transform=axes.transAxes, va="center", color=INK)


def apart(heights: Sequence[float], step: float = _LABEL_STEP) -> list[float]:
    """Heights of labels: near the given ones, in their order, and none over another."""
    found = list(heights)
    order = sorted(range(len(heights)), key=lambda k: heights[k])
    for below, above in pairwise(order):
        found[above] = max(found[above], found[below] + step)
    return found
