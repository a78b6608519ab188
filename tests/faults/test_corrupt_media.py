"""2,000 corrupted files of every format: each gives its frames or samples, an error that says so, or a timeout.

Frames are compared with those of the whole file; what flipped bits make of a sound or an image can be anything, so
there it is the form alone.

The files are the same in every run. `bench/fuzz.py` does the same for as long as one likes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import millpond
from corrupt_clips import FORMATS, FRAMES, make
from corrupt_reading import Case, Whole, examine
from corrupt_run import TIMEOUT_SECONDS, Tally, examined
from corruption import corrupted
from corruption_headers import MUTATORS

FILES_EACH = 92
OUTCOMES = {
    "video": {"frames", "CorruptMedia", "FramesMissing"},
    "audio": {"samples", "CorruptMedia"},
    "image": {"picture", "CorruptMedia"},
}


@pytest.fixture(scope="session")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole file of each format, by its name."""
    folder = tmp_path_factory.mktemp("wholes")
    for name, wanted in FORMATS.items():
        (folder / name).write_bytes(make(wanted))
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_a_corrupted_file_gives_data_that_may_be_its_own_or_an_error_that_fits(
    name: str, wholes: Path, tmp_path: Path
) -> None:
    tally = Tally()
    with millpond.Guard(num_workers=1, timeout=TIMEOUT_SECONDS) as guard:
        for seed, mutator, reading, _ in examined(guard, FORMATS[name], wholes / name, range(FILES_EACH), tmp_path):
            tally.add(seed, mutator, reading)
        assert guard.statistics().calls_died == 0
    assert tally.files == FILES_EACH
    assert not tally.offenders
    assert tally.outcomes.keys() <= OUTCOMES[FORMATS[name].media] | {"DecodeTimeout"}
    assert tally.outcomes["CorruptMedia"] > 0


def test_these_are_2000_files() -> None:
    assert FILES_EACH * len(FORMATS) >= 2000


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_breaks_no_promise(name: str, wholes: Path) -> None:
    path = wholes / name
    reading = examine(Case(FORMATS[name].media, path, path))
    assert reading.outcome in {"frames", "samples", "picture"}
    assert (reading.broken, reading.altered) == ((), 0)
    if FORMATS[name].media == "video":
        assert reading.frames == FRAMES


@pytest.mark.parametrize("kind", MUTATORS)
def test_damage_is_the_same_for_the_same_seed_and_of_every_kind(kind: str, wholes: Path) -> None:
    name = [name for name, wanted in FORMATS.items() if wanted.kind == kind][-1]
    data = (wholes / name).read_bytes()
    done = [corrupted(data, kind, seed) for seed in range(150)]
    assert done == [corrupted(data, kind, seed) for seed in range(150)]
    assert all(one.data != data for one in done)
    assert {one.mutator for one in done} >= {mutator.__name__ for mutator in MUTATORS[kind]}


def test_the_examiner_sees_a_frame_of_another_place(wholes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wholes / "h264_mp4"
    Whole.of(path)  # before reading goes wrong
    shifted = {j: Whole.of(path).pictures[(j + 1) % FRAMES] for j in range(FRAMES)}
    monkeypatch.setattr("corrupt_reading.read", lambda *_: (shifted, None))
    broken = examine(Case("video", path, path)).broken
    assert "frame 3 shows frame 4 (by its own table)" in broken
    assert "frame 3 is altered, though its CRC was known" in broken


def test_the_examiner_sees_frames_of_packets_that_do_not_decode(
    wholes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Whole.of(wholes / "av1_mp4")
    start, data = int(whole.table.offset[9]), bytearray(whole.data)
    data[start + 6 : start + 60] = b"\xff" * 54
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    grey = {j: np.full_like(picture, 99) for j, picture in enumerate(whole.pictures)}
    monkeypatch.setattr("corrupt_reading.read", lambda *_: (grey, None))
    assert any(
        "altered frames of GOP 1 came, whose packets do not decode" in what
        for what in examine(Case("video", path, wholes / "av1_mp4")).broken
    )
