"""`report.html` of a soak: a verdict for each series, and the series."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from textwrap import shorten

from millpond._observe.report import Chart, Limit, Line, Report, Table
from millpond._soak.kinds import KIND_OF, MIB
from millpond._soak.results import SoakResult, names_with
from millpond._soak.verdict import Verdict
from millpond._soak.words import REACHED, amount_in_words, duration_in_words, level_in_words

_MOST_POINTS = 1000
"""Of a line: a chart is not wider."""
_CHARTS: tuple[tuple[str, Sequence[str]], ...] = (
    ("Memory (MiB)", ("pss_bytes", "uss_bytes", "rss_bytes")),
    ("Shared memory and swap (MiB)", ("shared_bytes", "dev_shm_bytes", "swap_bytes")),
    ("Descriptors", ("descriptors", "pipes", "sockets", "files", "memfds")),
    ("Threads and processes", ("threads", "processes", "zombies")),
    ("Memory of the cgroup (MiB)", ("cgroup_bytes",)),
)
_WORST_FIRST = (Verdict.GROWING, Verdict.TOO_SHORT, Verdict.FLAT)
_LONGEST_COMMAND = 200
"""Letters of the page's second line."""
_CLOSE = 4.0
"""A limit is drawn where it is less than so many times the highest value: else the series would lie on the axis."""


def soak_report(result: SoakResult) -> Report:
    """What the page shows."""
    facts = result.facts
    command = facts["command"]
    what = shorten(shlex.join(command), _LONGEST_COMMAND) if command else f"process {facts['pid']}"
    return Report(
        title=f"millpond soak: {result.verdict}",
        subtitle=f"{what}, and all that it started, for {duration_in_words(facts['seconds'])}.",
        headlines=_headlines(result),
        charts=[chart for title, names in _CHARTS if (chart := _chart(result, title, names)) is not None],
        tables=[_verdicts(result), _looks(result), _soak(result)],
    )


def _headlines(result: SoakResult) -> dict[str, str]:
    """What grows and when that ends first; then what else was found."""
    shown = {verdict.value: len(names_with(result, verdict)) for verdict in _WORST_FIRST}
    headlines = {f"series {name}": str(count) for name, count in shown.items() if count}
    headlines |= _soonest(result)
    if "pss_bytes" in result.series:
        headlines["memory (PSS) at the end"] = amount_in_words(
            KIND_OF["pss_bytes"], result.series["pss_bytes"].last or 0
        )
    if result.facts["oom_kills"]:
        headlines["OOM kills"] = str(result.facts["oom_kills"])
    return headlines


def _soonest(result: SoakResult) -> dict[str, str]:
    """Of the limits that are reached, the first."""
    times = {
        KIND_OF[name].bound: judged.seconds_to_limit
        for name, judged in sorted(result.judgements.items(), key=lambda one: -(one[1].seconds_to_limit or 0.0))
        if judged.seconds_to_limit is not None and result.counts(name)
    }
    bound = min(times, key=lambda bound: times[bound], default=None)
    return {} if bound is None else {f"until {REACHED[bound]}": duration_in_words(times[bound])}


def _verdicts(result: SoakResult) -> Table:
    rows = []
    for name, judged in result.judgements.items():
        kind, series = KIND_OF[name], result.series[name]
        limit = None if judged.limit is None else amount_in_words(kind, judged.limit)
        rows.append(
            (
                kind.title,
                result.said(name),
                level_in_words(kind, judged),
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
        ("began", facts["began_at"].replace("T", " ").replace("+00:00", " UTC")),
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
    """Of those that are not idle; None where all are."""
    unit, short, seconds = _time_unit(result.facts["seconds"])
    lines = [_line(result, name, seconds) for name in names if name in result.series and result.series[name].peak > 0]
    if not lines:
        return None
    of = "MiB" if title.endswith("(MiB)") else ""
    caption = f"The line is {lines[0].name}; of the others there is none." if len(lines) < min(len(names), 2) else ""
    limits = _limits(result, names, lines)
    return Chart(title, of, lines, limits, axis=unit, at="at %{x:.1f} " + short, caption=caption)


def _time_unit(span_seconds: float) -> tuple[str, str, float]:
    if span_seconds < 600:
        return "seconds", "s", 1.0
    return ("minutes", "min", 60.0) if span_seconds < 4 * 3600 else ("hours", "h", 3600.0)


def _line(result: SoakResult, name: str, seconds: float) -> Line:
    times, values = result.series[name].points()
    stride = -(-max(1, len(times)) // _MOST_POINTS)
    values = values / MIB if KIND_OF[name].is_bytes else values
    return Line(KIND_OF[name].title, (times[::stride] / seconds).tolist(), values[::stride].tolist())


def _limits(result: SoakResult, names: Sequence[str], lines: Sequence[Line]) -> list[Limit]:
    """The narrowest, where it is near."""
    scale = MIB if KIND_OF[names[0]].is_bytes else 1
    found = [
        judged.limit / scale for name, judged in result.judgements.items() if name in names and judged.limit is not None
    ]
    highest = max((value for line in lines for value in line.values if value is not None), default=0.0)
    return [Limit("limit", min(found))] if found and min(found) < _CLOSE * max(highest, 1.0) else []
