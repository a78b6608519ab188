"""Bars: one look, only where somebody sees them, and nothing of them is left behind."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest
from rich.console import Console

from millpond._cli.terminal import is_watched, progress_bar
from terminals import terminal

SHOWS_CURSOR = "\x1b[?25h"


def draw(*, quiet: bool = False) -> None:
    with progress_bar("reading [headers]", unit="files", total=4, quiet=quiet, ticks=False) as bar:
        bar.advance()
        bar.show(2, note="1 failed")


def test_a_terminal_shows_what_is_done_of_how_much_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as told:
        draw()
        lines = told().replace("\r", "\n")
    assert "reading [headers]" in lines
    assert all(text in lines for text in ("1/4", "2/4", "files", "1 failed", "0:00:00 left", "\x1b[36m"))


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, NO_COLOR="1") as told:
        draw()
        lines = told()
    assert "2/4" in lines
    assert "\x1b[3" not in lines


def test_a_narrow_terminal_keeps_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, columns=50) as told:
        draw()
        assert "2/4\x1b[0m files 1 failed" in told()


def test_quiet_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as told:
        draw(quiet=True)
        assert told() == ""


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"])
def test_a_log_gets_no_bars_whatever_it_says_of_colours(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    draw()
    assert log.getvalue() == ""


def test_a_terminal_that_cannot_move_its_cursor_gets_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, TERM="dumb"):
        assert not is_watched(Console(stderr=True))


def test_the_cursor_is_there_while_a_bar_is_shown_and_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as told:
        shown = progress_bar("epoch", unit="samples")
        bar = shown.__enter__()
        assert told().rindex(SHOWS_CURSOR) > 0
        bar.advance(7)
        with contextlib.suppress(KeyboardInterrupt):
            shown.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        lines = told()
    assert "7/?" in lines
    assert lines.endswith(f"\r\n{SHOWS_CURSOR}")
