"""What a sweep shows: a table on a terminal, lines in a log, failures always."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from millpond._cli.sweep_watch import SweepLines, SweepShow, SweepTable
from millpond._sweep.orders import ChunkOutcome, Look
from millpond._sweep.watching import Counts, Failure

FAILURE_LINES = [
    "chunk 2: job 'job [9]' failed: killed by SIGKILL (9)",
    "  'out/logs/chunk-0002.log' ends with: nothing",
]
FAILURE = Failure("job [9]", "killed by SIGKILL (9)", 2, 1, "chunk-0002.log")


def shown(kind: type[SweepShow], *, terminal: bool) -> tuple[SweepShow, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None, _environ={})
    return kind(console), out


def run(show: SweepShow) -> None:
    with show:
        show.sweep_began(Counts(40, 10, 0), folder="out")
        show.chunk_began(1, ("a", "b"), 1)
        show.chunk_looked(1, Look(0.5, 3 << 30, 1, "job [b]"))
        if isinstance(show, SweepTable):
            show.redraw()
        show.chunk_ended(ChunkOutcome(1, 0, duration_seconds=2.0, peak_pss_bytes=3 << 30), "", Counts(40, 20, 0))
        show.job_failed(FAILURE)
        show.sweep_ended(Counts(40, 20, 1))


def test_the_table_shows_chunk_jobs_current_job_and_memory() -> None:
    show, out = shown(SweepTable, terminal=True)
    run(show)
    cells = ("1", "1/2", "job [b]", "3.0 GiB", "0:00:0")
    assert any(all(text in line for text in cells) for line in out.getvalue().splitlines())
    assert "20/40" in out.getvalue()


def test_any_job_has_one_line_of_the_table() -> None:
    show, out = shown(SweepTable, terminal=True)
    with show:
        show.chunk_began(1, ("a",), 1)
        show.chunk_looked(1, Look(0.5, 3 << 20, 0, "a\nb\x1b[2J" + "c" * 300))
        assert isinstance(show, SweepTable)
        show.redraw()
    assert any(r"a\nb\x1b[2Jccc" in line and "3 MiB" in line for line in out.getvalue().splitlines())


def test_a_failure_is_red_and_the_table_below_it_is_not() -> None:
    out = io.StringIO()
    show = SweepTable(Console(file=out, force_terminal=True, width=100, color_system="standard", _environ={}))
    with show:
        show.chunk_began(1, ("a",), 1)
        show.job_failed(FAILURE)
        show.redraw()
    red = [line for line in out.getvalue().splitlines() if "\x1b[31m" in line or "\x1b[2;31m" in line]
    assert len(red) == 1
    assert "SIGKILL" in red[0]


def test_lines_say_how_each_chunk_ended_and_how_much_is_left() -> None:
    show, out = shown(SweepLines, terminal=False)
    run(show)
    first, chunk, *failure = out.getvalue().splitlines()
    assert first == "40 jobs (10 done before) into 'out'"
    assert chunk.startswith("chunk 1: done after 2.0 s, peak 3.0 GiB; 20 of 40 jobs done, 0:00:0")
    assert failure == FAILURE_LINES


def test_quiet_tells_of_failures_and_nothing_else() -> None:
    show, out = shown(SweepShow, terminal=True)
    run(show)
    assert out.getvalue().splitlines() == FAILURE_LINES


def test_the_end_of_the_log_of_a_chunk_that_failed_is_shown_once(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / FAILURE.log).write_bytes(b"x" * 999 + b"\nout of paint\n\n")
    show, out = shown(SweepShow, terminal=False)
    show.sweep_began(Counts(2, 0, 0), folder=str(tmp_path))
    show.job_failed(FAILURE)
    show.job_failed(FAILURE)
    last = f"  '{tmp_path}/logs/chunk-0002.log' ends with: out of paint"
    assert out.getvalue().splitlines() == [FAILURE_LINES[0], last, FAILURE_LINES[0]]


def test_a_line_without_an_end_is_streamed_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    show = SweepShow(Console(), stream=True)
    for _ in range(3):
        show.chunk_printed(1, b"x" * 50_000)
    assert capsys.readouterr().out == f"[chunk 1] {'x' * 100_000}\n"


def test_output_is_streamed_by_whole_lines_behind_the_chunks_number(capsys: pytest.CaptureFixture[str]) -> None:
    show = SweepShow(Console(file=io.StringIO()), stream=True)
    show.chunk_printed(1, b"one\ntw")
    show.chunk_printed(2, b"other\n")
    show.chunk_printed(1, b"o\nrest \xff")
    show.chunk_ended(ChunkOutcome(1, 0), "", Counts(1, 1, 0))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["[chunk 1] one", "[chunk 2] other", "[chunk 1] two", "[chunk 1] rest \N{REPLACEMENT CHARACTER}"]
