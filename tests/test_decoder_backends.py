"""Both backends give the same frames: each held against a container's decode, however frames are asked for."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from millpond import VideoDecoderCache
from millpond._datasets.decoders.handles import Handle
from millpond._datasets.decoders.opening import DecoderBackend, Entry, open_local
from millpond._datasets.decoders.stream_decoder import StreamDecoder
from millpond._media.index import build_sample_table
from millpond._media.media_path import MediaPath
from millpond._media.video_file import FileBytes
from millpond._values import ByteRange
from millpond.errors import ClosedError, CorruptMedia, FetchError, UnsupportedFormat
from programs import forked, start_python
from synthesized import MakeDataset

pytestmark = pytest.mark.usefixtures("torch_is_imported")

BACKENDS: tuple[DecoderBackend, ...] = ("pyav", "torchcodec")

DIFFERENT = {
    "h264_10_bit": "10-bit pictures are brought to 8 bits by each FFmpeg in its own way",
    "hevc_10_bit": "10-bit pictures are brought to 8 bits by each FFmpeg in its own way",
    "h264_interlaced": "the chroma of interlaced pictures is scaled by each FFmpeg in its own way",
    "h264_turned_90": "torchcodec may turn pictures before they are converted, and PyAV's are turned thereafter",
    "h264_turned_180": "torchcodec may turn pictures before they are converted, and PyAV's are turned thereafter",
    "h264_turned_270": "torchcodec may turn pictures before they are converted, and PyAV's are turned thereafter",
    "h264_turned_mkv": "torchcodec may turn pictures before they are converted, and PyAV's are turned thereafter",
}
TIMES_ARE_GUESSED = ("h264_avi",)
EQUAL = [clip.name for clip in zoo.CLIPS if clip.name not in (*DIFFERENT, *TIMES_ARE_GUESSED)]


def _why_not() -> str | None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return f"torchcodec is not to be used here: {type(error).__name__}: {str(error).splitlines()[0]}"
    return None


@pytest.fixture(scope="session")
def torchcodec() -> None:
    if (reason := _why_not()) is not None:
        pytest.skip(reason)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> DecoderBackend:
    if request.param == "torchcodec" and (reason := _why_not()) is not None:
        pytest.skip(reason)
    chosen: DecoderBackend = request.param
    return chosen


@pytest.fixture
def cache() -> Iterator[VideoDecoderCache]:
    kept = VideoDecoderCache(max_size=4)
    yield kept
    kept.clear()


def shown(data: Any) -> NDArray[np.uint8]:
    """uint8, (N, H, W, 3), of (N, 3, H, W)."""
    pictures = np.asarray(data).transpose(0, 2, 3, 1)
    assert pictures.dtype == np.uint8
    return pictures


def require_frames(decoder: StreamDecoder, reference: Any, *, singles: int = 50, slices: bool = True) -> None:
    """Every frame, asked for in every way, is that of a decode front to back: uint8, each (H, W, 3).

    Without slices, for large pictures: they are batches of other indices, as each small clip shows.
    """
    count, rng = len(reference), random.Random(0)
    seconds, table = decoder.table.frame_seconds, decoder.table
    assert len(decoder) == decoder.metadata.num_frames == table.num_frames == count

    def require(batch: Any, wanted: Any) -> None:
        pictures = shown(batch.data)
        assert len(pictures) == len(wanted)
        for picture, k in zip(pictures, wanted, strict=True):
            assert np.array_equal(picture, reference[k]), f"frame {k} of {decoder}"
        assert np.asarray(batch.pts_seconds).tolist() == [seconds[k] for k in wanted]

    shuffled = rng.sample(range(count), count)
    for k in shuffled[:singles]:
        frame = decoder.get_frame_at(k)
        assert np.array_equal(shown(frame.data[None])[0], reference[k]), f"frame {k} of {decoder}"
        assert frame.pts_seconds == seconds[k]
        if k < count - 1:
            assert frame.duration_seconds == pytest.approx(seconds[k + 1] - seconds[k])
    require(decoder.get_frames_at(shuffled[:200]), shuffled[:200])
    repeated = [shuffled[0], shuffled[1], shuffled[0], -1, -count, -2, count - 1, shuffled[1] - count, 0]
    require(decoder.get_frames_at(repeated), repeated)
    parts = (slice(2, 9), slice(-3, None), slice(None, None, -7), slice(5, 5), slice(1, -1, 3)) if slices else ()
    for part in parts:
        pictures = np.array([reference[k] for k in range(count)[part]], np.uint8)
        assert np.array_equal(shown(decoder[part]), pictures.reshape(-1, *reference[0].shape)), f"{part} of {decoder}"
    require(decoder.get_frames_in_range(3, 20, 4), range(count)[3:20:4])
    times = [seconds[k] + (seconds[k + 1] - seconds[k]) / 2 for k in shuffled[:20] if k < count - 1]
    require(decoder.get_frames_played_at(times), [k for k in shuffled[:20] if k < count - 1])
    assert np.array_equal(shown(decoder.get_frame_played_at(seconds[-1]).data[None])[0], reference[-1])
    with pytest.raises(IndexError, match=f"has {count} frames, and no frame {count}"):
        decoder.get_frames_at([0, count])


@pytest.mark.parametrize("name", EQUAL)
def test_frames_are_those_of_a_decode_front_to_back(
    cache: VideoDecoderCache, backend: DecoderBackend, name: str
) -> None:
    require_frames(cache.get_decoder(zoo.clip_path(name), backend=backend), zoo.clip_reference(name))


@pytest.mark.parametrize("name", [clip.name for clip in zoo.CLIPS if clip.name not in TIMES_ARE_GUESSED])
def test_both_say_the_same_of_a_video(cache: VideoDecoderCache, torchcodec: None, name: str) -> None:
    ours, theirs = (cache.get_decoder(zoo.clip_path(name), backend=backend) for backend in BACKENDS)
    assert ours.metadata == theirs.metadata
    a, b = ours[:3], theirs[:3]
    assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_vfr", "av1_gop_2", "vp9_webm"])
@pytest.mark.parametrize("fps", [None, 10, 12.5, 50])  # whose times are 3 ms or more from those of frames
def test_ranges_of_times_are_torchcodecs(
    cache: VideoDecoderCache, torchcodec: None, name: str, fps: float | None
) -> None:
    from torchcodec.decoders import VideoDecoder

    ours, theirs = cache.get_decoder(zoo.clip_path(name)), VideoDecoder(zoo.clip_path(name))
    random = np.random.default_rng(5)
    end = min(ours.metadata.end_stream_seconds, theirs.metadata.end_stream_seconds)  # it may take another last frame
    for start, stop in np.sort(random.uniform(ours.metadata.begin_stream_seconds, end, (12, 2))).round(2) + 0.003:
        if stop < end:
            mine = ours.get_frames_played_in_range(start, stop, fps)
            its = theirs.get_frames_played_in_range(start, stop, fps)
            assert np.allclose(mine.pts_seconds, its.pts_seconds, rtol=0, atol=1e-6), (start, stop)
            assert np.array_equal(mine.data, its.data)
    if fps is None:
        assert np.array_equal(ours.get_all_frames().pts_seconds, theirs.get_all_frames().pts_seconds)


@pytest.mark.parametrize("name", DIFFERENT)
def test_pictures_that_each_ffmpeg_converts_in_its_own_way(
    cache: VideoDecoderCache, torchcodec: None, name: str
) -> None:
    path, reference = zoo.clip_path(name), np.array(zoo.clip_reference(name))
    require_frames(cache.get_decoder(path), reference)
    order = random.Random(1).sample(range(len(reference)), len(reference))
    pictures = shown(cache.get_decoder(path, backend="torchcodec").get_frames_at(order).data)
    assert pictures.shape == reference.shape
    every = reference.astype(np.int16)
    for picture, k in zip(pictures, order, strict=True):
        away = np.abs(every - picture).mean(axis=(1, 2, 3))
        assert away.argmin() == k, "it is the frame itself that it resembles most"
    mean = np.abs(every[order] - pictures).mean()
    assert mean < 10
    print(f"{name}: on average {mean:.2f} of 255 apart, because {DIFFERENT[name]}")


def test_an_avi_whose_times_are_guessed_is_refused_by_torchcodec(cache: VideoDecoderCache, torchcodec: None) -> None:
    # without the refusal some versions of FFmpeg show each frame under the number of the next, and no check can tell
    path = zoo.clip_path("h264_avi")
    with pytest.raises(UnsupportedFormat, match="backend 'pyav'"):
        cache.get_decoder(path, backend="torchcodec")
    assert cache.statistics().open == 0


@pytest.mark.parametrize(
    ("name", "shift_frames"), [("h264_b_frames", 5), ("h264_b_frames", 20), ("h264_open_gop", 14), ("hevc_cra", 7)]
)
def test_an_edit_list_that_cuts_a_gop(
    cache: VideoDecoderCache, backend: DecoderBackend, tmp_path: Path, name: str, shift_frames: int
) -> None:
    path = zoo.remux(zoo.clip_path(name), tmp_path / "cut.mp4", shift_frames=shift_frames)
    reference = zoo.reference(path)
    assert len(reference) < zoo.FRAMES
    require_frames(cache.get_decoder(path, backend=backend), reference)


def test_a_file_that_does_not_tell_how_long_it_is(
    cache: VideoDecoderCache, backend: DecoderBackend, tmp_path: Path
) -> None:
    path = zoo.remux(zoo.clip_path("vp9_webm"), tmp_path / "recorded.webm", muxer={"live": "1"})
    require_frames(cache.get_decoder(path, backend=backend), zoo.reference(path))


def test_each_of_several_streams(cache: VideoDecoderCache, backend: DecoderBackend, tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    sources = [av.open(str(zoo.clip_path(name))) for name in ("h264_b_frames", "h264_open_gop")]
    with av.open(str(path), "w") as out:
        streams = [out.add_stream_from_template(source.streams.video[0]) for source in sources]
        packets = [packet for source in sources for packet in source.demux(video=0)]
        for k, packet in enumerate(packets):
            if packet.dts is not None:
                packet.stream = streams[k > zoo.FRAMES]
                out.mux(packet)
    for source in sources:
        source.close()
    for stream_index, name in ((0, "h264_b_frames"), (1, "h264_open_gop")):
        decoder = cache.get_decoder(path, backend=backend, stream_index=stream_index)
        require_frames(decoder, zoo.clip_reference(name), singles=10)
        assert decoder.metadata.stream_index == stream_index


@pytest.mark.parametrize("recipe", [{}, {"gop": 40}, {"b_frames": 2, "gop": 7}, {"codec": "av1", "gop": 2}])
def test_files_of_datasets(
    cache: VideoDecoderCache, backend: DecoderBackend, synth: MakeDataset, recipe: dict[str, Any]
) -> None:
    for path in sorted(synth(**recipe).glob("videos/*/*/*.mp4")):
        require_frames(cache.get_decoder(path, backend=backend), zoo.reference(path), singles=10)


def usable_backends() -> list[DecoderBackend]:
    """For tests whose reference takes longer than what is held against it."""
    return [backend for backend in BACKENDS if backend == "pyav" or _why_not() is None]


def test_every_shared_clip(cache: VideoDecoderCache, shared_dir: Path) -> None:
    for path in sorted([*shared_dir.glob("media/*.mp4"), *shared_dir.glob("media/*.mkv")]):
        reference = zoo.reference(path)
        for backend in usable_backends():
            if backend == "torchcodec" and "10bits" in path.name:
                print(f"{path.name} is left out: {DIFFERENT['h264_10_bit']}")
                continue
            require_frames(cache.get_decoder(path, backend=backend), reference, singles=2, slices=False)


def test_each_stream_of_a_shared_clip(cache: VideoDecoderCache, shared_dir: Path) -> None:
    path = shared_dir / "media" / "nasa_13013.mp4"
    with av.open(str(path)) as container:
        numbers = [stream.index for stream in container.streams.video]
    assert len(numbers) == 2
    for k, number in enumerate(numbers):
        reference = zoo.reference(path, stream=k)
        for backend in usable_backends():
            decoder = cache.get_decoder(path, backend=backend, stream_index=number)
            require_frames(decoder, reference, singles=2, slices=False)


# What is asked for in parts.


def test_a_batch_larger_than_a_call_of_torchcodec(
    cache: VideoDecoderCache, torchcodec: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("millpond._datasets.decoders.torchcodec_decoder")
    monkeypatch.setattr(module, "_MOST_CALL_BYTES", 7 * zoo.WIDTH * zoo.HEIGHT * 3)
    decoder = cache.get_decoder(zoo.clip_path("h264_b_frames"), backend="torchcodec")
    assert getattr(decoder, "_most_frames", None) == 7
    require_frames(decoder, zoo.clip_reference("h264_b_frames"), singles=3)
    monkeypatch.setattr(module, "_MOST_CALL_BYTES", 1)
    decoder = cache.get_decoder(zoo.clip_path("av1_gop_16"), backend="torchcodec")
    assert getattr(decoder, "_most_frames", None) == 1
    require_frames(decoder, zoo.clip_reference("av1_gop_16"), singles=3)


@pytest.mark.parametrize("image_size", [(38, 50), (224, 224), (51, 33)])
@pytest.mark.parametrize("name", ["h264_b_frames", "h264_turned_90", "h264_turned_270", "h264_turned_mkv"])
def test_sizes_are_those_of_upright_pictures(
    cache: VideoDecoderCache, torchcodec: None, name: str, image_size: tuple[int, int]
) -> None:
    a, b = (
        cache.get_decoder(zoo.clip_path(name), backend=backend, image_size=image_size).get_frames_at([30, 2]).data
        for backend in BACKENDS
    )
    assert a.shape == b.shape == (2, 3, *image_size)
    assert np.abs(shown(a).astype(int) - shown(b)).mean() < 8


def test_a_default_device_of_torch_changes_nothing(cache: VideoDecoderCache, torchcodec: None) -> None:
    import torch

    with torch.device("meta"):
        decoder = cache.get_decoder(zoo.clip_path("h264_b_frames"), backend="torchcodec")
        assert np.array_equal(shown(decoder[7][None])[0], zoo.clip_reference("h264_b_frames")[7])


# What goes wrong.


class OddContents:
    """Contents of a local file, at which a test looks on; `before_read` may raise, and may wait."""

    def __init__(self, contents: FileBytes) -> None:
        self._contents = contents
        self.before_read: Callable[[], None] = lambda: None
        self.is_open = True
        self.check_identity, self.whole = contents.check_identity, contents.whole

    def read(self, wanted: ByteRange) -> bytes:
        self.before_read()
        return self._contents.read(wanted)

    def close(self) -> None:
        self.is_open = False
        self._contents.close()


@pytest.fixture
def padded(tmp_path: Path) -> Path:
    """A clip of which FFmpeg cannot read everything while it opens it: twenty times the frames of one of the zoo's."""
    path = tmp_path / "long.mp4"
    with av.open(str(zoo.clip_path("h264_b_frames"))) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        assert stream.duration is not None
        assert stream.time_base is not None
        data = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe, packet.duration) for packet in packets]
        for k in range(20):
            for payload, pts, dts, is_keyframe, duration in data:
                assert pts is not None
                assert dts is not None
                packet = av.Packet(payload)
                packet.pts, packet.dts = pts + k * stream.duration, dts + k * stream.duration
                packet.duration, packet.time_base = duration, stream.time_base
                packet.is_keyframe, packet.stream = is_keyframe, copy
                out.mux(packet)
    return path


