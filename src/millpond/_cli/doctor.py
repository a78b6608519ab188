"""`millpond doctor`: what this machine and a store are like, and what to do about it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millpond._amounts import parse_bytes
from millpond._cli.options import parse_storage_options, token_of
from millpond._doctor.checkup import Checkup, run_checkup
from millpond._doctor.findings import Finding, Level, Plans
from millpond._observe.environment import environment_facts

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}
_LEVEL_WIDTH = len(Level.WARNING)


def run_doctor(
    url: str | None,
    *,
    memory: str,
    num_workers: int | None,
    storage_options: Sequence[str],
    token_env: str | None,
    timeout_seconds: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print each finding as it comes, and end with 1 if one is an error. Nothing secret is printed."""
    wanted = Checkup(
        Plans(parse_bytes(memory), num_workers),
        url,
        parse_storage_options(storage_options),
        token_of(token_env),
        timeout_seconds,
    )
    counts: Counter[Level] = Counter()
    if as_json:
        findings = list(run_checkup(wanted))
        counts.update(finding.level for finding in findings)
        print(json.dumps(as_document(findings), indent=2))
    else:
        console = Console()
        with console.status("looking ...") if console.is_terminal and not quiet else nullcontext():
            for finding in run_checkup(wanted):
                counts[finding.level] += 1
                if not quiet or finding.level is not Level.OK:
                    print_finding(console, finding)
        console.print(summary(counts), highlight=False)
    if counts[Level.ERROR]:
        raise typer.Exit(1)


def as_document(findings: Iterable[Finding]) -> dict[str, object]:
    """For programs."""
    found = list(findings)
    counts = Counter(finding.level for finding in found)
    return {
        "environment": environment_facts(),
        "counts": {level.value: counts[level] for level in Level},
        "findings": [asdict(finding) for finding in found],
    }


def print_finding(console: Console, finding: Finding) -> None:
    """In columns that wrap on a terminal; one line each elsewhere."""
    remedy = f"remedy: {finding.remedy}" if finding.remedy else ""
    if not console.is_terminal:
        told = f"{finding.level:<{_LEVEL_WIDTH}}  {finding.subject}: {finding.found}"
        console.print(f"{told}; {remedy}" if remedy else told, markup=False, highlight=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=_LEVEL_WIDTH)
    table.add_column(overflow="fold")
    found = Text.assemble((finding.subject, "bold"), ": ", finding.found)
    table.add_row(Text(finding.level, _STYLES[finding.level]), found)
    if remedy:
        table.add_row("", Text(remedy, _STYLES[finding.level]))
    console.print(table)


def summary(counts: Counter[Level]) -> str:
    """How many of each."""
    warnings, errors = counts[Level.WARNING], counts[Level.ERROR]
    return (
        f"{counts[Level.OK]} ok, {warnings or 'no'} warning{'s' * (warnings != 1)}, "
        f"{errors or 'no'} error{'s' * (errors != 1)}"
    )
