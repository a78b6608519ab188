"""`millpond soak`: refuse what cannot work, show how it goes, say what grew."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from millpond._amounts import parse_seconds
from millpond._cli.sweep_watch import LastingConsole
from millpond._cli.terminal import Bar, progress_bar
from millpond._soak.kinds import KIND_OF
from millpond._soak.results import SoakResult
from millpond._soak.soak import SoakOptions, SoakWatcher, soak_command, soak_process
from millpond._soak.verdict import Verdict
from millpond._soak.words import amount_in_words, level_in_words
from millpond.errors import UsageError

_REFUSED = 2
_STYLES = {Verdict.FLAT: "green", Verdict.GROWING: "red", Verdict.TOO_SHORT: "yellow"}
_SHOWN = {"pss_bytes": "PSS", "descriptors": "descriptors"}.items()
_SHOW_SECONDS = 1.9
"""At least, from one redraw to the next: each takes 2 ms, as much as ten looks at a process."""
_LOG_WIDTH = 200
"""Letters: in a log a line of the table stays a line."""


def run_soak_command(
    command: tuple[str, ...],
    *,
    pid: int | None,
    duration: str | None,
    interval: str,
    warmup: str,
    grace: str,
    core_share: float,
    out: Path | None,
    quiet: bool,
) -> None:
    """Soak, and end with the exit code; arguments as on the command line."""
    try:
        if (pid is None) == (not command):
            raise ValueError("give a command after --, or --pid N: one of them")
        options = SoakOptions(
            None if duration is None else _seconds("--duration", duration),
            _seconds("--interval", interval),
            _seconds("--warmup", warmup),
            _seconds("--grace", grace),
            core_share,
        )
    except ValueError as error:
        print(f"millpond: {error}", file=sys.stderr)
        raise typer.Exit(_REFUSED) from None
    raise typer.Exit(_soak(command, pid, options, out or Path(time.strftime("soak-%Y%m%d-%H%M%S")), quiet=quiet))


def _soak(command: tuple[str, ...], pid: int | None, options: SoakOptions, place: Path, *, quiet: bool) -> int:
    """The exit code. What was found is told also where it cannot be written."""
    problem: Exception | None = None
    watcher = SoakBar()
    try:
        with progress_bar("soaking", unit="s", total=options.duration_seconds, quiet=quiet, ticks=False) as bar:
            watcher.bar = bar
            if pid is None:
                soak_command(command, options, place, watcher)
            else:
                soak_process(pid, options, place, watcher)
    except UsageError as error:
        problem = error
    except OSError:
        if watcher.result is None:
            raise
        _fall_silent()  # it is the terminal of the bar that is gone
    if watcher.result is not None and not quiet:
        _tell(watcher.result, place)
    if problem is not None:
        print(f"millpond: {problem}", file=sys.stderr)
    return _REFUSED if problem is not None or watcher.result is None else watcher.result.exit_code


def _seconds(option: str, text: str) -> float:
    try:
        return 0.0 if re.fullmatch(r"0+(\.0*)?s?", text.strip()) else parse_seconds(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


class SoakBar(SoakWatcher):
    """Tells a bar how far it is, and what the tree takes now; with a look, so that it costs nothing between.

    Attributes:
        bar: To tell.
        result: Once there is one.
    """

    def __init__(self) -> None:
        self.bar: Bar | None = None
        self.result: SoakResult | None = None
        self._shown_at = float("-inf")

    def looked(self, seconds: float, latest: Mapping[str, float]) -> None:
        """Show what is known now."""
        if self.bar is not None and seconds - self._shown_at >= _SHOW_SECONDS:
            self._shown_at = seconds
            parts = [f"{name} {amount_in_words(KIND_OF[key], latest[key])}" for key, name in _SHOWN if key in latest]
            self.bar.show(done=round(seconds), note=", ".join(parts))

    def ending(self, why: str) -> None:
        """Say so: it may take the grace."""
        if self.bar is not None:
            self.bar.show(note=f"{why}: ending the command")

    def judged(self, result: SoakResult) -> None:
        """Keep it."""
        self.result = result


def _tell(result: SoakResult, folder: Path) -> None:
    try:
        _print_result(result, folder)
    except OSError:  # nobody reads any more: a terminal that is gone, a full disk
        _fall_silent()


def _fall_silent() -> None:
    """Let output lead nowhere: what is in its buffers would fail again at the end, and decide the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _print_result(result: SoakResult, folder: Path) -> None:
    """A line for each series that is not idle, the verdict, and where all of it is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = LastingConsole()
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    table = Table("series", "level", "verdict", box=None, header_style="bold")
    for name, judged in result.judgements.items():
        if result.series[name].peak > 0:
            kind = KIND_OF[name]
            style = _STYLES[judged.verdict] if result.counts(name) else "dim"
            table.add_row(kind.title, level_in_words(kind, judged), Text(result.said(name), style=style))
    console.print(table)
    if result.facts["oom_kills"]:
        console.print(f"OOM kills in the cgroup meanwhile: {result.facts['oom_kills']}")
    if result.ending.by == "itself" and result.ending.exit_code:
        console.print(f"the command ended with exit code {result.ending.exit_code}")
    line = f"{result.verdict}; more in '{folder / 'report.html'}'"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
