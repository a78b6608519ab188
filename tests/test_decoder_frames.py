"""Frames of a cached decoder: every way to ask, every kind of index, each decoded once, times at their borders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from millpond import CorruptMedia, VideoDecoderCache
from millpond._datasets import frame_batch
from millpond._datasets.decoders import frame_decoder, pyav_decoder
from millpond._datasets.decoders.frame_decoder import FrameDecoder
from millpond._media.frames import DecodeReport, decode_frames
from millpond._media.index import build_sample_table
from millpond._media.video_file import VideoFile
from open_videos import as_shown

pytestmark = pytest.mark.usefixtures("torch_is_imported")

KINDS = [clip.name for clip in zoo.CLIPS]
SOME = ["h264_b_frames", "h264_open_gop", "hevc_cra", "av1_gop_16", "vp9_webm", "h264_vfr", "h264_ts", "mpeg4_mp4"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoDecoderCache]:
    made = VideoDecoderCache(max_size=None, cache_dir=tmp_path_factory.mktemp("tables"))
    yield made
    made.clear()


@pytest.fixture(autouse=True)
def nothing_stays_open(cache: VideoDecoderCache) -> Iterator[None]:
    yield
    cache.clear()


@pytest.fixture
def decoder(cache: VideoDecoderCache) -> FrameDecoder:
    """Of a video of 50 frames in GOPs of 12, with B-frames."""
    return cache.get_decoder(zoo.clip_path("h264_b_frames"))


def are(data: Any, frames: Any, name: str = "h264_b_frames") -> bool:
    reference = zoo.clip_reference(name)
    return np.array_equal(as_shown(data), np.array([reference[k] for k in frames]).reshape(-1, *reference[0].shape))


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[DecodeReport]:
    """What each call of the packet decoder costs."""
    made: list[DecodeReport] = []

    def reported(*arguments: Any, **options: Any) -> DecodeReport:
        made.append(decode_frames(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(pyav_decoder, "decode_frames", reported)
    return made


@pytest.mark.parametrize("name", KINDS)
def test_all_frames_of_all_kinds_in_any_order(cache: VideoDecoderCache, name: str) -> None:
    decoder, reference = cache.get_decoder(zoo.clip_path(name)), zoo.clip_reference(name)
    assert len(decoder) == decoder.metadata.num_frames == len(reference)
    assert (decoder.metadata.height, decoder.metadata.width) == reference[0].shape[:2]
    order = np.random.default_rng(1).permutation(len(reference))
    batch = decoder.get_frames_at(order)
    assert are(batch.data, order, name)
    assert np.array_equal(batch.pts_seconds, zoo.clip_table(name).frame_seconds[order])
    assert are(decoder[-1][None], [len(reference) - 1], name)


@pytest.mark.parametrize("name", KINDS)
def test_the_time_of_a_frame_shows_that_frame(
    cache: VideoDecoderCache, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    decoder = cache.get_decoder(zoo.clip_path(name))
    seconds, durations = np.asarray(decoder._seconds), np.asarray(decoder._durations)
    chosen: list[NDArray[np.int64]] = []
    monkeypatch.setattr(decoder, "_frames", chosen.append)
    numbers = np.arange(len(decoder))
    steps = np.rint(seconds * zoo.FPS)
    asked = [seconds, seconds + durations / 2, seconds + durations - 2 * decoder._early_seconds]
    asked += [seconds - 0.9 * decoder._early_seconds, seconds.astype(np.float32), np.round(seconds, 4)]
    if np.allclose(steps / zoo.FPS, seconds, rtol=0, atol=1e-3):  # the times of a transport stream have an offset
        begin = seconds[0] - steps[0] / zoo.FPS
        asked += [
            begin + steps / zoo.FPS,
            begin + steps * (1 / zoo.FPS),
            begin + np.cumsum(np.diff(steps, prepend=0) * (1 / zoo.FPS)),
        ]
    for times in asked:
        decoder.get_frames_played_at(times)
        assert np.array_equal(chosen.pop(), numbers)


def test_a_frame_that_was_rgb_already_is_not_the_decoders_own(tmp_path: Path) -> None:
    background, count = zoo.moving_picture(0, 64, 48), 12

    def picture(k: int) -> NDArray[np.uint8]:
        made = background.copy()
        made[:8, 4 * k : 4 * k + 8] = 255
        return made

    path = tmp_path / "animation.mov"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("qtrle", rate=zoo.FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"  # no line needs padding
        for k in range(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(k), format="rgb24")))
        out.mux(stream.encode(None))
    with VideoFile(path, build_sample_table(path)) as file:

        def write(j: int, shown: NDArray[np.uint8]) -> None:
            assert np.array_equal(shown, picture(j))
            shown[:] = 7

        report = decode_frames(file, np.arange(count), write)
    assert not report.failures
    assert report.frames_decoded == count, "the next frame is made from this one, and is as it was"


def test_every_way_to_ask_gives_the_same_frames(decoder: FrameDecoder) -> None:
    single = decoder.get_frame_at(7)
    assert are(single.data[None], [7])
    assert type(single.pts_seconds) is float
    assert single.pts_seconds == pytest.approx(7 / zoo.FPS)
    assert single.duration_seconds == pytest.approx(1 / zoo.FPS)
    assert are(decoder.get_frame_played_at(7.5 / zoo.FPS).data[None], [7])
    assert are(decoder.get_frames_played_at([0.3, 0.0, 0.3, 1.99]).data, [7, 0, 7, 49])
    assert are(decoder.get_frames_at([9, 3, 9, -1, -50]).data, [9, 3, 9, 49, 0])
    assert are(decoder.get_frames_in_range(3, 20, 5).data, [3, 8, 13, 18])
    assert are(decoder[5][None], [5])
    assert are(decoder[-3][None], [47])
    numbers = range(50)
    for key in (
        slice(None),
        slice(4, 9),
        slice(-5, None),
        slice(None, None, -7),
        slice(40, 99),
        slice(9, 4),
        slice(np.int64(3), np.int8(5)),
    ):
        assert are(decoder[key], numbers[key]), key
    assert tuple(decoder[9:4].shape) == (0, 3, zoo.HEIGHT, zoo.WIDTH)
    assert len(decoder.get_frames_played_at([])) == len(decoder.get_frames_at([])) == 0


def test_one_that_is_iterated_ends(decoder: Any) -> None:
    assert are(np.stack([np.asarray(picture) for picture in decoder]), range(50))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_indices_of_any_whole_type(decoder: FrameDecoder, kind: Any) -> None:
    assert are(decoder.get_frames_at(np.array([44, 3], kind)).data, [44, 3])
    assert are(decoder[kind(3)][None], [3])
    assert are(decoder.get_frame_at(kind(3)).data[None], [3])
    assert are(decoder.get_frames_at([kind(4), 5]).data, [4, 5])


def test_indices_and_times_of_torch(decoder: FrameDecoder) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert are(decoder.get_frames_at(torch.tensor([44, 3])).data, [44, 3])
    assert are(decoder.get_frames_at([torch.tensor(4), torch.tensor(5)]).data, [4, 5])
    assert are(decoder[torch.tensor(-1)][None], [49])
    assert are(decoder.get_frame_at(torch.tensor(3)).data[None], [3])
    assert are(decoder.get_frames_played_at(torch.arange(50, dtype=torch.float32) / 25).data, range(50))
    assert are(decoder.get_frame_played_at(torch.tensor(0.28)).data[None], [7])
    with pytest.raises(TypeError):
        decoder.get_frames_at(torch.tensor([True, False]))


@pytest.mark.parametrize(
    "index",
    [1.0, True, np.True_, np.float32(1), "1", None, 1j, [1, 2], [], (1, 2), np.array([1, 2]), np.array([1]), ...],
)
def test_what_is_no_index_is_refused(decoder: FrameDecoder, index: Any) -> None:
    with pytest.raises(TypeError, match="integer"):
        decoder[index]
    with pytest.raises(TypeError, match="integer"):
        decoder.get_frame_at(index)


@pytest.mark.parametrize("indices", [[1.0], [True], np.array([True, False]), [0.5, 1], ["1"], [None], [[1, 2], [3, 4]]])
def test_what_are_no_indices_are_refused(decoder: FrameDecoder, indices: Any) -> None:
    with pytest.raises(TypeError, match="integers"):
        decoder.get_frames_at(indices)


@pytest.mark.parametrize("index", [50, -51, 10**9, -(10**9), 2**63 - 1, 2**63, 2**64 - 1, 2**70, -(2**70)])
def test_an_index_beyond_is_an_index_error_that_names_it(decoder: FrameDecoder, index: int) -> None:
    for ask in (decoder.__getitem__, decoder.get_frame_at, lambda k: decoder.get_frames_at([0, k])):
        with pytest.raises(IndexError, match=rf"h264_b_frames\.mp4' has 50 frames, and no frame {index}"):
            ask(index)


def test_times_beyond_are_an_index_error_that_names_them(decoder: FrameDecoder) -> None:
    begin, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
    assert begin == 0
    assert end == pytest.approx(2)
    for seconds in (-0.001, end, end + 1, 1e300, float("inf"), float("-inf")):
        with pytest.raises(IndexError, match=r"shows no frame at .* from 0\.000000 to 2\.000000 s"):
            decoder.get_frame_played_at(seconds)
        with pytest.raises(IndexError):
            decoder.get_frames_played_at([0.0, seconds])
    assert are(decoder.get_frames_played_at([begin, np.nextafter(end, 0), -0.00005]).data, [0, 49, 0])


@pytest.mark.parametrize("wrong", ["now", b"0", None, True, np.True_, 1j, np.complex64(1), {}])
def test_what_is_no_time_is_refused(decoder: FrameDecoder, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^seconds is .*: give seconds$"):
        decoder.get_frame_played_at(wrong)
    with pytest.raises(TypeError, match=r"^seconds\[1\] is .*: give seconds$"):
        decoder.get_frames_played_at([0.0, wrong])
    if np.ndim(wrong) == 0 and wrong != {}:
        with pytest.raises(TypeError, match=r"^seconds is .*: give a list of seconds$"):
            decoder.get_frames_played_at(wrong)


def test_one_time_and_several_are_told_apart(decoder: FrameDecoder) -> None:
    for several in ([0.1, 0.2], [0.1], (), np.array([0.1])):
        with pytest.raises(TypeError, match=r"several by get_frames_played_at"):
            decoder.get_frame_played_at(several)  # type: ignore[arg-type]
    rows: list[Any] = [[[0.1], [0.2]], np.array([[0.1]]), np.array(["0.1"]), np.array([True]), 0.1, np.float64(0.1)]
    for times in rows:
        with pytest.raises(TypeError, match="give"):
            decoder.get_frames_played_at(times)
    with pytest.raises(ValueError, match=r"^seconds is nan: give seconds"):
        decoder.get_frame_played_at(float("nan"))
    with pytest.raises(ValueError, match=r"^seconds\[1\] is nan: give seconds"):
        decoder.get_frames_played_at([0.1, float("nan")])
    assert are(decoder.get_frames_played_at(iter([np.float32(0.04), 1])).data, [1, 25])


def test_frames_of_a_range_of_times(decoder: FrameDecoder) -> None:
    end = decoder.metadata.end_stream_seconds
    for start, stop, frames in (
        (0.0, 0.2, range(5)),
        (0.01, 0.05, range(2)),
        (0.05, 0.06, range(1, 2)),
        (0.05, 0.05, range(0)),
        (0.03996, 0.12004, range(1, 3)),  # as rounded times are
        (0.04, 0.04001, range(1, 2)),
        (1.9, end, range(47, 50)),
        (-0.00005, end + 0.00005, range(50)),
        (1, 1.04, range(25, 26)),
    ):
        batch = decoder.get_frames_played_in_range(start, stop)
        assert are(batch.data, frames), (start, stop)
        assert np.allclose(batch.pts_seconds, np.array(frames) / zoo.FPS)
    assert are(decoder.get_all_frames().data, range(50))
    assert are(decoder.get_all_frames(fps=5).data, range(0, 50, 5))
    twice = decoder.get_frames_played_in_range(0.02, 0.1, fps=50)
    assert are(twice.data, [0, 1, 1, 2])
    assert np.allclose(twice.pts_seconds, [0.02, 0.04, 0.06, 0.08])
    assert np.allclose(twice.duration_seconds, 0.02)
    assert len(decoder.get_frames_played_in_range(0.5, 0.5, fps=50)) == 0


@pytest.mark.parametrize(
    ("start", "stop"), [(-0.1, 1), (2.0, 2.0), (0, 2.1), (1, 0.5), (0, float("nan")), (float("nan"), 1)]
)
def test_a_range_that_is_none_is_refused(decoder: FrameDecoder, start: float, stop: float) -> None:
    for fps in (None, 10):
        with pytest.raises(ValueError, match=r"is shown from 0.000000 to 2.000000 s, which has no part from"):
            decoder.get_frames_played_in_range(start, stop, fps)


def test_a_range_of_other_things_is_refused(decoder: FrameDecoder) -> None:
    for arguments in (("0", 1), (0, None), (0, [1]), (0, 1, "10"), (0, 1, True)):
        with pytest.raises(TypeError, match=r"^(start_seconds|stop_seconds|fps) is .*: give"):
            decoder.get_frames_played_in_range(*arguments)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps must be positive and finite, not"):
            decoder.get_all_frames(fps)


@pytest.mark.parametrize("index", [5, np.int64(5), None])
def test_several_frames_are_asked_for_by_a_list(decoder: FrameDecoder, index: Any) -> None:
    with pytest.raises(TypeError, match=r"by a list of integers, not by .*; one by get_frame_at"):
        decoder.get_frames_at(index)


def test_a_frame_is_shown_until_the_next_one_begins(cache: VideoDecoderCache) -> None:
    decoder = cache.get_decoder(zoo.clip_path("h264_vfr"))
    times = np.array([zoo.vfr(k) for k in range(50)]) / zoo.FPS
    batch = decoder[:]
    assert are(batch, range(50), "h264_vfr")
    told = decoder.get_frames_at(range(50))
    assert np.allclose(told.pts_seconds, times)
    assert np.allclose(told.duration_seconds[:-1], np.diff(times))
    late = times[:-1] + np.diff(times) - 0.001
    assert are(decoder.get_frames_played_at(late).data, range(49), "h264_vfr")


@pytest.mark.parametrize("fps", [30, 60, 120, 24])
def test_times_that_a_file_keeps_in_milliseconds(cache: VideoDecoderCache, tmp_path: Path, fps: int) -> None:
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=fps, options=zoo.X264)
        stream.width, stream.height, stream.codec_context.thread_count = zoo.WIDTH, zoo.HEIGHT, 1
        for k in range(40):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(zoo.moving_picture(k), format="rgb24")))
        out.mux(stream.encode(None))
    decoder = cache.get_decoder(path)
    assert decoder.table.stream.time_base == (1, 1000)
    played = decoder.get_frames_played_at(np.arange(40) / fps)
    assert np.array_equal(played.pts_seconds, decoder._seconds)
    assert np.array_equal(decoder.get_frames_played_at((np.arange(40) + 0.5) / fps).pts_seconds, decoder._seconds)


@pytest.mark.parametrize("name", ["h264_b_frames", "av1_gop_16"])
def test_each_frame_is_decoded_once_and_each_gop_in_one_pass(
    cache: VideoDecoderCache, reports: list[DecodeReport], name: str
) -> None:
    decoder = cache.get_decoder(zoo.clip_path(name))
    gop = 12 if name == "h264_b_frames" else 16
    order = np.random.default_rng(2).permutation(np.repeat(np.arange(50), 3))
    assert are(decoder.get_frames_at(order).data, order, name)
    assert (len(reports), reports[-1].packets_fed, reports[-1].frames_decoded) == (1, 50, 50)
    decoder.get_frames_at([2 * gop + 1, 1, 2 * gop, 0, 1])  # two GOPs, and neither to its end
    assert (len(reports), reports[-1].failures) == (2, ())
    assert reports[-1].frames_decoded <= 2 * 6
    decoder.get_frame_at(gop)
    assert reports[-1].frames_decoded <= 6
    decoder.get_frames_at([])
    decoder[3:3]
    assert [report.frames_decoded for report in reports[3:]] in ([], [0, 0])


def test_a_container_decodes_each_frame_once_too(cache: VideoDecoderCache, reports: list[DecodeReport]) -> None:
    decoder = cache.get_decoder(zoo.clip_path("mpeg4_mp4"))
    order = [40, 3, 3, 17, 40, 0]
    assert are(decoder.get_frames_at(order).data, order, "mpeg4_mp4")
    assert reports[-1].frames_decoded == 41


@pytest.mark.parametrize("name", SOME)
def test_without_torch_everything_is_an_array(
    cache: VideoDecoderCache, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(frame_batch, "_has_torch", lambda: False)
    decoder = cache.get_decoder(zoo.clip_path(name))
    batch, single, many = decoder.get_frames_at([3, 1, 3]), decoder.get_frame_at(2), decoder[4:6]
    for value in (batch.data, batch.pts_seconds, batch.duration_seconds, single.data, many, decoder[-1]):
        assert type(value) is np.ndarray
    assert (batch.pts_seconds.dtype, batch.duration_seconds.dtype) == (np.float64, np.float64)
    assert are(batch.data, [3, 1, 3], name)
    assert are(many, [4, 5], name)
    assert batch.data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_with_torch_everything_is_a_tensor_that_is_the_callers_own(decoder: FrameDecoder) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    batch = decoder.get_frames_at([3, 3])
    assert (batch.data.dtype, tuple(batch.data.shape)) == (torch.uint8, (2, 3, zoo.HEIGHT, zoo.WIDTH))
    assert batch.data.is_contiguous(memory_format=torch.channels_last)
    assert (batch.pts_seconds.dtype, batch.duration_seconds.dtype) == (torch.float64, torch.float64)
    batch.data[0].zero_()  # what is asked for twice is there twice
    batch.pts_seconds.zero_()
    assert are(batch.data[1:], [3])
    assert are(decoder[3][None], [3])
    assert decoder.get_frame_at(3).pts_seconds == pytest.approx(3 / zoo.FPS)


def test_damage_fails_the_frames_concerned_and_names_the_first(cache: VideoDecoderCache, tmp_path: Path) -> None:
    table, path = zoo.clip_table("h264_b_frames"), tmp_path / "damaged.mp4"
    data = bytearray(zoo.clip_path("h264_b_frames").read_bytes())
    row = int(table.frame_rows[24])  # a keyframe: the third GOP
    offset, size = int(table.offset[row]), int(table.size[row])
    data[offset : offset + size] = bytes(size)
    path.write_bytes(data)
    decoder = cache.get_decoder(path)
    assert are(decoder.get_frames_at([40, 3, 23]).data, [40, 3, 23])
    for indices in ([24], [40, 26, 3], [26, 3, 26]):
        with pytest.raises(CorruptMedia, match=r"^frame 2[46]: .*damaged\.mp4") as caught:
            decoder.get_frames_at(indices)
        assert caught.value.frame in (24, 26)
        assert caught.value.path == str(path)
    assert are(decoder[:24], range(24))


def test_packets_that_change_after_they_were_read_are_noticed(cache: VideoDecoderCache, tmp_path: Path) -> None:
    path = tmp_path / "flips.mp4"
    path.write_bytes(zoo.clip_path("vp9_mp4").read_bytes())
    table = zoo.clip_table("vp9_mp4")
    status = path.stat()
    decoder = cache.get_decoder(path)
    before = as_shown(decoder[:])
    with open(path, "r+b") as file:  # a disk that gives other bits than it took, and says nothing
        file.seek(int(table.offset[5]) + int(table.size[5]) // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 4]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CorruptMedia):
        decoder.get_frame_at(5)
    assert np.array_equal(as_shown(decoder[0:2]), before[0:2])


def test_what_is_known_of_a_video(cache: VideoDecoderCache) -> None:
    told = cache.get_decoder(zoo.clip_path("h264_turned_90")).metadata
    assert (told.codec, told.width, told.height, told.num_frames) == ("h264", zoo.HEIGHT, zoo.WIDTH, 50)
    assert told.average_fps == pytest.approx(zoo.FPS)
    assert told.begin_stream_seconds == 0
    assert told.end_stream_seconds == pytest.approx(2.0)
    assert told.duration_seconds == pytest.approx(2.0)
    assert told.stream_index == 0
    assert told.rotation is not None
    assert told.rotation % 360 in (90, 270)
    with pytest.raises(AttributeError):
        told.width = 3  # type: ignore[misc]
    decoder = cache.get_decoder(zoo.clip_path("h264_b_frames"))
    assert decoder.metadata.rotation is None
    assert repr(decoder) == f"PyAVDecoder('{zoo.clip_path('h264_b_frames')}': 50 frames)"


def test_a_video_of_one_frame(cache: VideoDecoderCache, tmp_path: Path) -> None:
    path = zoo.make(zoo.Clip("one", "libx264", zoo.X264, frames=1), tmp_path)
    decoder = cache.get_decoder(path)
    assert len(decoder) == 1
    assert np.array_equal(as_shown(decoder[:]), zoo.reference(path))
    assert np.array_equal(as_shown(decoder.get_frame_played_at(0.0).data[None]), zoo.reference(path))
    assert decoder.metadata.begin_stream_seconds < decoder.metadata.end_stream_seconds


def test_real_footage(cache: VideoDecoderCache, shared_dir: Path) -> None:
    for path in sorted((shared_dir / "media").glob("*.m[pk][4v]")):
        decoder = cache.get_decoder(path)
        reference = zoo.reference(path, limit=24)
        frames = [len(reference) - 1, 3, 6, 3]
        got = as_shown(decoder.get_frames_at(frames).data)
        assert np.array_equal(got, np.array([reference[k] for k in frames])), path.name
        begin = decoder.metadata.begin_stream_seconds
        fps = (len(decoder) - 1) / (decoder._seconds[-1] - begin)
        played = decoder.get_frames_played_at([begin + k / fps for k in frames])
        assert np.array_equal(as_shown(played.data), got), path.name


@pytest.mark.parametrize("pass_frames", [1, 7, 1000])
def test_frames_one_after_the_other_are_decoded_in_passes(
    decoder: FrameDecoder, reports: list[DecodeReport], monkeypatch: pytest.MonkeyPatch, pass_frames: int
) -> None:
    height, width = zoo.clip_reference("h264_b_frames")[0].shape[:2]
    monkeypatch.setattr(frame_decoder, "_PASS_BYTES", pass_frames * 3 * height * width)
    taken = list(decoder)
    assert len(taken) == len(decoder) == 50
    assert all(are(frame[None], [k]) for k, frame in enumerate(taken))
    assert len(reports) == -(-50 // pass_frames)
    if hasattr(taken[0], "untyped_storage"):  # whoever keeps one keeps its own bytes alone
        assert taken[3].untyped_storage().nbytes() == 3 * height * width
