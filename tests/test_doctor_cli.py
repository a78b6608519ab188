"""`millpond doctor`: a whole checkup of this machine, how it is shown, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from millpond._cli import app
from millpond._cli.doctor import print_finding, summary
from millpond._doctor import checkup, codecs, torch_imports
from millpond._doctor.findings import Finding, Level, Plans, error, fine, warning

Run = Callable[..., int]
SUBJECTS = {
    "Python", "packages", "torch", "cores", "memory", "cgroup memory", "overcommit", "memfd", "/dev/shm", "open files",
    "processes", "start methods", "workers", "FFmpeg", "codec h264", "codec hevc", "codec av1", "codec vp9", "cache",
    "temporary files", "import json", "store",
}  # fmt: skip


def ended(*arguments: str) -> int:
    """Run the command in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["millpond", "doctor", *arguments])
        with pytest.raises(SystemExit) as end:
            app()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a checkup of this machine says, with a dataset that is not there; without importing torch."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkup, "_modules", lambda: ["json"])
        patch.setattr(sys, "stdout", out)
        nowhere = str(tmp_path_factory.mktemp("empty"))
        assert ended(nowhere, "--json", "--memory", "1MiB", "--num-workers", "1", "--timeout", "120") == 1
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


def test_a_checkup_looks_at_everything(told: dict[str, Any]) -> None:
    assert {finding["subject"] for finding in told["findings"]} >= SUBJECTS
    assert told["environment"]["python"]
    assert sum(told["counts"].values()) == len(told["findings"])


def test_this_machine_decodes_and_starts_workers(told: dict[str, Any]) -> None:
    found = {finding["subject"]: finding for finding in told["findings"]}
    needed = ["memfd", "codec h264", "codec hevc", "codec av1", "codec vp9"]
    assert {name: found[name] for name in needed if found[name]["level"] != "ok"} == {}
    assert "the zygote forked one" in found["workers"]["found"]


def test_only_what_is_wrong_has_a_remedy(told: dict[str, Any]) -> None:
    assert [each for each in told["findings"] if (each["level"] == "ok") == bool(each["remedy"])] == []
    assert [each["subject"] for each in told["findings"] if each["level"] == "error"] == ["store"]


def test_what_a_sandbox_hides_hides_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError("/proc/meminfo")

    monkeypatch.setattr("psutil.virtual_memory", refuse)
    found = {each.subject: each for each in checkup.look_here(Plans(1 << 20, 1))}
    assert found["memory"].found == "cannot be looked at: /proc/meminfo"
    assert {"memfd", "open files", "cores", "torch"} <= set(found)


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What a checkup finds, without one."""
    found = [fine("memory", "plenty"), warning("/dev/shm", "[64 MiB]", "enlarge it")]
    monkeypatch.setattr("millpond._cli.doctor.run_checkup", lambda wanted: iter(found))
    return found


def test_a_log_has_a_line_for_each_and_the_exit_code_knows(
    findings: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended() == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok       memory: plenty",
        "warning  /dev/shm: [64 MiB]; remedy: enlarge it",
        "1 ok, 1 warning, no errors",
    ]
    findings.append(error("workers", "none", "x"))
    assert ended() == 1


def test_quiet_leaves_out_what_is_well(findings: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    ended("--quiet")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["warning", "1"]


@pytest.mark.parametrize("no_color", [True, False])
def test_on_a_narrow_terminal_texts_wrap_within_their_column(no_color: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=40, no_color=no_color, color_system="standard")
    print_finding(console, warning("/dev/shm", "so small that much has to be said of it", "enlarge it very much"))
    text = out.getvalue()
    assert ("\x1b[33m" in text) != no_color
    assert [line.plain.rstrip() for line in Text.from_ansi(text).split()] == [
        "warning  /dev/shm: so small that much",
        "         has to be said of it",
        "         remedy: enlarge it very much",
    ]
    assert summary(Counter({Level.OK: 2, Level.ERROR: 1})) == "2 ok, no warnings, 1 error"


def test_a_codec_without_encoder_or_decoder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av.codecs_available", frozenset())
    assert codecs.try_codec("av1") == fine("codec av1", "libdav1d is there; not tried, for want of an encoder")
    monkeypatch.setattr(codecs, "has_decoder", lambda name: False)
    assert codecs.try_codec("h264").level == "error"


def test_frames_that_are_not_the_right_ones_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "read_pattern", lambda picture: (7, 0, 1))
    assert codecs.try_codec("h264").found == (
        "h264 gives no right frames: asked for frames 0 to 5, it gave [1, 1, 1, 1, 1, 1]"
    )


@pytest.fixture
def broken_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "torchcodec_broken.py").write_text("raise RuntimeError('Could not load libtorchcodec\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    return "torchcodec_broken"


def test_libraries_that_do_not_load_are_told_with_their_first_line(broken_module: str) -> None:
    _, found = torch_imports.look_at_imports([broken_module])
    assert isinstance(found, Finding)
    assert (found.level, found.found) == (Level.ERROR, "fails: RuntimeError: Could not load libtorchcodec")
