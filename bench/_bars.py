"""Bars side by side: a group for each case of a bench, its median, and the least and the most of its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from _charts import BOUND, GRID, INK, OURS, QUIET, ROW_INCHES, WIDTH_INCHES, look_of

_HEAD_ROWS, _LABEL_SHARE = 1.4, 0.3
_LONGEST_BAR = 0.55
"""Of the room beside the labels; the figures stand in the rest."""


@dataclass(frozen=True)
class Bar:
    """One contender.

    Attributes:
        label: Before the bar.
        value: How long it is.
        least, most: Of its rounds.
        words: Behind the bar.
    """

    label: str
    value: float
    least: float
    most: float
    words: str


def bar_of(row: dict[str, Any], group: Sequence[dict[str, Any]]) -> Bar:
    """A row of a bench's results, among those of its group."""
    words = f"{figure_of(row['median'])} {row['unit']}{_compared(row, group)}"
    return Bar(row["side"], row["median"], row["least"], row["most"], words)


def _compared(row: dict[str, Any], group: Sequence[dict[str, Any]]) -> str:
    """Ours beside what bounds it, a peer beside ours; nothing of the bound."""
    if look_of(row["side"]) == BOUND:
        return ""
    own = {other: ratio["median"] for other, ratio in row["over"].items()}
    if look_of(row["side"]) == OURS:
        return "".join(f"  ({figure_of(own[other])} x {other})" for other in own if look_of(other) == BOUND)
    for other in group:
        if row["side"] in other["over"] and look_of(other["side"]) == OURS:
            return f"  ({other['side']}: {figure_of(other['over'][row['side']]['median'])} x)"
    return next((f"  ({figure_of(ratio)} x {other})" for other, ratio in own.items()), "")


def figure_of(value: float) -> str:
    """Three digits that count, and all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def draw_bars(groups: dict[str, Sequence[Bar]], title: str) -> Figure:
    """One group below the other, each on a scale of its own; `title` stands below them, small."""
    rows = [len(bars) + _HEAD_ROWS for bars in groups.values()]
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * (sum(rows) + 1.2)))
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=rows)[:, 0]
    figure.subplots_adjust(
        left=_LABEL_SHARE,
        right=1,
        top=1 - 0.3 * ROW_INCHES / figure.get_figheight(),
        bottom=1.2 * ROW_INCHES / figure.get_figheight(),
        hspace=0.12,
    )
    for of_group, (name, bars) in zip(axes, groups.items(), strict=True):
        _draw_group(of_group, name, bars)
    figure.text(0, 0.1 * ROW_INCHES / figure.get_figheight(), title, color=QUIET, fontsize=9)
    return figure


def _draw_group(axes: Axes, name: str, bars: Sequence[Bar]) -> None:
    places = np.arange(len(bars))
    values = np.array([bar.value for bar in bars])
    top = max(bar.most for bar in bars) or 1.0
    axes.barh(places, values, height=0.72, color=[look_of(bar.label) for bar in bars])
    if any(bar.most > bar.least for bar in bars):
        axes.hlines(places, [bar.least for bar in bars], [bar.most for bar in bars], color=GRID, linewidth=2)
        axes.hlines(places, [bar.least for bar in bars], [bar.most for bar in bars], color=INK, linewidth=0.8)
    for place, bar in zip(places, bars, strict=True):
        axes.text(max(bar.value, bar.most) + 0.015 * top, place, bar.words, va="center", color=INK)
    axes.set_yticks(places, [bar.label for bar in bars])
    axes.set(xlim=(0, top / _LONGEST_BAR), ylim=(len(bars) - 0.5, -_HEAD_ROWS + 0.5))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.text(0, -0.85, name, fontweight="bold", va="center", transform=_from_the_left(axes))


def _from_the_left(axes: Axes) -> Any:
    """x as a share of the figure, y as of the axes."""
    from matplotlib.transforms import blended_transform_factory

    return blended_transform_factory(axes.get_figure().transFigure, axes.transData)  # type: ignore[union-attr]
