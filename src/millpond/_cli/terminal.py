"""What commands show on a terminal while they work: one look for every bar, and lines that stay as they are.

Bars go to standard error, so that what is printed may be redirected; they are drawn only where somebody sees them move.
Colours are rich's: `NO_COLOR` turns them off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

REDRAWS_PER_SECOND = 4
"""Of bars and tables: 1.7 ms each, under 1 % of a core."""

_WIDE_LETTERS = 72
"""A terminal of less has no room for times."""


def is_watched(console: Console) -> bool:
    """Whether somebody sees what moves there: a log is nobody, also where FORCE_COLOR wants colours in it."""
    return console.is_interactive and console.file.isatty()


class Bar:
    """A line that says how far some work is; any thread may tell it. Made by `progress_bar`."""

    def __init__(self, progress: Progress, task: TaskID, *, redraws: bool) -> None:
        self._progress = progress
        self._task = task
        self._redraws = redraws

    def advance(self, amount: float = 1) -> None:
        """So much more is done."""
        self._progress.update(self._task, advance=amount, refresh=self._redraws)

    def show(
        self, done: float | None = None, total: float | None = None, *, what: str | None = None, note: str | None = None
    ) -> None:
        """So much is done, of so much; what it is called now, and what else is to be said. None: as before."""
        said: dict[str, Any] = {} if note is None else {"note": note}
        self._progress.update(self._task, completed=done, total=total, description=what, refresh=self._redraws, **said)


@contextmanager
def progress_bar(
    what: str, *, unit: str, total: float | None = None, quiet: bool = False, ticks: bool = True
) -> Iterator[Bar]:
    """Show a bar where somebody sees it, until the block ends; what it showed last stays.

    Args:
        what: Is done, such as "reading headers".
        unit: Of what is counted, such as "files".
        total: Of them; None: not known (yet).
        quiet: Show nothing.
        ticks: Redraw as time passes, on a thread. False: only when the bar is told something, so that it costs nothing
            while something is measured.
    """
    console = Console(stderr=True)
    hidden = quiet or not is_watched(console)
    with Progress(
        *bar_columns(unit, console),
        console=console,
        auto_refresh=ticks,
        refresh_per_second=REDRAWS_PER_SECOND,
        disable=hidden,
    ) as progress:
        if not hidden:
            console.show_cursor()  # rich hides it, and a process that is killed could not bring it back
        yield Bar(progress, progress.add_task(what, total=total, note="", before=0), redraws=not ticks)


def bar_columns(unit: str, console: Console) -> tuple[ProgressColumn, ...]:
    """Of every bar; its tasks have the fields `note`, and `before`: how much was done when it began."""
    times = (TimeElapsedColumn(), _TimeLeft()) if console.width >= _WIDE_LETTERS else ()
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[note]}", markup=False),
        *times,
    )


class _TimeLeft(ProgressColumn):
    """Until the end, at the pace so far; nothing where that is not known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """As rich calls it."""
        done = task.completed - task.fields["before"]
        if done <= 0 or not task.remaining or not task.elapsed:
            return Text("")
        left = clock(task.elapsed / done * task.remaining)
        return Text(f"{left} left", style="progress.remaining", no_wrap=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Each as it is: paths may hold brackets, and are not broken."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
