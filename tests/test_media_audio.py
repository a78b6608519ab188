"""Sound: every sample, no more and no less, and when it starts."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from millpond._media.audio import decode_audio
from millpond.errors import CorruptMedia, ObjectMissing

RATE, SECONDS = 8000, 1.5


def _tone(channels: int) -> NDArray[np.float32]:
    times = np.arange(int(RATE * SECONDS)) / RATE
    return np.stack([0.5 * np.sin(2 * np.pi * 300 * (c + 1) * times) for c in range(channels)]).astype(np.float32)


def _write(path: Path, codec: str, samples: NDArray[np.float32], **options: str) -> Path:
    with av.open(str(path), "w", options=options) as out:
        stream: Any = out.add_stream(codec, rate=RATE, layout="stereo" if len(samples) == 2 else "mono")
        for start in range(0, samples.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout=stream.layout.name
            )
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("codec", "suffix", "tolerance"), [("pcm_f32le", ".wav", 0.0), ("flac", ".flac", 1e-4)])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_sound_comes_back(codec: str, suffix: str, tolerance: float, channels: int, tmp_path: Path) -> None:
    tone = _tone(channels)
    audio = decode_audio(_write(tmp_path / f"tone{suffix}", codec, tone))
    assert (audio.samples.shape, audio.sampling_rate, audio.first_seconds) == (tone.shape, RATE, 0.0)
    assert np.abs(audio.samples - tone).max() <= tolerance


@pytest.mark.parametrize("sampling_rate", [4000, 16000, 11025])
def test_the_resampler_is_flushed(sampling_rate: int, tmp_path: Path) -> None:
    audio = decode_audio(_write(tmp_path / "tone.wav", "pcm_f32le", _tone(1)), sampling_rate=sampling_rate)
    assert abs(audio.samples.shape[1] - SECONDS * sampling_rate) <= 1
    assert abs(audio.duration_seconds - SECONDS) < 1e-3


def test_mono_mixes_down_as_ffmpeg_does(tmp_path: Path) -> None:
    """By 1 / sqrt(2) a channel: as loud as before, so that in-phase sound may exceed 1."""
    audio = decode_audio(_write(tmp_path / "tone.wav", "pcm_f32le", _tone(2)), mono=True)
    assert audio.samples.shape == (1, int(RATE * SECONDS))
    np.testing.assert_allclose(audio.samples[0], _tone(2).sum(0) / np.sqrt(2), atol=1e-6)


def test_bytes_are_as_good_as_a_path(tmp_path: Path) -> None:
    path = _write(tmp_path / "tone.flac", "flac", _tone(2))
    assert np.array_equal(decode_audio(path.read_bytes()).samples, decode_audio(path).samples)


def test_the_priming_of_an_encoder_is_cut_off(tmp_path: Path) -> None:
    audio = decode_audio(_write(tmp_path / "tone.m4a", "aac", _tone(1)))
    assert abs(audio.samples.shape[1] - RATE * SECONDS) <= 1024
    spectrum = np.abs(np.fft.rfft(audio.samples[0, 2000:10000]))
    assert np.argmax(spectrum) == 300


def test_no_audio_is_corrupt_and_no_file_is_missing(tmp_path: Path) -> None:
    import media_zoo as zoo

    with pytest.raises(CorruptMedia, match="no audio stream"):
        decode_audio(zoo.clip_path("h264_b_frames"))
    with pytest.raises(ObjectMissing, match="gone"):
        decode_audio(tmp_path / "gone.wav")
    with pytest.raises(CorruptMedia, match="16 bytes of audio"):
        decode_audio(b"this is no sound")


def test_sound_that_was_cut_short_is_corrupt(tmp_path: Path) -> None:
    whole = _write(tmp_path / "tone.m4a", "aac", _tone(1), movflags="faststart").read_bytes()
    (tmp_path / "short.m4a").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(CorruptMedia, match=r"cut short|does not decode"):
        decode_audio(tmp_path / "short.m4a")


def test_a_rate_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sampling_rate is 0"):
        decode_audio(tmp_path / "any.wav", sampling_rate=0)


def test_mp3_reports_when_its_first_sample_is_heard(shared_dir: Path) -> None:
    starts = [decode_audio(path).first_seconds for path in sorted(shared_dir.glob("media/*.mp3"))]
    np.testing.assert_allclose(starts, [0.138125, 0.0250567], atol=1e-6)


@pytest.mark.parametrize("sampling_rate", [None, 16000])
def test_samples_equal_those_of_the_ffmpeg_command(shared_dir: Path, sampling_rate: int | None) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("there is no ffmpeg command here to compare with")
    with_sound = [p for p in sorted(shared_dir.glob("media/*")) if p.stem.startswith(("nasa", "sine", "big", "flip"))]
    rate = [] if sampling_rate is None else ["-ar", str(sampling_rate)]
    for path in with_sound:
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", *rate, "-f", "f32le", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        samples = decode_audio(path, sampling_rate=sampling_rate).samples
        expected = np.frombuffer(raw, np.float32).reshape(-1, len(samples)).T
        np.testing.assert_allclose(samples, expected, atol=1.2e-7)
