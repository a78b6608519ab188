"""`millpond.lerobot.patch`: what it says where LeRobot is not as it should be, and LeRobot as its main branch has it.

The claims about a real LeRobot are in with_lerobot/, and run in a process of their own: in this one nobody should find
pandas, say, which comes with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.errors import UnsupportedFormat
from programs import environment_of_tests
from synthesized import FRONT_PATH, MakeDataset

CLAIMS = Path(__file__).parent / "with_lerobot"
LEROBOT = Path(sys.prefix) / "lerobot"  # where the Makefile puts it


def path_to_lerobot() -> list[str]:
    """What is to be put into PYTHONPATH for it."""
    if LEROBOT.is_dir():
        return [str(CLAIMS / "stand_ins"), str(LEROBOT)]
    if importlib.util.find_spec("lerobot") is None:
        pytest.skip(f"no LeRobot: it is neither installed nor in {LEROBOT}, where `make setup` puts it")
    return []


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run of all claims says; it imports torch and LeRobot, which takes longer than most of them."""
    pytest.importorskip("torch", reason="LeRobot needs torch")
    folder = tmp_path_factory.mktemp(
        "c"
    )  # short: addresses of sockets lie in it, and those have at most 107 characters
    environment = environment_of_tests(HF_HUB_OFFLINE="1", HF_HOME=str(folder / "hub"))
    environment["PYTHONPATH"] = os.pathsep.join([*path_to_lerobot(), environment["PYTHONPATH"]])
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "timeout=120", f"--basetemp={folder / 'b'}"]
    told = folder / "told.txt"
    with told.open("wb") as out:  # no pipe: what claims start may outlive them for a moment, and would hold it open
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-v", *options, *map(str, sorted(CLAIMS.glob("claims_*.py")))],
            env=environment,
            cwd=CLAIMS.parent.parent,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
    text = told.read_text(encoding="utf-8", errors="replace")
    return text if ended.returncode == 0 else f"exit code {ended.returncode}\n{text}"


@pytest.mark.timeout(900)  # the first of them waits for all
@pytest.mark.parametrize("claims", sorted(path.stem for path in CLAIMS.glob("claims_*.py")))
def test_claims_hold_with_a_real_lerobot(claims: str, told: str) -> None:
    if told.startswith("exit code"):
        pytest.fail(told, pytrace=False)
    ends = re.findall(rf"{claims}\.py::\S+ (PASSED|SKIPPED \(.*\))", told)
    assert ends
    if skipped := {end for end in ends if end != "PASSED"}:
        pytest.skip(f"{claims}: {ends.count('PASSED')} passed, {len(ends)} in all; {'; '.join(sorted(skipped))}")


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_the_package_loads_no_lerobot_and_its_module_needs_none() -> None:
    assert output_of("import sys, millpond; print('millpond.lerobot' in sys.modules)") == "False"
    code = "import sys, millpond.lerobot; print({'lerobot', 'torch'} & set(sys.modules))"
    assert output_of(code) == "set()"


@pytest.fixture
def a_lerobot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes a LeRobot of given sources, which this test imports."""
    real = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "lerobot"}

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "lerobot"]:
            del sys.modules[name]

    def make(**sources: str) -> None:
        folder = tmp_path / "lerobot" / "datasets"
        folder.mkdir(parents=True)
        for package in (folder.parent, folder):
            (package / "__init__.py").touch()
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    forget()
    yield make
    forget()
    sys.modules.update(real)


def test_without_lerobot_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lerobot", None)
    with pytest.raises(ImportError, match="pip install lerobot") as caught:
        _patch()
    assert caught.value.name == "lerobot"


def test_what_lerobot_lacks_is_named_with_the_remedy(a_lerobot: Callable[..., None]) -> None:
    a_lerobot(video_utils="import no_such_thing_at_all")
    with pytest.raises(ImportError, match=r"no_such_thing_at_all.*pip install 'lerobot\[dataset\]'") as caught:
        _patch()
    assert caught.value.name == "no_such_thing_at_all"


@pytest.mark.parametrize(
    ("sources", "what"),
    [
        ({}, "has no module lerobot.datasets.video_utils"),
        ({"video_utils": ""}, "has no decode_video_frames"),
        (
            {"video_utils": "def decode_video_frames(path, seconds): ..."},
            r"takes \(path, seconds\), with no video_path",
        ),
        (
            {"video_utils": "def decode_video_frames(video_path, timestamps, tolerance_s): ..."},
            "has no FrameTimestampError",
        ),
    ],
)
def test_another_lerobot_is_an_unsupported_format(
    a_lerobot: Callable[..., None], sources: dict[str, str], what: str
) -> None:
    a_lerobot(**sources)
    with pytest.raises(UnsupportedFormat, match=rf"^lerobot .* {what}.*knows LeRobot 0\.4\.4"):
        _patch()


# What LeRobot's main branch (2026) asks of its functions, and from where. Its own answers are told by what they return.
MAIN = """
from pathlib import Path

