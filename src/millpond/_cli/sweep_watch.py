"""What a sweep shows while it runs: lines in a log, a table on a terminal, and what its chunks print."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from millpond._amounts import size_in_words
from millpond._cli.terminal import REDRAWS_PER_SECOND, bar_columns, clock
from millpond._sweep.orders import ChunkOutcome, Look
from millpond._sweep.watching import Counts, Failure, Watcher

_TAIL_BYTES = 400
_LONGEST_LINE_BYTES = 1 << 16
"""Of what a chunk prints; a longer one is broken, since it may never end."""


class LastingConsole(Console):
    """Falls silent when nobody reads any more (`| head`), where rich would end this process: the sweep goes on."""

    def on_broken_pipe(self) -> None:
        """As rich calls it."""
        self.quiet = True
        _fall_silent(self.file.fileno())


class SweepShow(Watcher):
    """Tells of failures and signals, and prints what chunks print where that is wanted; enough for `--quiet`.

    Args:
        console: For what the sweep itself says: standard error.
        stream: Whether what chunks print goes to standard output, each line behind the chunk's number.
    """

    def __init__(self, console: Console, *, stream: bool = False) -> None:
        self.console = console
        self.wants_output = stream
        self._unfinished: dict[int, bytes] = {}
        self._logs = Path()
        self._last_failed = 0

    def __enter__(self) -> SweepShow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def sweep_began(self, counts: Counts, *, folder: str) -> None:
        """Keep where logs are."""
        self._logs = Path(folder, "logs")

    def chunk_printed(self, number: int, output: bytes) -> None:
        """Print the lines that are whole, or long."""
        *lines, rest = (self._unfinished.pop(number, b"") + output).split(b"\n")
        if len(rest) > _LONGEST_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        self._unfinished[number] = rest
        for line in lines:
            self._print(number, line)

    def chunk_ended(self, outcome: ChunkOutcome, reason: str, counts: Counts) -> None:
        """Print what was left of a line."""
        if rest := self._unfinished.pop(outcome.number, b""):
            self._print(outcome.number, rest)

    def job_failed(self, failure: Failure) -> None:
        """Say which, why, and where more is to be read."""
        what = f"job {failure.job!r} failed" if failure.job else "ended badly"
        self.say(f"chunk {failure.chunk}: {what}: {failure.reason.strip()}", style="red")
        if failure.chunk != self._last_failed:
            self._last_failed = failure.chunk
            log = self._logs / failure.log
            self.say(f"  '{log}' ends with: {on_one_line(_last_line(log)) or 'nothing'}")

    def interrupted(self, signal_name: str, *, is_last_warning: bool) -> None:
        """Say what is done about it."""
        if is_last_warning:
            self.say(f"{signal_name} again: killing what runs", style="yellow")
        else:
            self.say(f"{signal_name}: ending what runs; --resume goes on later", style="yellow")

    def say_began(self, counts: Counts, folder: str) -> None:
        """Say what is to be done, and where it goes."""
        before = f" ({counts.done} done before)" if counts.done else ""
        self.say(f"{counts.total} jobs{before} into '{folder}'")

    def say(self, line: str, *, style: str | None = None) -> None:
        """Print a line of the sweep's own, as it is: names may hold brackets, and are not broken."""
        with contextlib.suppress(OSError):  # the terminal is gone, or a disk is full: no reason to end a sweep
            # a style of print() would colour the table below the line, too
            self.console.print(Text(line, style=style or ""), soft_wrap=True)

    def _print(self, number: int, line: bytes) -> None:
        try:
            print(f"[chunk {number}] {line.decode(errors='replace')}", file=sys.stdout, flush=True)
        except OSError as error:
            _fall_silent(sys.stdout.fileno())
            self.say(f"standard output takes no more ({error.strerror}): what chunks print is in their logs")


