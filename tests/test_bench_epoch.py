"""What bench/epoch.py says of a side before it is timed: its pictures, its samples, and how they are mixed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from millpond._synth import write_dataset

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that imports a module of `bench`."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / "tiny"
    write_dataset(root, episodes=3, frames=10, cameras=1, size=(64, 80), codec="h264", gop=5)
    return root


def written(frames: Any, samples: list[int], shift: int, path: Path) -> tuple[list[int], Path]:
    """What a side wrote that shows, for each sample, the frame that lies so many further on."""
    camera: str = frames.cameras[0]
    with av.open(frames.file(camera, 0)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    shown = [pictures[frames.frame_of[camera][sample] + shift] for sample in samples]
    np.savez(path, **{camera: np.stack(shown)[:, None]})  # type: ignore[arg-type]
    return samples, path


def test_a_window_shows_the_first_frame_of_its_episode_again(bench: Any, root: Path) -> None:
    frames = bench("_lerobot_frames").read_frames(root, 3)
    (camera,) = frames.cameras
    assert [frames.window(camera, sample) for sample in (0, 9, 10, 12)] == [
        [0, 0, 0],
        [7, 8, 9],
        [10, 10, 10],
        [10, 11, 12],
    ]


def test_a_side_that_shows_the_next_frame_is_found_out(bench: Any, root: Path, tmp_path: Path) -> None:
    frames = bench("_lerobot_frames").read_frames(root, 1)
    came = {
        "right": written(frames, [3, 17], 0, tmp_path / "right.npz"),
        "late": written(frames, [3, 17], 1, tmp_path / "late.npz"),
    }
    found = bench("_pictures").verdicts(frames, None, came)
    assert (found["right"].wrong, found["right"].pictures, found["right"].difference_most) == ("", 2, 0.0)
    assert "shows the frame +1 from its own" in found["late"].wrong


def test_samples_that_are_lost_and_that_come_again_are_told(bench: Any) -> None:
    compare = bench("_compare")
    whole = compare.Look([[0, 1], [1, 3]], True, 1.0, 0, {})
    told = compare.told_of(whole, 5)
    assert (told["delivered"], told["distinct"], told["lost"], told["came_again"]) == (4, 3, 2, 1)
    cut = compare.told_of(compare.Look([[0, 1]], False, 1.0, 0, {}), 5)
    assert (cut["lost"], cut["came_again"]) == (None, 0)


def test_batches_of_one_episode_are_mixed_less_than_a_shuffle(bench: Any, root: Path) -> None:
    frames = bench("_lerobot_frames").read_frames(root, 1)
    mixing_of = bench("_compare").mixing_of
    in_order = [list(range(at, at + 10)) for at in (0, 10, 20)]
    spread = [list(range(at, 30, 3)) for at in (0, 1, 2)]
    assert mixing_of(in_order, frames, 10) == pytest.approx(1 / 3, abs=0.05)
    assert mixing_of(spread, frames, 10) == pytest.approx(1.0, abs=0.05)
