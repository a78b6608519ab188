"""The command line: what it takes, what it refuses before any work, and how it says so."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond._cli import app
from millpond._cli.commands import COMMANDS
from millpond._cli.options import _KEYWORDS, as_options
from millpond._synth import CODECS
from synthesized import FRONT_PATH, MakeDataset

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process, in an empty folder; gives its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["millpond", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app()
        return int(ended.value.code or 0)

    return run


def unboxed(text: str) -> str:
    """Without the frame that usage errors are drawn with."""
    return " ".join(word for word in text.split() if word not in "│╭╰─╮╯")


def test_python_m_millpond_is_quick_to_say_what_it_is() -> None:
    code = "import runpy, sys; sys.argv = ['millpond', '-h']; runpy.run_module('millpond', run_name='__main__')"
    watched = f"import atexit, sys; atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=True)
    assert "demo" in done.stdout
    assert not {"'av'", "'numpy'", "'pyarrow'", "'plotly'"} & set(done.stderr.strip("[]\n").split(", "))


@pytest.mark.parametrize("command", ["demo", "synth", "inspect", "bench"])
def test_h_helps_as_help_does(run: Run, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(command, "-h") == 0
    short = capsys.readouterr().out
    assert run(command, "--help") == 0
    assert capsys.readouterr().out == short


def test_help_names_every_codec(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("synth", "--help")
    assert f"One of {', '.join(CODECS)}." in capsys.readouterr().out


def test_keywords_of_the_loader_are_told_as_options() -> None:
    assert as_options("a smaller image_size=, batch_size= or num_workers= needs less than memory=5 bytes") == (
        "a smaller --image-size, --batch-size or --num-workers needs less than --memory 5 bytes"
    )
    assert as_options("'/data/memory=3/x' and held_batches=") == "'/data/memory=3/x' and held_batches="


def test_every_keyword_that_is_told_as_an_option_is_one() -> None:
    assert set(_KEYWORDS) <= {name for command in COMMANDS for name in inspect.signature(command).parameters}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["inspect", "nowhere", "--memory", "much"], "--memory"),
        (["inspect", "nowhere", "--image-size", "640"], "write WIDTHxHEIGHT"),
        (["demo", "--memory", "-1"], "--memory"),
        (["demo", "--report", "nope/report.html"], "no folder 'nope'"),
        (["bench", "nowhere", "--report", "."], "cannot be written"),
        (["synth", "out", "--codec", "mjpeg"], "none of av1"),
        (["synth", "out", "--size", "0x5"], "WIDTHxHEIGHT"),
        (["synth", "s3://bucket/x"], "takes a folder of this machine"),
        (["bench", "https://h/x"], "takes a folder of this machine"),
        (["demo", "https://h/x"], "takes a folder of this machine"),
    ],
)
def test_misuse_ends_with_code_2_before_any_work(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], match: str
) -> None:
    assert run(*arguments) == 2
    assert match in unboxed(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_demo_makes_no_dataset_at_a_place_that_was_named(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("demo", "nope/deep") == 1
    assert "'nope/deep' is not there; `millpond synth nope/deep`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_demo_makes_no_clips_at_a_place_that_was_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "nope", "--clips") == 1
    assert "'nope' is not there; `millpond demo --clips` makes 'demo-clips'" in capsys.readouterr().err


def test_demo_of_clips_names_the_two_bad_ones_and_delivers_all_others_once(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("demo", "--clips", "--quiet", "--num-workers", "2") == 0
    shown = capsys.readouterr().out
    assert "22 good clips came once each" in shown
    assert "skipped: clips/007.mp4: CorruptMedia: row 7: packet 0 of " in shown
    assert "skipped: clips/013.mp4: DecodeTimeout: " in shown
    assert "books: 24 planned + 0 padded = 22 delivered + 2 skipped + 0 failed + 0 dropped" in shown
    assert "millpond demo --clips" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"demo-clips", "report.html"}


@pytest.mark.parametrize("arguments", [["demo"], ["synth", "out"], ["demo", "--clips"]])
def test_an_interrupt_ends_with_code_130_and_leaves_nothing(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    def interrupted(*_: object) -> None:
        assert list(tmp_path.glob("*.unfinished"))
        raise KeyboardInterrupt

    monkeypatch.setattr("millpond._synth.writer.encode_episodes", interrupted)
    monkeypatch.setattr("millpond._synth.clip_set.write_clip", interrupted)
    assert run(*arguments) == 130
    assert capsys.readouterr().err.strip() == "interrupted"
    assert list(tmp_path.iterdir()) == []


def test_synth_makes_the_cameras_that_were_asked_for_and_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--episodes", "1", "--frames", "2", "--size", "64x64", "--codec", "h264", "--image-features", "1")
    assert run("synth", "pngs", "--cameras", "0", *small) == 0
    assert "2 frames, 1 cameras (1 as PNG in parquet)" in capsys.readouterr().out
    assert run("synth", "both", "--cameras", "1", *small) == 0
    assert "2 frames, 2 cameras (1 as PNG in parquet)" in capsys.readouterr().out
    assert Path("both", FRONT_PATH).exists()


def test_synth_says_where_it_cannot_write(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert run("synth", "file/out") == 1
    assert "millpond: 'file/out' cannot be made" in capsys.readouterr().err


def test_a_budget_that_is_too_small_is_told_in_options(
    run: Run, capsys: pytest.CaptureFixture[str], synth: MakeDataset
) -> None:
    assert run("inspect", synth(), "--memory", "1MiB") == 1
    assert "--image-size, --batch-size or --num-workers" in capsys.readouterr().err


def test_inspect_knows_the_size_of_pictures_in_parquet(
    run: Run, capsys: pytest.CaptureFixture[str], synth: MakeDataset
) -> None:
    assert run("inspect", synth(image_features=1, codec="av1"), "--num-workers", "0") == 0
    front, wrist = (line.split() for line in capsys.readouterr().out.splitlines() if "observation.images" in line)
    assert front[:4] == ["observation.images.front", "av1", "(libdav1d)", "128x96"]
    assert wrist == ["observation.images.wrist", "image", "128x96", "1", "69", "1", "image"]


def test_inspect_names_an_episode_once(run: Run, capsys: pytest.CaptureFixture[str], damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=1)
    (root / FRONT_PATH).write_bytes(b"no video")
    assert run("inspect", root, "--num-workers", "0") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("episode 0"))
    assert line.startswith("episode 0 of camera 'observation.images.front': ")
    assert line.count("episode 0") == 1