class SweepLines(SweepShow):
    """A line for each chunk that ends."""

    def __init__(self, console: Console, *, stream: bool = False) -> None:
        super().__init__(console, stream=stream)
        self._pace = Pace()

    def sweep_began(self, counts: Counts, *, folder: str) -> None:
        """Say what is to be done, and where it goes."""
        super().sweep_began(counts, folder=folder)
        self._pace.begin(counts)
        self.say_began(counts, folder)

    def chunk_ended(self, outcome: ChunkOutcome, reason: str, counts: Counts) -> None:
        """Say how it ended, and how far the sweep is."""
        super().chunk_ended(outcome, reason, counts)
        how = f"{reason.strip()}; took" if reason.strip() else "done after"
        left = self._pace.left(counts)
        peak = size_in_words(max(outcome.peak_pss_bytes, outcome.peak_rss_bytes))
        self.say(
            f"chunk {outcome.number}: {how} {outcome.duration_seconds:.1f} s, peak {peak}; "
            f"{counts.done} of {counts.total} jobs done{f', {left} left' if left else ''}"
        )


@dataclass(slots=True)
class _Row:
    num_jobs: int
    began: float
    look: Look | None = None


class SweepTable(SweepShow):
    """A table of the chunks that run, and a bar of the jobs that are done."""

    def __init__(self, console: Console, *, stream: bool = False) -> None:
        super().__init__(console, stream=stream)
        self._rows: dict[int, _Row] = {}
        self._bar = Progress(*bar_columns("jobs", console), console=console)
        self._jobs = self._bar.add_task("sweep", total=None, note="", before=0)
        self._live = Live(
            get_renderable=self._drawn,
            console=console,
            refresh_per_second=REDRAWS_PER_SECOND,
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> SweepTable:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.clear()
        with contextlib.suppress(OSError):
            self._live.stop()

    def sweep_began(self, counts: Counts, *, folder: str) -> None:
        """Say where it goes, and draw the bar."""
        super().sweep_began(counts, folder=folder)
        self.say_began(counts, folder)
        self._bar.reset(self._jobs, total=counts.total, completed=counts.done, note="", before=counts.done)

    def chunk_began(self, number: int, names: tuple[str, ...], attempt: int) -> None:
        """A row more."""
        self._rows[number] = _Row(len(names), time.monotonic())

    def chunk_looked(self, number: int, look: Look) -> None:
        """What its row shows; a look may come after the chunk's end."""
        if number in self._rows:
            self._rows[number].look = look

    def chunk_ended(self, outcome: ChunkOutcome, reason: str, counts: Counts) -> None:
        """A row less."""
        super().chunk_ended(outcome, reason, counts)
        self._rows.pop(outcome.number, None)
        if reason:
            self.say(f"chunk {outcome.number}: {reason.strip()}", style="yellow")
        self._advance(counts)

    def redraw(self) -> None:
        """Show what is known now; otherwise it is shown some times a second."""
        self._live.refresh()

    def _advance(self, counts: Counts) -> None:
        note = f"{counts.failed} failed" if counts.failed else ""
        self._bar.update(self._jobs, total=counts.total, completed=counts.done, note=note)

    def _drawn(self) -> Group:
        table = Table("chunk", "jobs", "at", "memory", "time", box=None, header_style="dim")
        for number, row in list(self._rows.items()):  # the console's thread draws, too
            look = row.look or Look(0.0, 0)
            jobs = f"{look.num_reported}/{row.num_jobs}" if look.current or look.num_reported else str(row.num_jobs)
            at = Text(on_one_line(look.current), no_wrap=True, overflow="ellipsis")
            elapsed = clock(time.monotonic() - row.began)
            table.add_row(str(number), jobs, at, size_in_words(look.pss_bytes), elapsed)
        return Group(table, self._bar) if self._rows else Group(self._bar)


def _fall_silent(descriptor: int) -> None:
    """Let it lead nowhere: else what is in its buffer would fail again at the end of this process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class Pace:
    """How long it may still take, by what has been done since the beginning."""

    def begin(self, counts: Counts) -> None:
        """Before the first chunk."""
        self._began = time.monotonic()
        self._done_before = counts.done

    def left(self, counts: Counts) -> str:
        """Hours, minutes and seconds; "" where nothing is known, or left."""
        done = counts.done - self._done_before
        if done <= 0 or counts.left <= 0:
            return ""
        return clock((time.monotonic() - self._began) / done * counts.left)


def on_one_line(name: str) -> str:
    """A name as a terminal can show it: what would move its cursor, or change its colours, is an escape."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def _last_line(log: Path) -> str:
    """Of a log, as far as it is no longer than some terminal lines."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
