"""`report.html` of a soak: a verdict for each series, and the series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millpond._observe.report import Chart, Limit, Line, Report, Table
from millpond._soak.kinds import KIND_OF, MIB
from millpond._soak.results import SoakResult, names_with
from millpond._soak.verdict import Verdict
from millpond._soak.words import amount_in_words, duration_in_words, said_of

_MOST_POINTS = 1000
"""Of a line: a chart is not wider."""
_CHARTS: tuple[tuple[str, Sequence[str]], ...] = (
    ("Memory (MiB)", ("pss_bytes", "uss_bytes", "rss_bytes")),
    ("Shared memory and swap (MiB)", ("shared_bytes", "dev_shm_bytes", "swap_bytes")),
    ("Descriptors", ("descriptors", "pipes", "sockets", "files")),
    ("Threads and processes", ("threads", "processes")),
    ("Memory of the cgroup (MiB)", ("cgroup_bytes",)),
)
_CLOSE = 4.0
"""A limit is drawn where it is less than so many times the highest value: else the series would lie on the axis."""


def soak_report(result: SoakResult) -> Report:
    """What the page shows."""
    facts = result.facts
    command = facts["command"]
    what = " ".join(command) if command else f"process {facts['pid']}"
    return Report(
        title=f"millpond soak: {result.verdict}",
        subtitle=f"{what}, and all that it started, for {duration_in_words(facts['seconds'])}.",
        headlines=_headlines(result),
        charts=[chart for title, names in _CHARTS if (chart := _chart(result, title, names)) is not None],
        tables=[_verdicts(result), _looks(result), _soak(result)],
    )


def _headlines(result: SoakResult) -> dict[str, str]:
    shown = {f"{verdict}": f"{len(names_with(result, verdict))} series" for verdict in Verdict}
    return {name: text for name, text in shown.items() if text != "0 series"} | {
        "soon": _soonest(result),
        "memory (PSS)": amount_in_words(KIND_OF["pss_bytes"], result.series["pss_bytes"].last or 0.0)
        if "pss_bytes" in result.series
        else "unknown",
        "OOM kills": str(result.facts["oom_kills"]),
    }


def _soonest(result: SoakResult) -> str:
    """Of the limits that are reached, the first."""
    times = {
        name: judged.seconds_to_limit
        for name, judged in result.judgements.items()
        if judged.seconds_to_limit is not None and result.counts(name)
    }
    if not times:
        return "no limit is reached"
    name = min(times, key=lambda name: times[name] or 0.0)
    return f"{KIND_OF[name].bound}: {duration_in_words(times[name] or 0.0)}"


def _verdicts(result: SoakResult) -> Table:
    rows = []
    for name, judged in result.judgements.items():
        kind, series = KIND_OF[name], result.series[name]
        limit = None if judged.limit is None else amount_in_words(kind, judged.limit)
        note = "" if result.counts(name) else " (not held against the command)"
        rows.append(
            (
                kind.title,
                said_of(kind, judged) + note,
                amount_in_words(kind, judged.level),
                amount_in_words(kind, series.peak),
                limit,
            )
        )
    return Table(
        "Verdicts",
        rows,
        ("series", "verdict", "level", "peak", "limit"),
        "The level is the median of the second half. Rates are Sen's slopes of block medians; flat means that "
        "the upper end of the interval does not reach the limit within a day.",
    )


def _looks(result: SoakResult) -> Table:
    rows = [
        (group, one["looks"], f"{one['interval_seconds']:.3g} s", f"{one['cpu_ms_per_look']:.3g} ms")
        for group, one in result.facts["looks"].items()
    ]
    return Table("Looks", rows, ("at", "looks", "now every", "CPU of a look"))


def _soak(result: SoakResult) -> Table:
    facts, cost = result.facts, result.facts["cost"]
    rows = [
        ("began", facts["began_at"]),
        ("ended by", result.ending.by),
        ("exit code of the command", result.ending.exit_code),
        ("processes left behind", result.ending.num_left_behind),
        ("interval", f"{facts['interval_seconds']:g} s"),
        ("warm-up", f"{facts['warmup_seconds']:g} s"),
        ("cost of the soak", f"{cost['core_share']:.2%} of a core"),
        *facts["environment"].items(),
    ]
    return Table("The soak", rows)


def _chart(result: SoakResult, title: str, names: Sequence[str]) -> Chart | None:
    lines = [_line(result, name) for name in names if name in result.series and result.series[name].num_looks]
    if not lines:
        return None
    unit = "MiB" if title.endswith("(MiB)") else ""
    return Chart(title, unit, lines, _limits(result, names, lines))


def _line(result: SoakResult, name: str) -> Line:
    times, values = result.series[name].points()
    stride = -(-max(1, len(times)) // _MOST_POINTS)
    values = values / MIB if KIND_OF[name].is_bytes else values
    return Line(KIND_OF[name].title, np.round(times[::stride], 2).tolist(), values[::stride].tolist())


def _limits(result: SoakResult, names: Sequence[str], lines: Sequence[Line]) -> list[Limit]:
    """The narrowest, where it is near."""
    scale = MIB if KIND_OF[names[0]].is_bytes else 1
    found = [
        judged.limit / scale for name, judged in result.judgements.items() if name in names and judged.limit is not None
    ]
    highest = max((value for line in lines for value in line.values if value is not None), default=0.0)
    return [Limit("limit", min(found))] if found and min(found) < _CLOSE * max(highest, 1.0) else []