def opened(path: Path) -> tuple[OddContents, Callable[[], Any], Handle]:
    """The contents of a file, what opens a torchcodec decoder over them, and its handle."""
    from millpond._datasets.decoders.torchcodec_decoder import TorchcodecDecoder

    local = open_local(MediaPath.of(path))
    contents = OddContents(local.contents)
    handle = Handle(contents, local.path, local.identity, is_local=False)
    local.closed = True  # the contents are the other handle's now
    return contents, lambda: TorchcodecDecoder(build_sample_table(path), handle), handle


class Interrupted(BaseException):
    """As KeyboardInterrupt, which the runner of the tests would take for itself."""


@pytest.mark.parametrize(
    "error",
    [
        FetchError("the store answers 503", tries=3, status=503),
        ClosedError("closed"),
        CorruptMedia("changed"),
        OSError("the disk is gone"),
        Interrupted("by hand"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_reading_raises_comes_out_as_itself_and_is_over_thereafter(
    torchcodec: None, padded: Path, error: BaseException
) -> None:
    contents, open_decoder, handle = opened(padded)

    def fail() -> None:
        raise error

    decoder = open_decoder()
    for k in (403, 903):
        contents.before_read = fail
        with pytest.raises(type(error), match=str(error)) as caught:
            decoder.get_frames_at([k, k + 60])
        if isinstance(caught.value, FetchError):
            assert (caught.value.frame, caught.value.tries, caught.value.status) == (k, 3, 503)
        contents.before_read = lambda: None
        assert np.array_equal(shown(decoder[k][None])[0], zoo.clip_reference("h264_b_frames")[k % zoo.FRAMES])
    contents.before_read = fail
    with pytest.raises(type(error), match=str(error)):
        open_decoder()
    handle.close()
    assert not contents.is_open


def test_a_file_that_changed_in_place_gives_no_frame(
    cache: VideoDecoderCache, backend: DecoderBackend, padded: Path
) -> None:
    with cache.lease(padded, backend=backend) as decoder:
        assert decoder[0].shape == (3, zoo.HEIGHT, zoo.WIDTH)
        data = padded.read_bytes()
        os.truncate(padded, 0)
        padded.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2 + 77))
        for _ in range(2):
            with pytest.raises(CorruptMedia, match=r"frame 900: .* changed after its sample table was made"):
                decoder.get_frames_at([900])
    assert cache.statistics().open == 1


def test_a_file_that_changes_while_it_is_read_gives_no_frame(torchcodec: None, padded: Path) -> None:
    contents, open_decoder, handle = opened(padded)
    decoder = open_decoder()
    contents.before_read = lambda: os.utime(padded, ns=(1, 1))
    with pytest.raises(CorruptMedia, match="changed after its sample table was made"):
        decoder.get_frames_at([900])
    handle.close()


@pytest.mark.parametrize("name", ["h264_b_frames", "hevc_closed", "av1_gop_16", "vp9_webm"])
def test_damage_gives_no_frame_under_another_number(
    cache: VideoDecoderCache, torchcodec: None, tmp_path: Path, name: str
) -> None:
    path = Path(shutil.copy(zoo.clip_path(name), tmp_path))
    table, reference = zoo.clip_table(name), np.array(zoo.clip_reference(name)).astype(np.int16)
    gop = range(int(table.gop_starts[1]), int(table.gop_starts[2]))
    row = int(table.frame_rows[gop[0]])
    with open(path, "r+b") as file:
        file.seek(int(table.offset[row]) + 5)
        file.write(bytes([0x5A, 0xC3, 0x77]) * (int(table.size[row]) // 3 - 3))
    cache.get_decoder(zoo.clip_path(name))  # and its table is known
    decoder = cache.get_decoder(path, backend="torchcodec")
    # it reads ahead, so frames that are shown before the damage may fail with it
    may_fail = range(max(gop[0] - 16, 0), gop[-1] + 1)
    for k in (*range(len(reference)), *random.Random(0).sample(range(len(reference)), len(reference))):
        try:
            picture = shown(decoder[k][None])[0]
        except CorruptMedia as error:
            assert (error.frame, k in may_fail) == (k, True)  # noqa: PT017 - that it raises is not promised
            continue
        away = np.abs(reference - picture).mean(axis=(1, 2, 3))
        # concealed, it is like the frames around it, or like none
        assert not away[k] if k not in gop else away.argmin() in range(gop[0] - 1, gop[-1] + 2) or away.min() > 4
    with pytest.raises(CorruptMedia):
        cache.get_decoder(path).get_frames_at([gop[0]])


# Several threads, and several processes.


def test_threads_share_a_decoder(cache: VideoDecoderCache, backend: DecoderBackend) -> None:
    decoder, reference = (
        cache.get_decoder(zoo.clip_path("h264_open_gop"), backend=backend),
        zoo.clip_reference("h264_open_gop"),
    )

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(12):
            wanted = rng.sample(range(zoo.FRAMES), 3)
            for picture, k in zip(shown(decoder.get_frames_at(wanted).data), wanted, strict=True):
                assert np.array_equal(picture, reference[k])

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, seed) for seed in range(4)]:
            done.result()


def test_a_decoder_that_is_evicted_amid_a_call_ends_it_and_then_gives_everything_back(
    torchcodec: None, padded: Path
) -> None:
    contents, open_decoder, handle = opened(padded)
    decoder = open_decoder()
    cache = VideoDecoderCache(max_size=1)
    with cache.lease_entry("it", lambda: Entry(decoder, handle)):
        pass
    reads, goes_on = threading.Event(), threading.Event()

    def wait() -> None:
        reads.set()
        assert goes_on.wait(30)

    contents.before_read = wait
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(decoder.get_frame_at, 900)
        assert reads.wait(30)
        cache.get_decoder(zoo.clip_path("h264_b_frames"))
        assert cache.size() == 1
        assert contents.is_open
        goes_on.set()
        frame = call.result()
    assert np.array_equal(shown(frame.data[None])[0], zoo.clip_reference("h264_b_frames")[0])
    assert not contents.is_open
    assert decoder._live._opened is None  # nor does whoever still has it hold its codec context
    with pytest.raises(ClosedError, match=r"cache\.lease"):
        decoder.get_frame_at(0)
    cache.clear()


def test_a_forked_child_starts_empty_beside_a_live_decoder(cache: VideoDecoderCache, torchcodec: None) -> None:
    path, reference = zoo.clip_path("h264_b_frames"), zoo.clip_reference("h264_b_frames")
    decoder = cache.get_decoder(path, backend="torchcodec")
    decoder.get_frame_at(3)

    def work() -> bytes:
        assert cache.size() == 0
        with pytest.raises(ClosedError):
            decoder.get_frame_at(4)
        mine = cache.get_decoder(path, backend="torchcodec")
        assert mine is not decoder
        return bytes(shown(mine[9][None])[0].tobytes())

    with forked(work) as result:
        assert result() == reference[9].tobytes()
    assert np.array_equal(shown(decoder[9][None])[0], reference[9])


def test_a_child_that_was_forked_amid_a_call_ends_as_any_other(torchcodec: None, padded: Path) -> None:
    code = """
import os, sys, threading
from test_decoder_backends import opened
from pathlib import Path
from millpond import VideoDecoderCache
from millpond._datasets.decoders.opening import Entry
contents, open_decoder, handle = opened(Path(sys.argv[1]))
decoder = open_decoder()
cache = VideoDecoderCache()
with cache.lease_entry("it", lambda: Entry(decoder, handle)):
    pass
reads, goes_on = threading.Event(), threading.Event()
def wait():
    reads.set()
    goes_on.wait()
contents.before_read = wait
thread = threading.Thread(target=decoder.get_frame_at, args=(900,))
thread.start()
reads.wait()
child = os.fork()
if not child:
    assert cache.size() == 0
    try:
        decoder.get_frame_at(0)
    except Exception as error:
        print(type(error).__name__, flush=True)
    sys.exit(0)  # with everything that the interpreter does at its end
assert os.waitpid(child, 0)[1] == 0
goes_on.set()
thread.join()
print("ended", decoder.get_frame_at(0).pts_seconds, flush=True)
"""
    with start_python(code, str(padded)) as process:
        out, _ = process.communicate(timeout=120)
    assert (process.returncode, out.split()) == (0, ["ClosedError", "ended", "0.0"])


# Where it is not there.


def test_torchcodec_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchcodec" else found(name))
    with pytest.raises(UnsupportedFormat, match="pip install torchcodec, or take 'pyav'"):
        VideoDecoderCache(backend="torchcodec")
    cache = VideoDecoderCache()
    with pytest.raises(UnsupportedFormat, match="pip install torchcodec, or take 'pyav'"):
        cache.get_decoder(zoo.clip_path("h264_b_frames"), backend="torchcodec")
    assert cache.statistics().open == 0


def test_torchcodec_that_does_not_load(tmp_path: Path) -> None:
    package = tmp_path / "torchcodec"
    package.mkdir()
    long_text = "Could not load libtorchcodec.\\nLikely causes:\\n" + "FFmpeg is not installed\\n" * 50
    (package / "__init__.py").write_text(
        f"import builtins, os\nraise getattr(builtins, os.environ['IT'])('{long_text}')\n"
    )
    code = """
import json, os, sys
from millpond import VideoDecoderCache
from millpond.errors import UnsupportedFormat
cache, told = VideoDecoderCache(backend="torchcodec"), []
for error in ("ImportError", "RuntimeError", "OSError"):
    os.environ["IT"] = error
    for _ in range(2):
        try:
            cache.get_decoder(sys.argv[1])
        except UnsupportedFormat as error:
            told.append(str(error))
frame = cache.get_decoder(sys.argv[1], backend="pyav").get_frame_at(5)
print(json.dumps([told, cache.statistics().open, list(frame.data.shape)]))
"""
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + code
    with start_python(code, str(zoo.clip_path("h264_b_frames"))) as process:
        out, _ = process.communicate(timeout=120)
    told, still_open, shape = json.loads(out)
    errors = [name for name in ("ImportError", "RuntimeError", "OSError") for _ in range(2)]
    for text, error in zip(told, errors, strict=True):
        assert "shared libraries of FFmpeg 4 to 8; install those, or take 'pyav'" in text
        assert text.endswith(f"({error}: Could not load libtorchcodec.)")
    assert (still_open, shape) == (1, [3, zoo.HEIGHT, zoo.WIDTH])
