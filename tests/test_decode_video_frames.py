"""decode_video_frames: LeRobot's semantics, held against a plain reimplementation of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
import millpond
from millpond import FrameTimestampError, ObjectMissing, VideoDecoderCache
from millpond._datasets import frame_batch
from millpond._datasets.decoders import cache as cache_module
from millpond._datasets.decoders.cache import default_cache
from open_videos import descriptors_of

pytestmark = pytest.mark.usefixtures("torch_is_imported")

TOLERANCE = 1e-4
KINDS = ("h264_b_frames", "h264_open_gop", "h264_vfr", "av1_gop_2", "vp9_webm", "h264_mkv", "h264_ts", "mpeg4_avi")


@pytest.fixture
def cache() -> Iterator[VideoDecoderCache]:
    made = VideoDecoderCache(max_size=4)
    yield made
    made.clear()


def by_the_book(name: str, seconds: Iterable[float], tolerance: float) -> NDArray[np.uint8]:
    """(T, 3, H, W): of each time the frame whose own time is nearest, of all frames of a clip, one by one."""
    times, pictures = zoo.clip_table(name).frame_seconds.tolist(), zoo.clip_reference(name)
    chosen = []
    for wanted in seconds:
        distances = [abs(float(wanted) - time) for time in times]
        nearest = min(range(len(times)), key=distances.__getitem__)
        assert distances[nearest] <= tolerance
        chosen.append(pictures[nearest])
    return np.array(chosen).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", KINDS)
def test_the_nearest_frame_of_each_time(cache: VideoDecoderCache, name: str) -> None:
    path, times = zoo.clip_path(name), zoo.clip_table(name).frame_seconds
    random = np.random.default_rng(3)
    asked: list[Any] = [
        times,
        random.permutation(times),
        random.choice(times, 30),
        times[::-1].tolist(),
        tuple(times[5:7]),
        times.astype(np.float32),
        times[[7]],
        times + random.uniform(-0.9, 0.9, len(times)) * TOLERANCE,
    ]
    for seconds in asked:
        frames = millpond.decode_video_frames(path, seconds, TOLERANCE, cache=cache)
        assert np.array_equal(frames, by_the_book(name, seconds, TOLERANCE))
    wide = random.uniform(times[0] - 0.5, times[-1] + 0.5, 60)
    frames = millpond.decode_video_frames(path, wide, 1.0, cache=cache)
    assert np.array_equal(frames, by_the_book(name, wide.tolist(), 1.0))
    assert cache.statistics().misses == 1


def test_times_as_tensors(cache: VideoDecoderCache) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path, times = zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames").frame_seconds
    expected = by_the_book("h264_b_frames", times, TOLERANCE)
    for dtype in (torch.float32, torch.float64):
        seconds = torch.from_numpy(times).to(dtype)
        for asked in (seconds, list(seconds)):
            frames = millpond.decode_video_frames(path, asked, TOLERANCE, cache=cache)
            assert (frames.dtype, frames.device.type) == (torch.uint8, "cpu")
            assert np.array_equal(frames, expected)


def test_a_tie_is_one_of_both_and_always_the_same(cache: VideoDecoderCache) -> None:
    path, reference = zoo.clip_path("h264_b_frames"), zoo.clip_reference("h264_b_frames")
    first = np.asarray(millpond.decode_video_frames(path, [0.02, 0.02], 0.03, cache=cache))
    assert np.array_equal(first[0], first[1])
    assert any(np.array_equal(first[0].transpose(1, 2, 0), reference[k]) for k in (0, 1))


@pytest.mark.parametrize("has_torch", [True, False])
def test_pictures_as_floats_are_exactly_so_many_255ths(
    cache: VideoDecoderCache, monkeypatch: pytest.MonkeyPatch, has_torch: bool
) -> None:
    if has_torch:
        pytest.importorskip("torch", reason="torch is not installed")
    else:
        monkeypatch.setattr(frame_batch, "_has_torch", lambda: False)
    path, seconds = zoo.clip_path("h264_b_frames"), [0.0, 1.0, 0.04]
    whole = millpond.decode_video_frames(path, seconds, TOLERANCE, cache=cache)
    floats = millpond.decode_video_frames(path, seconds, TOLERANCE, return_uint8=False, cache=cache)
    kind = "torch." if has_torch else ""
    assert (str(whole.dtype), str(floats.dtype)) == (f"{kind}uint8", f"{kind}float32")
    assert isinstance(floats, np.ndarray) is not has_torch
    expected = np.asarray(whole).astype(np.float32) / np.float32(255)
    assert np.array_equal(np.asarray(floats), expected)
    assert len(np.unique(expected)) > 200
    assert 0 <= expected.min() < expected.max() <= 1


def test_no_times_give_no_frames(cache: VideoDecoderCache) -> None:
    nothing: list[Any] = [[], (), np.zeros(0), np.zeros(0, np.float32)]
    for seconds in nothing:
        for name, shape in (("h264_b_frames", (0, 3, 76, 100)), ("h264_turned_90", (0, 3, 100, 76))):
            frames = millpond.decode_video_frames(zoo.clip_path(name), seconds, TOLERANCE, cache=cache)
            assert tuple(frames.shape) == shape
            floats = millpond.decode_video_frames(zoo.clip_path(name), seconds, TOLERANCE, None, False, cache)
            assert (tuple(floats.shape), str(floats.dtype)[-7:]) == (shape, "float32")


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_vfr", "h264_ts"])
def test_a_time_without_a_frame_is_an_error_that_says_all(cache: VideoDecoderCache, name: str) -> None:
    path, times = zoo.clip_path(name), zoo.clip_table(name).frame_seconds
    wanted = float(times[-1]) + 0.25
    with pytest.raises(FrameTimestampError) as caught:
        millpond.decode_video_frames(path, [times[0], wanted, times[3] + 0.01], TOLERANCE, cache=cache)
    error = caught.value
    assert isinstance(error, ValueError)
    told = (str(path), f"{wanted:.6f} s", f"frame 49 at {times[-1]:.6f} s", "within 0.0001 s", "0.25 s away", "2 of 3")
    assert [part for part in told if part not in str(error)] == []
    assert (error.path, error.tolerance_seconds, error.frame) == (str(path), TOLERANCE, 49)
    assert (error.seconds, error.positions) == (wanted, [1, 2])
    assert error.distance_seconds == pytest.approx(0.25)
    assert cache.statistics().open == 1  # and it is not leased any more
    cache.clear()
    assert descriptors_of(path) == 0


def test_a_time_that_is_nan_is_named(cache: VideoDecoderCache) -> None:
    with pytest.raises(FrameTimestampError, match=r"timestamps\[1\] is nan: give seconds"):
        millpond.decode_video_frames(zoo.clip_path("h264_b_frames"), [0.0, float("nan")], TOLERANCE, cache=cache)


@pytest.mark.parametrize("seconds", [-0.5, 1e9, float("inf"), float("-inf")])
def test_no_frame_is_near_such_times(cache: VideoDecoderCache, seconds: float) -> None:
    for tolerance in (0, TOLERANCE, 0.1):
        with pytest.raises(FrameTimestampError, match=re.escape(f"{seconds:.6f} s")):
            millpond.decode_video_frames(zoo.clip_path("h264_b_frames"), [0.0, seconds], tolerance, cache=cache)


def test_the_tolerance_is_within(cache: VideoDecoderCache) -> None:
    path = zoo.clip_path("h264_b_frames")
    for seconds, tolerance in ((0.04, 0), (0.0401, 0.00011), (0.03, 0.0101), (7.0, float("inf")), (-3.0, 3.0)):
        assert len(millpond.decode_video_frames(path, [0.0, seconds], tolerance, cache=cache)) == 2
    for seconds, tolerance in ((0.0401, 0), (0.0401, 0.00009), (0.03, 0.0099)):
        with pytest.raises(FrameTimestampError):
            millpond.decode_video_frames(path, [0.0, seconds], tolerance, cache=cache)


@pytest.mark.parametrize("tolerance", [-1e-9, -1, float("-inf"), float("nan")])
def test_a_tolerance_that_is_none_is_refused(cache: VideoDecoderCache, tolerance: float) -> None:
    for seconds in ([0.0], []):
        with pytest.raises(ValueError, match=r"tolerance_s must be .* not (-|nan)") as caught:
            millpond.decode_video_frames(zoo.clip_path("h264_b_frames"), seconds, tolerance, cache=cache)
        assert not isinstance(caught.value, FrameTimestampError)
    assert cache.statistics().misses == 0


@pytest.mark.parametrize(
    "seconds",
    ["now", 0.1, np.float64(0), None, ["now"], [1j], [{}], [True], [None], [[0.0], [0.0, 0.04]], np.zeros((2, 1))],
)
def test_times_that_are_no_row_of_numbers_are_refused(cache: VideoDecoderCache, seconds: Any) -> None:
    with pytest.raises(TypeError, match=r"^timestamps(\[0\])? is .*: give (a list of )?seconds$"):
        millpond.decode_video_frames(zoo.clip_path("h264_b_frames"), seconds, TOLERANCE, cache=cache)


@pytest.mark.parametrize("tolerance", [None, "1e-4", True, [1e-4]])
def test_a_tolerance_that_is_no_number_is_named(cache: VideoDecoderCache, tolerance: Any) -> None:
    with pytest.raises(TypeError, match=r"^tolerance_s is .*: give seconds"):
        millpond.decode_video_frames(zoo.clip_path("h264_b_frames"), [0.0], tolerance, cache=cache)
    assert cache.statistics().misses == 0


@pytest.mark.parametrize("other", [5, VideoDecoderCache, {}])
def test_what_is_no_cache_is_refused(other: Any) -> None:
    with pytest.raises(
        TypeError, match=r"cache must be a millpond.VideoDecoderCache or None, not (the class|int|dict)"
    ):
        millpond.decode_video_frames(zoo.clip_path("h264_b_frames"), [0.0], TOLERANCE, cache=other)


def test_positions_are_as_lerobots(cache: VideoDecoderCache) -> None:
    path = str(zoo.clip_path("h264_b_frames"))
    frames = millpond.decode_video_frames(path, [0.08], TOLERANCE, "pyav", False, cache)
    assert float(frames.max()) <= 1
    with pytest.raises(ValueError, match=r"'video_reader' is not one of .*LeRobot's 'video_reader' is 'pyav' here"):
        millpond.decode_video_frames(path, [0.08], TOLERANCE, "video_reader", cache=cache)  # type: ignore[arg-type]


def test_where_no_cache_is_named_it_is_the_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_default", None)
    path = zoo.clip_path("h264_b_frames")
    for _ in range(3):
        millpond.decode_video_frames(path, [0.0], TOLERANCE)
    assert path in default_cache()
    assert (default_cache().statistics().hits, default_cache().statistics().misses) == (2, 1)
    default_cache().clear()


def test_an_empty_cache_is_a_cache(cache: VideoDecoderCache) -> None:
    millpond.decode_video_frames(zoo.clip_path("h264_b_frames"), [0.0], TOLERANCE, cache=cache)
    assert len(cache) == 1


def test_a_video_that_is_not_there(cache: VideoDecoderCache, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match=r"none\.mp4"):
        millpond.decode_video_frames(tmp_path / "none.mp4", [0.0], TOLERANCE, cache=cache)
    with pytest.raises(FileNotFoundError):
        millpond.decode_video_frames(tmp_path / "none.mp4", [], TOLERANCE, cache=cache)


def test_more_videos_than_the_cache_holds(cache: VideoDecoderCache, tmp_path: Path) -> None:
    paths = [Path(shutil.copy(zoo.clip_path("h264_b_frames"), tmp_path / f"{n}.mp4")) for n in range(9)]
    expected = by_the_book("h264_b_frames", [0.4, 0.2], TOLERANCE)
    for path in paths * 2:
        assert np.array_equal(millpond.decode_video_frames(path, [0.4, 0.2], TOLERANCE, cache=cache), expected)
        assert sum(map(descriptors_of, paths)) <= 4
