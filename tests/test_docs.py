"""The documentation: it builds without a warning, its code runs, and the options that it names are there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from PIL import Image

import millpond
from documented import (
    PAGES,
    README,
    REPOSITORY,
    commands,
    has_code,
    options_named,
    parsed,
    run,
)
from millpond import settings
from millpond._cli import _typer
from millpond._synth.clips import Recipe, write_clip
from millpond._synth.scene import Scene
from real_servers import without_proxy
from store_server import serving_store
from synthesized import MakeDataset

pytest.importorskip("torch", reason="the pages' batches are tensors")

COMMANDS = vars(typer.main.get_command(_typer))["commands"]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    """Some seconds at 30 fps."""
    path = tmp_path_factory.mktemp("documented") / "clip.mp4"
    write_clip(path, scene, Recipe(1, frames=96, fps=30))
    return path


@pytest.fixture
def reader(synth: MakeDataset, clips: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs the pages' code: what it names, such as path/to/dataset, is there, and small."""
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/dataset").symlink_to(synth())
    (tmp_path / "path/to/another").symlink_to(synth())
    for each in clips.parent.glob("*.*"):
        (tmp_path / each.name).symlink_to(each)
    for name in ("clip.mp4", "a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).symlink_to(clip)
    Image.new("RGB", (8, 6)).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def bucket(synth: MakeDataset, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of ours, in place of s3://bucket, with a dataset pusht."""
    folder = tmp_path_factory.mktemp("bucket")
    (folder / "pusht").symlink_to(synth())
    (folder / "b.mp4").symlink_to(clip)
    with serving_store(folder) as store, without_proxy():
        yield store.url


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "docs", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [README, *(page for page in PAGES if has_code(page))], ids=name_of)
@pytest.mark.usefixtures("reader")
def test_the_code_of_a_page_runs(page: Path, bucket: str) -> None:
    run(parsed(page, {"s3://bucket": bucket}))


def test_command_lines_on_the_pages_are_understood() -> None:
    for page in [*PAGES, README]:
        for name, *arguments in commands(page):
            command = COMMANDS[name]
            command.make_parser(command.context_class(command)).parse_args(arguments)  # an unknown option raises


def test_options_that_the_text_names_are_there() -> None:
    known = {option for command in COMMANDS.values() for p in command.params for option in p.opts}
    named = {(name_of(page), option) for page in PAGES for option in options_named(page)}
    assert not {(page, option) for page, option in named if option not in known | {"--help", "--version"}}


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs/reference").glob("*.md"))
    assert {name for name in millpond.__all__ if f":: millpond.{name}\n" not in pages} == set()


def test_every_variable_is_on_the_page_of_the_environment() -> None:
    page = (REPOSITORY / "docs/reference/environment.md").read_text(encoding="utf-8")
    kinds = [kind for name, kind in vars(settings).items() if name.endswith("Settings") and name != "BaseSettings"]
    names = {f"MILLPOND_{name.upper()}" for kind in kinds for name in kind.model_fields}
    assert names == {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
