"""`load_video`, `load_audio`, `load_image`: the same from every source, equal to other decoders, all or nothing."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import media_zoo as zoo
import millpond
from media_server import MediaServer, serving
from millpond import CorruptMedia, DataError, DecodeTimeout, FrameTimestampError, ObjectMissing
from millpond._datasets import load as load_module
from millpond._media.pictures import INTERPOLATIONS
from sounds import tone, write_sound

SECONDS_OF_A_HANG = 0.3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A video, a sound and an image."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(zoo.moving_picture(3)).save(folder / "image.png")
    return {
        "video": zoo.clip_path("h264_b_frames"),
        "audio": write_sound(folder / "tone.flac", "flac", tone(2)),
        "image": folder / "image.png",
    }


@pytest.fixture
def server(files: dict[str, Path]) -> Iterator[MediaServer]:
    with serving({f"/{kind}": path.read_bytes() for kind, path in files.items()}) as running:
        yield running


LOADERS: dict[str, Callable[..., NDArray[Any]]] = {
    "video": lambda source, **more: millpond.load_video(source, num_frames=5, **more),
    "audio": lambda source, **more: millpond.load_audio(source, sampling_rate=16000, **more),
    "image": millpond.load_image,
}


@pytest.fixture(params=["video", "audio", "image"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("timeout", [None, 60])
def test_every_source_gives_the_same(
    kind: str, timeout: float | None, files: dict[str, Path], server: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files[kind]
    data = path.read_bytes()
    monkeypatch.chdir(path.parent)
    expected = LOADERS[kind](path)
    with open(path, "rb") as file:
        behind = io.BytesIO(b"12345" + data)
        behind.seek(5)
        sources = [str(path), path.name, path.as_uri(), f"{server.url}/{kind}"]
        sources += [data, bytearray(data), memoryview(data), file, behind]  # type: ignore[list-item]
        for source in sources:
            assert np.array_equal(LOADERS[kind](source, timeout=timeout), expected)


@pytest.mark.parametrize("timeout", [None, 60])
def test_shapes_and_memory_are_those_of_batches(timeout: float | None, files: dict[str, Path]) -> None:
    video = millpond.load_video(files["video"], num_frames=4, image_size=(32, 48), timeout=timeout)
    image = millpond.load_image(files["image"], image_size=(32, 48), timeout=timeout)
    mono = millpond.load_audio(files["audio"], sampling_rate=16000, timeout=timeout)
    both = millpond.load_audio(files["audio"], sampling_rate=16000, mono=False, timeout=timeout)
    assert (video.shape, image.shape) == ((4, 3, 32, 48), (3, 32, 48))
    assert video.dtype == image.dtype == np.uint8
    assert video.transpose(0, 2, 3, 1).flags.c_contiguous
    assert image.transpose(1, 2, 0).flags.c_contiguous
    assert (mono.shape, both.shape) == ((24000,), (2, 24000))
    assert mono.dtype == both.dtype == np.float32


@pytest.mark.parametrize("name", [clip.name for clip in zoo.CLIPS])
def test_frames_are_those_of_a_container_decode(name: str) -> None:
    expected = zoo.clip_reference(name)
    got = millpond.load_video(zoo.clip_path(name), num_frames=zoo.FRAMES // 2).transpose(0, 2, 3, 1)
    chosen = _shown(_times_of(zoo.clip_path(name)), zoo.FRAMES // 2)
    assert all(np.array_equal(picture, expected[k]) for picture, k in zip(got, chosen, strict=True))


def _times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time or 0) for frame in container.decode(video=0)]


def _shown(times: list[float], count: int) -> list[int]:
    """The frames shown at the middles of equal parts, found by looking at each."""
    end = times[-1] + float(np.median(np.diff(times)))
    middles = [times[0] + (k + 0.5) * (end - times[0]) / count for k in range(count)]
    return [max(k for k, start in enumerate(times) if start <= middle + 0.001) for middle in middles]


def test_real_clips_equal_a_container_decode(shared_dir: Path) -> None:
    for path in sorted((*shared_dir.glob("media/*.mp4"), *shared_dir.glob("media/*.mkv"))):
        times, expected = _times_of(path), zoo.reference(path)
        got = millpond.load_video(path.read_bytes(), num_frames=7).transpose(0, 2, 3, 1)
        chosen = _shown(times, 7)
        assert all(np.array_equal(a, expected[k]) for a, k in zip(got, chosen, strict=True)), path.name


@pytest.fixture(scope="module")
def torchcodec_decoders() -> Any:
    """Imported outside of any test: torch makes a temporary folder of its own then."""
    try:
        import torchcodec.decoders
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec is not to be used here: {type(error).__name__}: {str(error).splitlines()[0]}")
    return torchcodec.decoders


def test_real_clips_equal_torchcodec(shared_dir: Path, torchcodec_decoders: Any) -> None:
    for name in ("nasa_13013.mp4", "bikes.mp4", "bigbuckbunny.mp4", "h265_video.mp4"):
        decoder = torchcodec_decoders.VideoDecoder(str(shared_dir / "media" / name), stream_index=0)
        got = millpond.load_video(shared_dir / "media" / name, fps=2, max_frames=6)
        times = [(decoder.metadata.begin_stream_seconds or 0) + k / 2 + 1e-4 for k in range(len(got))]
        assert np.array_equal(decoder.get_frames_played_at(times).data.numpy(), got), name


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_resize_is_swscale_s(interpolation: str) -> None:
    got = millpond.load_video(
        zoo.clip_path("h264_b_frames"), times=[0], image_size=(38, 50), interpolation=interpolation
    )
    with av.open(str(zoo.clip_path("h264_b_frames"))) as container:
        frame = next(container.decode(video=0))
        expected = frame.reformat(50, 38, "rgb24", interpolation=INTERPOLATIONS[interpolation]).to_ndarray()
    assert np.array_equal(got[0].transpose(1, 2, 0), expected)


def test_frames_by_rate_and_by_time_are_those_shown_then() -> None:
    path, expected = zoo.clip_path("h264_b_frames"), zoo.clip_reference("h264_b_frames")
    assert millpond.load_video(path, fps=5).shape[0] == zoo.FRAMES // 5
    by_rate = millpond.load_video(path, fps=50, max_frames=6).transpose(0, 2, 3, 1)
    assert all(np.array_equal(by_rate[k], expected[k // 2]) for k in range(6))
    by_time = millpond.load_video(path, times=[0.0, 0.1, 0.1, 1.99]).transpose(0, 2, 3, 1)
    assert all(np.array_equal(a, expected[k]) for a, k in zip(by_time, (0, 2, 2, 49), strict=True))


def test_only_gops_that_hold_chosen_frames_are_decoded(tmp_path: Path) -> None:
    table, data = zoo.clip_table("h264_b_frames"), bytearray(zoo.clip_path("h264_b_frames").read_bytes())
    row = int(table.frame_rows[table.gop_starts[1]]) + 2  # of the second GOP
    data[int(table.offset[row]) : int(table.offset[row]) + 60] = bytes(60)
    assert millpond.load_video(bytes(data), times=[0.0, 1.9]).shape[0] == 2
    with pytest.raises(CorruptMedia):
        millpond.load_video(bytes(data), times=[0.0, 0.6])


def test_sound_equals_that_of_the_ffmpeg_command(shared_dir: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("there is no ffmpeg command here to compare with")
    for name in ("nasa_13013.mp4", "flipping_a_pancake.mkv", "nasa_13013.mp4.audio.mp3", "sine_mono_s16.wav"):
        path = shared_dir / "media" / name
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", "-ar", "16000", "-ac", "1"]
        raw = subprocess.run([*command, "-f", "f32le", "-"], capture_output=True, check=True).stdout
        got = millpond.load_audio(path.read_bytes(), sampling_rate=16000)
        np.testing.assert_allclose(got, np.frombuffer(raw, np.float32), atol=2e-7, err_msg=name)


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.99])
def test_a_file_that_was_cut_short_gives_nothing(
    kind: str, share: float, timeout: float | None, files: dict[str, Path], tmp_path: Path
) -> None:
    data = files[kind].read_bytes()
    short = tmp_path / files[kind].name
    short.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CorruptMedia, match=rf"{short.name}'"):
        LOADERS[kind](short, timeout=timeout)
    with pytest.raises(CorruptMedia, match=rf"^(an image of )?{short.stat().st_size:,} bytes of {kind}"):
        LOADERS[kind](short.read_bytes(), timeout=timeout)


def test_a_file_without_the_stream_wanted_says_so(files: dict[str, Path]) -> None:
    with pytest.raises(CorruptMedia, match=r"h264_b_frames\.mp4' has no audio stream"):
        millpond.load_audio(files["video"], sampling_rate=16000)
    with pytest.raises(CorruptMedia, match=r"tone\.flac' has no video stream"):
        millpond.load_video(files["audio"], num_frames=1)
    with pytest.raises(CorruptMedia, match=r"h264_b_frames\.mp4' does not decode"):
        millpond.load_image(files["video"])


@pytest.mark.parametrize("timeout", [None, 60])
def test_what_is_not_there_is_missing_by_the_name_that_was_given(kind: str, timeout: float | None) -> None:
    with pytest.raises(ObjectMissing, match=r"no file at 'gone/clip\.mp4'"):
        LOADERS[kind]("gone/clip.mp4", timeout=timeout)


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_time_beyond_the_clip_is_an_error(timeout: float | None, files: dict[str, Path]) -> None:
    with pytest.raises(FrameTimestampError, match=r"shown 9 s after"):
        millpond.load_video(files["video"], times=[0.0, 9.0], timeout=timeout)


def test_a_pipe_that_nobody_writes_to_ends_in_a_timeout_that_names_it(
    kind: str, files: dict[str, Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    LOADERS[kind](files[kind], timeout=60)  # so that the worker has imported everything when its time begins
    with pytest.raises(DecodeTimeout, match=r"/pipe'.*limit 0\.3 s") as caught:
        LOADERS[kind](tmp_path / "pipe", timeout=SECONDS_OF_A_HANG)
    assert "_local_file" in caught.value.stack


def test_a_server_that_never_answers_ends_in_a_timeout_without_its_secret(kind: str, server: MediaServer) -> None:
    with pytest.raises(DecodeTimeout, match=r"/hang\?\.\.\.'.*limit 0\.3 s") as caught:
        LOADERS[kind](f"{server.url.replace('//', '//ann:hunter2@')}/hang?token=sesame", timeout=SECONDS_OF_A_HANG)
    told = f"{caught.value} {caught.value.facts} {caught.value.__notes__}"
    assert "hunter2" not in told
    assert "sesame" not in told


def test_after_a_timeout_the_next_call_works(files: dict[str, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DecodeTimeout):
        millpond.load_image(tmp_path / "pipe", timeout=SECONDS_OF_A_HANG)
    assert np.array_equal(millpond.load_image(files["image"], timeout=60), millpond.load_image(files["image"]))


def test_the_environment_sets_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("MILLPOND_DECODE_TIMEOUT", str(SECONDS_OF_A_HANG))
    with pytest.raises(DecodeTimeout, match="pipe"):
        millpond.load_image(tmp_path / "pipe")


def test_an_environment_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_DECODE_TIMEOUT", "soon")
    with pytest.raises(ValueError, match=r"MILLPOND_DECODE_TIMEOUT must be a number of seconds.*'soon'"):
        millpond.load_image(b"")


@pytest.mark.parametrize(("data", "words"), [(b"", "is empty"), (b"text", "is no image of a kind")])
def test_what_is_no_image_says_so_in_our_words(data: bytes, words: str) -> None:
    with pytest.raises(millpond.CorruptMedia, match=words):
        millpond.load_image(data)


def test_sound_may_be_bounded(files: dict[str, Path]) -> None:
    whole = millpond.load_audio(files["audio"], sampling_rate=16000)
    part = millpond.load_audio(files["audio"], sampling_rate=16000, max_seconds=0.1)
    assert part.shape == (1600,)
    assert np.array_equal(part, whole[:1600])


@pytest.mark.parametrize("source", [3, None, [b"x"], io.StringIO("text")])
def test_what_is_no_source_is_a_type_error(source: Any) -> None:
    with pytest.raises(TypeError, match=r"no path, URL|mode 'rb'"):
        millpond.load_image(source)


def test_arguments_are_checked_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        millpond.load_video("gone.mp4")
    with pytest.raises(TypeError, match="only a dataset has columns"):
        millpond.load_video("gone.mp4", times="column")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sampling_rate is 0"):
        millpond.load_audio("gone.mp4", sampling_rate=0)
    with pytest.raises(ValueError, match="interpolation"):
        millpond.load_image("gone.png", interpolation="nearest")


def test_a_clip_that_claims_to_last_too_long_is_an_error_unless_it_is_bounded(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "MAX_UNASKED_BYTES", 100_000)
    with pytest.raises(DataError, match="pass max_frames"):
        millpond.load_video(files["video"], fps=25)
    assert len(millpond.load_video(files["video"], fps=25, max_frames=25)) == 25


def test_what_runs_in_a_worker_travels_by_name() -> None:
    for function in (load_module._read_audio, load_module._read_video, load_module._read_image):
        assert len(pickle.dumps(function)) < 100
