"""`millpond soak`: refuse what cannot work, show how it goes, say what grew."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from millpond._amounts import parse_seconds
from millpond._soak.kinds import KIND_OF
from millpond._soak.results import SoakResult
from millpond._soak.soak import SoakOptions, SoakWatcher, soak_command, soak_process
from millpond._soak.verdict import Verdict
from millpond._soak.words import amount_in_words, said_of
from millpond.errors import UsageError

_REFUSED = 2
_STYLES = {Verdict.FLAT: "green", Verdict.GROWING: "red", Verdict.TOO_SHORT: "yellow"}
_SHOWN = ("pss_bytes", "descriptors", "threads", "processes")
_LEAST_REDRAW_SECONDS = 1.0
_LOG_WIDTH = 200
"""Letters: in a log a line of the table stays a line."""


def run_soak_command(
    command: tuple[str, ...],
    *,
    pid: int | None,
    duration: str | None,
    interval: float,
    warmup: float,
    grace: str,
    out: Path | None,
    quiet: bool,
) -> None:
    """Soak, and end with the exit code; arguments as on the command line."""
    try:
        if (pid is None) == (not command):
            raise ValueError("give a command after --, or --pid N: one of them")
        options = SoakOptions(
            None if duration is None else parse_seconds(duration), interval, warmup, parse_seconds(grace)
        )
        place = out or Path(time.strftime("soak-%Y%m%d-%H%M%S"))
        console = Console(stderr=True)
        watcher = SoakBar(console) if console.is_terminal and not quiet else SoakWatcher()
        if pid is None:
            result = soak_command(command, options, place, watcher)
        else:
            result = soak_process(pid, options, place, watcher)
    except (ValueError, UsageError, NotImplementedError) as error:
        print(f"millpond: {error}", file=sys.stderr)
        raise typer.Exit(_REFUSED) from None
    finally:
        if "watcher" in locals() and isinstance(watcher, SoakBar):
            watcher.close()
    if not quiet:
        _print_result(result, place)
    raise typer.Exit(result.exit_code)


class SoakBar(SoakWatcher):
    """One line on a terminal: how far it is, and what the tree takes now. Redrawn with a look, not between."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("soak"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}"),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._drawn_at = float("-inf")

    def began(self, options: SoakOptions, folder: Path) -> None:
        """Draw it."""
        self._task = self._progress.add_task("soak", total=options.duration_seconds, now="")
        self._progress.start()

    def looked(self, seconds: float, latest: Mapping[str, float]) -> None:
        """Draw what is known now."""
        if seconds - self._drawn_at >= _LEAST_REDRAW_SECONDS * 0.9:
            self._drawn_at = seconds
            shown = [
                f"{KIND_OF[name].title} {amount_in_words(KIND_OF[name], latest[name])}"
                for name in _SHOWN
                if name in latest
            ]
            self._progress.update(self._task, completed=seconds, now=", ".join(shown))
            self._progress.refresh()

    def ending(self, why: str) -> None:
        """Say so."""
        self._progress.update(self._task, now=f"{why}: ending the command")
        self._progress.refresh()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


def _print_result(result: SoakResult, folder: Path) -> None:
    """A line for each series that is not idle, the verdict, and where all of it is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console()
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    table = Table("series", "level", "verdict", box=None, header_style="bold")
    for name, judged in result.judgements.items():
        if result.series[name].peak > 0:
            kind = KIND_OF[name]
            style = _STYLES[judged.verdict] if result.counts(name) else "dim"
            table.add_row(kind.title, amount_in_words(kind, judged.level), Text(said_of(kind, judged), style=style))
    console.print(table)
    if result.facts["oom_kills"]:
        console.print(f"OOM kills in the cgroup meanwhile: {result.facts['oom_kills']}")
    if result.ending.by == "itself" and result.ending.exit_code:
        console.print(f"the command ended with exit code {result.ending.exit_code}")
    line = f"{result.verdict}; more in '{folder / 'report.html'}'"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
