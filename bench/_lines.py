"""Lines over a common axis, in panels one below the other, as marks of an SVG."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

LEFT, RIGHT, HEIGHT, TOP, BOTTOM, LABEL_STEP = 60, 250, 170, 34, 34, 16


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        label: At its end.
        look: Its class in the style.
        points: (x, y), ascending x.
    """

    label: str
    look: str
    points: Sequence[tuple[float, float]]


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


def drawn_panel(panel: Panel, y: float, width: int) -> tuple[list[str], float]:
    """Its marks, and how high it is."""
    most_x = max(x for line in panel.lines for x, _ in line.points)
    most_y = max(value for line in panel.lines for _, value in line.points)
    step = tick_step(most_y)
    floor, span = y + TOP + HEIGHT, max(step, -(-most_y // step) * step)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + point[0] / most_x * (width - LEFT - RIGHT), floor - point[1] / span * HEIGHT

    marks = [f'<text class="name" x="0" y="{y + 18}">{html.escape(panel.title)}</text>']
    for k in range(round(span / step) + 1):
        _, level = at((0, k * step))
        marks.append(f'<path class="grid" d="M{LEFT} {level:.1f}H{width - RIGHT}"/>')
        marks.append(f'<text class="quiet" x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{k * step:,.0f}</text>')
    marks.append(
        f'<text class="quiet" x="{width - RIGHT}" y="{floor + 18}" text-anchor="end">'
        f"{html.escape(panel.x_name)}: {most_x:,.0f}</text>"
    )
    for line in panel.lines:
        path = " ".join(f"{x:.1f},{level:.1f}" for x, level in map(at, line.points))
        marks.append(f'<polyline class="line {line.look}" points="{path}"/>')
    ends = [at(line.points[-1])[1] for line in panel.lines]
    for line, level in zip(panel.lines, apart(ends), strict=True):
        marks.append(f'<text x="{width - RIGHT + 8}" y="{level + 4:.1f}">{html.escape(line.label)}</text>')
    return marks, TOP + HEIGHT + BOTTOM


def tick_step(most: float) -> float:
    """Four lines or so, at round numbers."""
    step = 1.0
    for step in _round_numbers():
        if most <= 4 * step:
            break
    return step


def _round_numbers() -> Iterator[float]:
    for exponent in range(12):
        yield from (factor * 10.0**exponent for factor in (1, 2, 5))


def apart(levels: Sequence[float]) -> list[float]:
    """Heights of labels: near the given ones, in their order, and none over another."""
    found = list(levels)
    order = sorted(range(len(levels)), key=lambda k: levels[k], reverse=True)  # the lowest of the picture first
    for below, above in pairwise(order):
        found[above] = min(found[above], found[below] - LABEL_STEP)
    return found
