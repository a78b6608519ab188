"""The documentation: it builds without a warning, its code runs, and the options that it names are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from documented import PAGES, REPOSITORY, commands, has_code, options_named, parsed, run
from millpond._cli import _typer
from synthesized import MakeDataset

pytest.importorskip("torch", reason="the pages' batches are tensors")

COMMANDS = vars(typer.main.get_command(_typer))["commands"]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.fixture
def folder_of_a_reader(synth: MakeDataset, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pages' code runs: what it names, such as path/to/dataset, is there, small."""
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/dataset").symlink_to(synth())
    for clip in clips.parent.glob("*.*"):
        (tmp_path / clip.name).symlink_to(clip)
    for name in ("clip.mp4", "a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).symlink_to(clips.parent / "h264.mp4")
    monkeypatch.chdir(tmp_path)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "docs", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if has_code(page)], ids=name_of)
@pytest.mark.usefixtures("folder_of_a_reader")
def test_the_code_of_a_page_runs(page: Path) -> None:
    run(parsed(page))


def test_command_lines_on_the_pages_are_understood() -> None:
    for page in [*PAGES, REPOSITORY / "README.md"]:
        for name, *arguments in commands(page):
            command = COMMANDS[name]
            command.make_parser(command.context_class(command)).parse_args(arguments)  # an unknown option raises


def test_options_that_the_text_names_are_there() -> None:
    known = {option for command in COMMANDS.values() for p in command.params for option in p.opts}
    named = {(name_of(page), option) for page in PAGES for option in options_named(page)}
    assert not {(page, option) for page, option in named if option not in known | {"--help", "--version"}}
