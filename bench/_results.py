"""The one form in which every bench tells what it found, and the table that people read.

A bench fills a `Results` as it goes and publishes it at the end. In its JSON:

    bench, question, command   which file, what it asks, and how it was called (the last part of absolute paths)
    environment                machine, system, Python, versions of packages; "peers": those of other environments
    settings, repeats          what was chosen; rounds of the row that has most of them
    results                    rows: case, side, quantity, unit, median, least, most, values (one a round), and `over`:
                               for another side its name, and the median, least and most of the rounds' ratios
    absent                     sides that were left out, each with the reason
    claims                     what was wanted of a figure, what was found, and whether that is met
    details                    what only this bench has: trajectories, memory plans, counts of samples

Ratios are of values of one round, which were measured within seconds of each other: the speed of a shared machine
changes by the minute.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from millpond._observe.environment import environment_facts, package_versions


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


@dataclass(frozen=True)
class Row:
    """One quantity of one side.

    Attributes:
        case: What was measured: a dataset, a kind of batches, or "".
        side: Whose it is.
        quantity: As it is called in JSON, with its unit at the end.
        unit: For people.
        values: One a round, in their order; at least one.
        over: Other side -> this side's value over that one's, round by round.
    """

    case: str
    side: str
    quantity: str
    unit: str
    values: tuple[float, ...]
    over: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def as_dict(self) -> dict[str, Any]:
        names = {"case": self.case, "side": self.side, "quantity": self.quantity, "unit": self.unit}
        over = {other: {**spread(ratios), "values": list(ratios)} for other, ratios in self.over.items()}
        return {**names, **spread(self.values), "values": list(self.values), "over": over}


@dataclass(frozen=True)
class Claim:
    """What was wanted: at least so much, or, with `is_limit`, at most."""

    name: str
    found: float
    wanted: float
    is_limit: bool = False

    @property
    def is_met(self) -> bool:
        return self.found <= self.wanted if self.is_limit else self.found >= self.wanted

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "is_met": self.is_met}


@dataclass
class Results:
    """What a bench found so far.

    Attributes:
        bench: Its file's name, without `.py`.
        question: In a sentence.
        settings: What was chosen; no path.
        packages: Whose versions matter here, besides those of every bench.
    """

    bench: str
    question: str
    settings: dict[str, Any]
    packages: Sequence[str] = ()
    rows: list[Row] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, case: str, side: str, quantity: str, unit: str, values: Sequence[float]) -> Row:
        """Values are one a round; a single one for what is measured once."""
        self.rows.append(Row(case, side, quantity, unit, tuple(values)))
        return self.rows[-1]

    def compare(self, case: str, quantity: str, over: str, sides: Collection[str] | None = None) -> None:
        """Hold rounds of sides (None: of all) against the same rounds of one of them, as far as both have them.

        A round in which that one has 0 has no ratio.
        """
        reference = self.row(case, over, quantity)
        for row in self.rows:
            is_meant = row.side != over and (sides is None or row.side in sides)
            if is_meant and (row.case, row.quantity) == (case, quantity):
                pairs = zip(row.values, reference.values, strict=False)
                ratios = tuple(mine / theirs for mine, theirs in pairs if theirs)
                if ratios:
                    row.over[over] = ratios

    def row(self, case: str, side: str, quantity: str) -> Row:
        """The one that is called so; KeyError if there is none."""
        for row in self.rows:
            if (row.case, row.side, row.quantity) == (case, side, quantity):
                return row
        raise KeyError((case, side, quantity))

    def claim(self, name: str, found: float, wanted: float, *, is_limit: bool = False) -> Claim:
        self.claims.append(Claim(name, found, wanted, is_limit))
        return self.claims[-1]

    def as_dict(self) -> dict[str, Any]:
        return {
            "bench": self.bench,
            "question": self.question,
            "command": command_line(),
            "environment": environment_facts() | package_versions(self.packages) | {"peers": self.peers},
            "settings": self.settings,
            "repeats": max((len(row.values) for row in self.rows), default=0),
            "results": [row.as_dict() for row in self.rows],
            "absent": self.absent,
            "claims": [claim.as_dict() for claim in self.claims],
            "details": self.details,
        }

    def write_results(self, path: Path | None) -> None:
        """Write what there is so far as JSON; None: nowhere."""
        if path is not None:
            path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    def publish(self, path: Path | None) -> None:
        """JSON on standard output and to a file where one is wanted; then the table, on standard error."""
        self.write_results(path)
        print(json.dumps(self.as_dict(), indent=1), flush=True)
        console = Console(stderr=True)
        console.width = max(console.width, 140)  # a table that is folded is not read
        console.print(*self.tables(), sep="\n")

    def tables(self) -> list[Table | str]:
        """For each case its sides by quantities, and ratios; the claims; and a line for each side that was left out."""
        tables: list[Table | str] = []
        for case in dict.fromkeys(row.case for row in self.rows):
            rows = [row for row in self.rows if row.case == case]
            tables.append(_sides_table(f"{self.bench}: {case}" if case else self.bench, rows))
            tables += [_ratios_table(rows)] if any(row.over for row in rows) else []
        tables += [_claims_table(self.claims)] if self.claims else []
        return [*tables, *(f"{side} was left out: {reason}" for side, reason in self.absent.items())]


def command_line() -> str:
    """How this program was called, without folders that only this machine has."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *words])


def _sides_table(title: str, rows: Sequence[Row]) -> Table:
    """A line for each side, a column for each quantity: the median, and least .. most."""
    headings = {row.quantity: f"{row.quantity}, {row.unit}" for row in rows}
    cells = {(row.side, row.quantity): _figures(row.values) for row in rows}
    return _grid(title, [row.side for row in rows], headings, cells)


def _ratios_table(rows: Sequence[Row]) -> Table:
    """A line for each pair of sides; ratios are those of the same rounds."""
    pairs = {(f"{row.side} / {other}", row.quantity): ratios for row in rows for other, ratios in row.over.items()}
    headings = {quantity: quantity for _, quantity in pairs}
    cells = {where: _figures(ratios) for where, ratios in pairs.items()}
    return _grid("ratios, round by round", [pair for pair, _ in pairs], headings, cells)


def _grid(title: str, names: Sequence[str], headings: dict[str, str], cells: dict[tuple[str, str], str]) -> Table:
    table = Table("", title=title, title_justify="left")
    for heading in headings.values():
        table.add_column(heading, justify="right", overflow="fold")
    for name in dict.fromkeys(names):
        table.add_row(name, *(cells.get((name, quantity), "") for quantity in headings))
    return table


def _figures(values: Sequence[float]) -> str:
    found = spread(values)
    whole = f"{figure(found['median'])} ({figure(found['least'])} .. {figure(found['most'])})"
    return whole if len(values) > 1 else figure(values[0])


def _claims_table(claims: Sequence[Claim]) -> Table:
    table = Table("wanted", "limit", "found", "")
    for claim in claims:
        limit = f"{'<=' if claim.is_limit else '>='} {figure(claim.wanted)}"
        table.add_row(claim.name, limit, figure(claim.found), "met" if claim.is_met else "NOT MET")
    return table


def figure(value: float) -> str:
    """Three digits that count, and all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
