"""`millpond index`: what it prints, what it keeps, and what it never tells."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import media_zoo as zoo
from millpond._cli import app
from millpond._cli.options import parse_storage_options
from millpond._datasets.episode_index import EpisodeByteIndex
from store_server import serving_store
from synthesized import FRONT, FRONT_PATH, WRIST, MakeDataset
from terminals import terminal

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `millpond index` in this process, in an empty folder; gives its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MILLPOND_CACHE_DIR", str(tmp_path / "cache"))

    def run(*arguments: str | Path, command: str = "index") -> int:
        monkeypatch.setattr(sys, "argv", ["millpond", command, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app()
        return int(ended.value.code or 0)

    return run


def test_it_says_what_was_indexed_and_writes_the_index(
    run: Run, capsys: pytest.CaptureFixture[str], synth: MakeDataset, tmp_path: Path
) -> None:
    root = synth()
    assert run(root, "--out", "x.index") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{root}: 5 episodes, 2 cameras ({FRONT}, {WRIST}), 2 video files"
    assert lines[1].startswith("no GETs in ")
    assert lines[1].endswith(f"sample tables are kept in {tmp_path / 'cache' / 'sidecars'}")
    assert lines[2].startswith("index: x.index (")
    assert len(EpisodeByteIndex.load(tmp_path / "x.index")) == 5


def test_json_counts_requests_and_bytes(run: Run, capsys: pytest.CaptureFixture[str], synth: MakeDataset) -> None:
    with serving_store(synth()) as server:
        assert run(server.url, "--json", "--workers", "3") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["root"], told["episodes"], told["cameras"], told["files"]) == (server.url, 5, [FRONT, WRIST], 2)
        assert (told["requests"], told["bytes_fetched"]) == (server.counts.requests, server.counts.bytes_sent)
    assert told["problems"] == {}
    assert told["out"] is None


def test_problems_are_told_by_episode(run: Run, capsys: pytest.CaptureFixture[str], damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=3)
    (root / FRONT_PATH).unlink()
    assert run(root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" of camera")[0] for line in lines[2:]] == ["episode 0", "episode 1", "episode 2"]
    assert run(root, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["problems"]) == ["0", "1", "2"]


def test_video_files_are_indexed_too(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [zoo.clip_path("h264_b_frames"), zoo.clip_path("h264_mkv")]
    assert run(*paths) == 0
    assert f"{paths[0]}, {paths[1]}: 2 episodes, 1 camera (video), 2 video files" in capsys.readouterr().out


def test_secrets_reach_the_server_and_nobody_else(
    run: Run, capsys: pytest.CaptureFixture[str], synth: MakeDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    with serving_store(synth(), bearer="hunter2") as server:
        assert run(server.url, "--token-env", "MY_TOKEN", "--out", "x.index") == 0
        assert run(server.url, "--token-env", "MY_TOKEN", "--json") == 0
        server.set(bearer="", basic="ann:hunter2")
        assert run(server.url.replace("://", "://ann:hunter2@"), "--out", "y.index") == 0
        assert run(server.url.replace("://", "://ann:hunter3@")) == 1
        assert run(server.url, "--storage-option", "headers.X-Key=hunter2") == 1
        assert "could not be fetched" in (told := capsys.readouterr()).err
    assert "hunter" not in told.out + told.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter" in path.read_bytes()]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["x", "--storage-option", "hunter2"], "1. --storage-option is not KEY=VALUE"),
        (["x", "--storage-option", "a=b", "--storage-option", "=hunter2"], "2. --storage-option is not KEY=VALUE"),
        (["x", "--token-env", "hunter2"], "name of an environment variable"),
        (["x", "--workers", "0"], "--workers"),
        (["x", "--out", "nope/x.index"], "no folder 'nope'"),
        ([], "URL"),
    ],
)
def test_misuse_ends_with_code_2_and_repeats_no_secret(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], match: str
) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert match in told
    assert "hunter2" not in told


def test_what_is_not_there_ends_with_code_1(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nowhere") == 1
    assert "no LeRobot dataset at" in capsys.readouterr().err
    assert run("nowhere", "--storage-option", "key=hunter2") == 1
    assert "hunter2" not in capsys.readouterr().err


def test_storage_options_are_texts_flags_and_tables() -> None:
    options: dict[str, Any] = parse_storage_options(
        ["anon=true", "endpoint_url=http://h:9000/?a=b", "client_kwargs.region_name=eu", "client_kwargs.verify=False"]
    )
    assert options == {
        "anon": True,
        "endpoint_url": "http://h:9000/?a=b",
        "client_kwargs": {"region_name": "eu", "verify": False},
    }
    with pytest.raises(typer.BadParameter):
        parse_storage_options(["a=1", "a.b=2"])


def test_a_terminal_shows_how_many_files_were_read(
    run: Run, synth: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = synth()
    with terminal(monkeypatch) as told:
        assert run(root) == 0
        lines = told()
    assert "reading headers" in lines
    assert "2/2" in lines


@pytest.mark.parametrize("hidden", ["--quiet", "--json"])
def test_nobody_is_shown_a_bar_who_asked_for_none(
    run: Run, synth: MakeDataset, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    with terminal(monkeypatch) as told:
        assert run(synth(), hidden) == 0
        assert told() == ""


def test_inspect_looks_at_a_dataset_behind_a_url(
    run: Run, capsys: pytest.CaptureFixture[str], synth: MakeDataset
) -> None:
    with serving_store(synth()) as server:
        url = server.url.replace("://", "://user:pa55word@") + "?sig=s1gnature"
        assert run(url, "--memory", "512MiB", "--num-workers", "1", command="inspect") == 0
    told = "".join(capsys.readouterr())
    assert told.startswith(f"{server.url}?...: 5 episodes")
    assert "prefetch" in told
    assert "pa55word" not in told
    assert "s1gnature" not in told
