"""The ceiling decodes every camera in turn, in slices, for as long as it is asked."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from millpond._observe import ceiling as ceiling_module
from millpond._observe.ceiling import Ceiling, _decode_rounds, _frames_for_ever, _frames_of, _Job
from millpond.errors import ClosedError, CorruptMedia, WorkerDied

NUM_FRAMES = 40


def write_video(path: Path, *, num_frames: int = NUM_FRAMES) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(30), width=64, height=48, options={"g": "10"})
        for index in range(num_frames):
            picture = np.full((48, 64, 3), index * 6, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("ceiling") / "front.mp4")


def test_slices_go_on_where_the_last_ended_and_nothing_is_left(video: Path) -> None:
    with Ceiling({"front": [video], "wrist": [video]}, num_workers=2, image_size=(24, 32)) as ceiling:
        pids = ceiling.pids
        slices = [ceiling.measure(0.02) for _ in range(2)]
    for measured in slices:
        assert measured.frames % 64 == 0, "a slice holds as many frames of each camera"
        assert measured.frames >= 128
        assert measured.samples_per_second == measured.frames_per_second / 2
        assert measured.cpu_seconds > 0
        assert measured.wall_seconds >= 0.02
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_closed_ceiling_says_so(video: Path) -> None:
    ceiling = Ceiling({"front": [video]}, num_workers=1)
    ceiling.close()
    ceiling.close()
    with pytest.raises(ClosedError):
        ceiling.measure(0.01)


def test_missing_file_ends_the_ceiling_at_construction(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerDied, match="exit code 1"):
        Ceiling({"front": [tmp_path / "none.mp4"]}, num_workers=1)
    said = capfd.readouterr().err
    assert "none.mp4" in said, "the decoder's own error is what helps"
    assert said.count("\n") == 1, "and no traceback"


@pytest.mark.parametrize("start_fraction", [0.0, 0.5, 0.99])
def test_frames_go_round_the_files_from_where_they_begin(video: Path, start_fraction: float) -> None:
    frames = _frames_for_ever([str(video), str(video)], start_fraction)
    seconds = [next(frames).time for _ in range(2 * NUM_FRAMES)]
    assert seconds.count(0.0) in (1, 2), "one turn round two files passes the beginning of a file at most twice"


def test_a_start_within_a_file_is_at_a_keyframe_before_it(video: Path) -> None:
    first = next(_frames_of(str(video), 0.6))
    assert first.time is not None
    assert 0.3 < first.time <= 0.6 * NUM_FRAMES / 30


def test_pictures_are_as_large_as_asked(video: Path) -> None:
    rounds = _decode_rounds(_Job([[str(video)]] * 3, 0.0, (12, 16), "area"))
    assert [next(rounds), next(rounds)] == [96, 96]


def test_files_without_a_frame_are_an_error_and_no_endless_loop(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling_module, "_frames_of", lambda path, start_fraction: iter(()))
    with pytest.raises(CorruptMedia, match=r"no frame decodes from .*front\.mp4"):
        next(_frames_for_ever([str(video)], 0.0))


@pytest.mark.parametrize(("num_workers", "interpolation"), [(0, "bilinear"), (1, "fast")])
def test_misuse_is_a_value_error(video: Path, num_workers: int, interpolation: str) -> None:
    with pytest.raises(ValueError, match=r"worker|interpolation"):
        Ceiling({"front": [video]}, num_workers=num_workers, interpolation=interpolation)
