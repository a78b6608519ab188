"""`millpond sweep`: refuse what cannot work, run the rest, say how it ended."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millpond._cli.options import as_options
from millpond._cli.sweep_watch import LastingConsole, SweepLines, SweepShow, SweepTable, on_one_line
from millpond._cli.terminal import is_watched
from millpond._sweep.command import fill_command
from millpond._sweep.engines.choice import INERT, EngineChoice
from millpond._sweep.exits import exit_code_of
from millpond._sweep.jobs_file import read_jobs_file
from millpond._sweep.options import SweepOptions
from millpond._sweep.orders import ChunkOutcome
from millpond._sweep.results import SummaryKeys, SweepResult
from millpond._sweep.sweep import run_sweep
from millpond._sweep.variables import CHUNK_VARIABLE, JOBS_VARIABLE, METRICS_VARIABLE
from millpond._sweep.watching import Counts
from millpond._sweep.work import CommandWork
from millpond.errors import UsageError

_REFUSED = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_sweep_command(
    jobs: Path,
    command: tuple[str, ...],
    *,
    chunk_size: str | None,
    max_rss: str | None,
    parallel: int | None,
    engine: str,
    address: str | None,
    engine_options: Sequence[str],
    jobs_key: str,
    name_key: str,
    jobs_from_environment: bool,
    weight_key: str,
    group_by: str,
    out: Path | None,
    resume: bool,
    allow_changes: bool,
    stream: bool,
    quiet: bool,
    **how: Any,
) -> None:
    """Run a sweep and end with its exit code; arguments as on the command line, `how` as `SweepOptions.of` takes it."""
    with _refusing(ValueError, OSError, ImportError):
        if CHUNK_VARIABLE in os.environ:
            _become(command, str(jobs.absolute()))
        file = read_jobs_file(jobs, jobs_key=jobs_key, name_key=name_key)
        all_at_once = chunk_size is None and max_rss is None
        size = len(file.names) if all_at_once else chunk_size
        options = SweepOptions.of(chunk_size=size, max_rss=max_rss, parallel=parallel, **how)
        fits = options.chunk_size is not None and options.chunk_size >= len(file.names)
        can_be_inert = not options.is_supervised and not resume and engine == "local"
        is_inert = fits and can_be_inert and jobs.is_file()  # a pipe has been read by now
        work = CommandWork(file, command, jobs_from_environment, runs_here=engine == "local", is_inert=is_inert)
        choice = EngineChoice(INERT if is_inert else engine, parallel, _engine_options(engine_options, address))
    watcher = _Inert() if is_inert else _show(stream=stream, quiet=quiet)
    with watcher, _refusing(UsageError, ConnectionError):
        result = run_sweep(
            work,
            options,
            choice,
            SummaryKeys(weight_key, group_by),
            out=out,
            resume=resume,
            allow_changes=allow_changes,
            watcher=watcher,
            signals=_SIGNALS,
        )
    if isinstance(watcher, _Inert):
        _end_inert(result, watcher.exit_code, keep=out is not None)
    if not quiet:
        _print_result(result)
    raise typer.Exit(result.exit_code)


def _engine_options(given: Sequence[str], address: str | None) -> dict[str, Any]:
    """KEY=VALUE pairs; a value is JSON where it reads so, such as a number, and else a text."""
    options: dict[str, Any] = {} if address is None else {"address": address}
    for text in given:
        key, mark, value = text.partition("=")
        if not mark or not key:
            raise ValueError(f"--engine-option {text!r} is not KEY=VALUE, such as num_gpus=1")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def _become(command: tuple[str, ...], jobs: str) -> NoReturn:
    """Within a chunk of another sweep: be the command itself, with the jobs that it was given."""
    metrics, chunk = os.environ.get(METRICS_VARIABLE, os.devnull), int(os.environ[CHUNK_VARIABLE])
    filled = fill_command(command, jobs=jobs, metrics=metrics, chunk=chunk)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so through an exec
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(filled[0], filled, {**os.environ, JOBS_VARIABLE: jobs})


class _Inert(SweepShow):
    """Shows nothing, since nothing is split; keeps the command's own exit code."""

    def __init__(self) -> None:
        super().__init__(Console(stderr=True))
        self.exit_code = 0

    def chunk_ended(self, outcome: ChunkOutcome, reason: str, counts: Counts) -> None:
        """Keep it."""
        self.exit_code = exit_code_of(outcome)

    def say(self, line: str, *, style: str | None = None) -> None:
        """Nothing: the command speaks for itself."""


def _end_inert(result: SweepResult, exit_code: int, *, keep: bool) -> None:
    """End as the command did; a folder that nobody asked for, and that holds no metrics, goes."""
    if not keep and not any(result.metrics.values()) and result.folder is not None:
        shutil.rmtree(result.folder, ignore_errors=True)
    elif result.failures and exit_code == 0:
        print(f"millpond: jobs that did not report: {len(result.failures)}; see '{result.folder}'", file=sys.stderr)
    raise typer.Exit(exit_code)


def _show(*, stream: bool, quiet: bool) -> SweepShow:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names and output hold letters that it may not have
    console = LastingConsole(stderr=True)
    kind = SweepShow if quiet else SweepTable if is_watched(console) else SweepLines
    return kind(console, stream=stream)


@contextlib.contextmanager
def _refusing(*kinds: type[Exception]) -> Iterator[None]:
    """Bad values end with exit code 2 and one line, as those that typer itself finds."""
    try:
        yield
    except kinds as error:
        print(f"millpond: {as_options(str(error))}", file=sys.stderr)
        raise typer.Exit(_REFUSED) from None


def _print_result(result: SweepResult) -> None:
    """The summary's metrics, how many jobs are done, and where all of it is."""
    console = LastingConsole()
    metrics, success = result.summary["metrics"], result.summary["success"]
    if metrics or success:
        table = Table("metric", "count", "mean", "std", "min", "max", box=None, header_style="bold")
        for name, figures in metrics.items():
            table.add_row(
                Text(on_one_line(name)),
                *(_figure(figures[column]) for column in ("count", "mean", "std", "min", "max")),
            )
        for name, figures in success.items():
            table.add_row(Text(on_one_line(name)), _figure(figures["count"]), f"{figures['rate']:.2%}")
        console.print(table)
    counts = result.counts
    failed = f", {counts.failed} failed" if counts.failed else ""
    left = f", {counts.left} left" if counts.left else ""
    num_bare = sum(1 for each in result.metrics.values() if not each)
    bare = f" ({num_bare} of them without metrics)" if 0 < num_bare < counts.done else ""
    line = f"{counts.done} of {counts.total} jobs done{bare}{failed}{left}; results in '{result.folder}'"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
