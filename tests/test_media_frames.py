"""Frames by index: the pixels of PyAV's container decode, whatever the codec, and however the calls are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from millpond._media.contexts import make_context
from millpond._media.frames import decode_frames
from millpond._media.index import build_sample_table
from millpond._media.pictures import INTERPOLATIONS, upright
from millpond._media.video_file import VideoFile

NAMES = [clip.name for clip in zoo.CLIPS]
EIGHT_BIT_PROGRESSIVE = [
    "h264_b_frames",
    "h264_open_gop",
    "h264_intra_refresh",
    "hevc_closed",
    "hevc_cra",
    "av1_gop_2",
    "av1_gop_16",
    "vp9_mp4",
    "vp9_hidden",
    "h264_vfr",
    "h264_fragmented",
    "h264_mkv",
]


@pytest.fixture(scope="session")
def torchcodec_decoders() -> Any:
    """Imported once, ahead of what is held against a test: torch makes a temporary folder for itself."""
    try:
        import torchcodec.decoders
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec is not to be used here: {type(error).__name__}: {str(error).splitlines()[0]}")
    return torchcodec.decoders


def _require_equal(path: Path, expected: list[NDArray[np.uint8]], frames_per_call: int) -> None:
    table = build_sample_table(path)
    with VideoFile(path, table) as file:
        for start in range(0, len(expected), frames_per_call):
            frames = np.arange(start, min(start + frames_per_call, len(expected)))
            got: dict[int, NDArray[np.uint8]] = {}
            report = decode_frames(file, frames, lambda j, picture, got=got: got.__setitem__(j, picture.copy()))  # type: ignore[misc]
            assert not report.failures
            assert all(np.array_equal(got[j], expected[frame]) for j, frame in enumerate(frames))


@pytest.mark.parametrize("frames_per_call", [7, 50])
@pytest.mark.parametrize("name", NAMES)
def test_pixels_equal_those_of_a_container_decode(name: str, frames_per_call: int) -> None:
    assert zoo.clip_table(name).num_frames == len(zoo.clip_reference(name))
    _require_equal(zoo.clip_path(name), list(zoo.clip_reference(name)), frames_per_call)


@pytest.mark.parametrize("name", ["h264_open_gop", "hevc_cra", "h264_intra_refresh", "vp9_hidden", "h264_ts"])
def test_scattered_frames_come_under_their_own_index(name: str) -> None:
    frames = [1, 2, 11, 13, 24, 25, 26, 36, 49]
    got, report = zoo.read(zoo.clip_path(name), zoo.clip_table(name), frames)
    assert not report.failures
    assert all(np.array_equal(got[j], zoo.clip_reference(name)[frame]) for j, frame in enumerate(frames))


@pytest.mark.parametrize("name", ["h264_ts", "mpeg4_mp4", "mpeg4_avi"])
def test_the_container_backend_goes_back_as_well_as_on(name: str) -> None:
    with VideoFile(zoo.clip_path(name), zoo.clip_table(name)) as file:
        for frame in (40, 3, 41, 42, 0, 49):
            got: list[NDArray[np.uint8]] = []
            report = decode_frames(file, np.array([frame]), lambda _, picture, got=got: got.append(picture.copy()))  # type: ignore[misc]
            assert not report.failures
            assert np.array_equal(got[0], zoo.clip_reference(name)[frame])


def test_hidden_frames_are_in_the_vp9_clip_and_are_not_counted() -> None:
    data, table = zoo.clip_path("vp9_hidden").read_bytes(), zoo.clip_table("vp9_hidden")
    last_bytes = [data[stop - 1] for stop in (table.offset + table.size).tolist()]
    assert any(byte & 0xE0 == 0xC0 for byte in last_bytes), "no superframe: the clip tests nothing"
    assert table.num_frames == zoo.FRAMES


@pytest.mark.parametrize("name", [c.name for c in zoo.CLIPS if c.needs_preroll])
def test_intra_refresh_gets_a_gop_of_preroll_and_remembers_it(name: str) -> None:
    table = zoo.clip_table(name)
    frames = np.arange(int(table.gop_starts[2]), int(table.gop_starts[3]))
    with VideoFile(zoo.clip_path(name), table) as file:
        costs = [decode_frames(file, frames, lambda _j, _p: None).packets_fed for _ in range(2)]
        assert file.preroll_gops == 1
    assert costs[1] < costs[0]


@pytest.mark.parametrize("name", ["h264_open_gop", "hevc_cra"])
def test_without_the_next_leading_packets_an_open_gop_would_lose_frames(name: str) -> None:
    table = zoo.clip_table(name)
    naive = [r for r in table.feed_rows(1, 2).tolist() if r < table.frame_rows[table.gop_starts[2]]]
    assert not set(table.frame_rows[table.gop_starts[1] : table.gop_starts[2]].tolist()) <= set(naive)


@pytest.mark.parametrize("name", ["h264_b_frames", "av1_gop_16", "h264_turned_90"])
@pytest.mark.parametrize("interpolation", list(INTERPOLATIONS))
def test_a_resize_is_that_of_swscale(name: str, interpolation: str) -> None:
    got, _ = zoo.read(zoo.clip_path(name), zoo.clip_table(name), [9], image_size=(40, 32), interpolation=interpolation)
    with av.open(str(zoo.clip_path(name))) as container:
        frame = [f for f, _ in zip(container.decode(video=0), range(10), strict=False)][9]
    width, height = (40, 32) if frame.rotation % 180 else (32, 40)
    options: Any = {"width": width, "height": height, "interpolation": INTERPOLATIONS[interpolation], "threads": 1}
    expected = np.rot90(np.asarray(frame.to_ndarray(format="rgb24", **options)), frame.rotation // 90)
    assert got[0].shape == (40, 32, 3)
    assert np.array_equal(got[0], expected)


def test_a_resize_to_the_own_size_changes_nothing() -> None:
    name = "h264_b_frames"
    size = zoo.clip_table(name).picture_size
    got, _ = zoo.read(zoo.clip_path(name), zoo.clip_table(name), [4], image_size=size, interpolation="bicubic")
    assert np.array_equal(got[0], zoo.clip_reference(name)[4])


def test_fast_bilinear_is_refused() -> None:
    with pytest.raises(ValueError, match="bilinear"):
        zoo.read(zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames"), [0], interpolation="fast_bilinear")


@pytest.mark.parametrize("frames", [[3, 2], [2, 2], [-1, 4], [0, zoo.FRAMES]])
def test_frames_must_ascend_and_exist(frames: list[int]) -> None:
    with pytest.raises(ValueError, match="frames"):
        zoo.read(zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames"), frames)


def test_no_frames_cost_nothing() -> None:
    got, report = zoo.read(zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames"), [])
    assert not got
    assert report.bytes_read == 0


def test_colour_that_only_the_container_states_is_used(tmp_path: Path) -> None:
    colour = {"color_range": 2, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
    path = zoo.remux(zoo.clip_path("h264_b_frames"), tmp_path / "colour.mp4", colour=colour)
    expected = zoo.reference(path)
    assert not np.array_equal(expected[0], zoo.clip_reference("h264_b_frames")[0])
    _require_equal(path, expected, 50)


def test_a_context_is_single_threaded() -> None:
    assert make_context(zoo.clip_table("h264_b_frames").stream, starts_clean=True).thread_count == 1


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
def test_mirrored_and_turned_pictures_come_upright(degrees: int, hflip: bool, tmp_path: Path) -> None:
    clip = zoo.Clip("turned", "libx264", zoo.X264, prepare=zoo.turned(degrees, hflip), frames=3)
    path = zoo.make(clip, tmp_path)
    got, _ = zoo.read(path, build_sample_table(path))
    with av.open(str(path)) as container:
        stored = np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    expected = np.rot90(stored, degrees // 90)
    assert np.array_equal(got[0], expected[:, ::-1] if hflip else expected)


def test_upright_mirrors_before_it_turns() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(upright(picture, 90, True), np.rot90(picture[:, ::-1]))


def test_frames_before_the_first_wanted_are_decoded_but_not_written() -> None:
    table = zoo.clip_table("av1_gop_16")
    got, report = zoo.read(zoo.clip_path("av1_gop_16"), table, [int(table.gop_starts[1]) + 5])
    assert list(got) == [0]
    assert 5 < report.frames_decoded < 16


def test_progress_is_told_of_every_frame() -> None:
    calls: list[int] = []
    _, report = zoo.read(
        zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames"), progress=lambda: calls.append(1)
    )
    assert len(calls) == report.frames_decoded == zoo.FRAMES


def test_a_closed_file_opens_again_and_leaves_no_descriptor() -> None:
    file = VideoFile(zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames"))
    for _ in range(2):
        assert not decode_frames(file, np.array([1]), lambda _j, _p: None).failures
        file.close()
        file.close()


@pytest.mark.parametrize("name", EIGHT_BIT_PROGRESSIVE)
def test_pixels_equal_those_of_torchcodec(name: str, torchcodec_decoders: Any) -> None:
    decoder = torchcodec_decoders.VideoDecoder(str(zoo.clip_path(name)), dimension_order="NHWC", num_ffmpeg_threads=1)
    frames = decoder.get_frames_in_range(0, zoo.FRAMES).data.numpy()
    assert all(np.array_equal(frames[k], zoo.clip_reference(name)[k]) for k in range(zoo.FRAMES))


def _shared_videos(shared_dir: Path) -> list[Path]:
    return sorted([*shared_dir.glob("media/*.mp4"), *shared_dir.glob("media/*.mkv")])


def test_pixels_of_every_shared_clip_equal_those_of_a_container_decode(shared_dir: Path) -> None:
    for path in _shared_videos(shared_dir):
        assert build_sample_table(path).backend == "packets"
        _require_equal(path, zoo.reference(path, 40), 16)


def test_pixels_of_every_shared_dataset_equal_those_of_a_container_decode(shared_dir: Path) -> None:
    for path in sorted(shared_dir.glob("data/*/videos/*front/chunk-000/file-000.mp4")):
        _require_equal(path, zoo.reference(path, 24), 24)


def test_every_timestamp_of_the_shared_datasets_is_matched(shared_dir: Path) -> None:
    for path in sorted(shared_dir.glob("data/lerobot_v3_*/videos/*/chunk-000/file-000.mp4")):
        table = build_sample_table(path)
        frames = table.frames_at(np.arange(table.num_frames) / 30, 1e-4)
        assert np.array_equal(frames, np.arange(table.num_frames))