class FrameTimestampError(ValueError): ...

class VideoDecoderCache:
    def __init__(self, max_size=None): ...

_default_decoder_cache = VideoDecoderCache()

def decode_video_frames(video_path, timestamps, tolerance_s, backend=None, return_uint8=False, is_depth=False):
    if is_depth:
        return decode_video_frames_pyav(video_path, timestamps, tolerance_s, is_depth=True)
    return "theirs"

def decode_video_frames_pyav(
    video_path, timestamps, tolerance_s, log_loaded_timestamps=False, return_uint8=False, is_depth=False
):
    return "their depth" if is_depth else "theirs"

def decode_video_frames_torchcodec(
    video_path, timestamps, tolerance_s, log_loaded_timestamps=False, decoder_cache=None, return_uint8=False
):
    return "theirs"
"""
READER = "from .video_utils import decode_video_frames\n"


@pytest.fixture
def main_branch(a_lerobot: Callable[..., None]) -> Any:
    a_lerobot(video_utils=MAIN, dataset_reader=READER)
    importlib.import_module("lerobot.datasets.dataset_reader")
    return importlib.import_module("lerobot.datasets.video_utils")


def test_readers_of_the_main_branch_get_bytes_if_they_ask_for_them(main_branch: Any, synth: MakeDataset) -> None:
    call = (synth() / FRONT_PATH, [0.1, 0.0], 1e-4)
    expected = millpond.decode_video_frames(*call)
    reader: Any = sys.modules["lerobot.datasets.dataset_reader"]
    with _patch() as patch:
        found = reader.decode_video_frames(*call, "torchcodec", return_uint8=True, is_depth=False)
        as_floats = reader.decode_video_frames(*call)
        patch.cache.clear()
    assert found.dtype == expected.dtype
    assert bool((found == expected).all())
    assert abs(as_floats * 255 - expected).max() < 1e-3
    assert reader.decode_video_frames(*call) == "theirs"


@pytest.mark.parametrize(
    ("name", "options", "answer"),
    [
        ("decode_video_frames", {"is_depth": True}, "their depth"),
        ("decode_video_frames_pyav", {"is_depth": True}, "their depth"),
        ("decode_video_frames", {"backend": "another"}, "theirs"),
        ("decode_video_frames_torchcodec", {"decoder_cache": object()}, "theirs"),
    ],
)
def test_what_millpond_does_not_do_is_lerobots(
    main_branch: Any, tmp_path: Path, name: str, options: dict[str, Any], answer: str
) -> None:
    with _patch():
        assert getattr(main_branch, name)(tmp_path, [0.0], 1e-4, **options) == answer


def test_an_open_file_is_lerobots(main_branch: Any, tmp_path: Path) -> None:
    with _patch(), (tmp_path / "file").open("wb") as file:
        assert main_branch.decode_video_frames_pyav(file, [0.0], 1e-4) == "theirs"


def test_a_call_brings_its_own_cache(main_branch: Any, synth: MakeDataset) -> None:
    theirs, mine = main_branch.VideoDecoderCache(), millpond.VideoDecoderCache(max_size=1)
    with _patch() as patch:
        for cache in (theirs, mine):
            before = patch.cache.statistics().misses
            main_branch.decode_video_frames_torchcodec(synth() / FRONT_PATH, [0.0], 1e-4, decoder_cache=cache)
            assert patch.cache.statistics().misses - before == (cache is theirs)
        patch.cache.clear()
    assert mine.statistics().misses == 1
    mine.clear()


def _patch() -> Any:
    import millpond.lerobot

    return millpond.lerobot.patch()
