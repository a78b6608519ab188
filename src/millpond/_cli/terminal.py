"""What the demos show on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from millpond._cli.measure import EpochMeasure, run_epoch
from millpond._loader.loader import Loader


def watched_epoch(console: Console, loader: Loader, *, quiet: bool, **how: Any) -> EpochMeasure:
    """Run an epoch with a progress bar, where somebody sees it; `how` as for `run_epoch`."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples"),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    ) as progress:
        bar = progress.add_task("one shuffled epoch", total=len(loader.dataset))
        return run_epoch(loader, lambda samples: progress.advance(bar, samples), **how)


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Each as it is: paths may hold brackets, and are not broken."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
