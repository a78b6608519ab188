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
from hypothesis import given
from hypothesis import strategies as st

import media_zoo as zoo
from millpond._media import resample
from millpond._media.audio import Audio, aligned_to, decode_audio
from millpond.errors import CorruptMedia, ObjectMissing
from sounds import RATE, SECONDS, remux_sound, tone, write_sound


@pytest.mark.parametrize(("codec", "suffix", "tolerance"), [("pcm_f32le", ".wav", 0.0), ("flac", ".flac", 1e-4)])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_sound_comes_back(codec: str, suffix: str, tolerance: float, channels: int, tmp_path: Path) -> None:
    expected = tone(channels)
    audio = decode_audio(write_sound(tmp_path / f"tone{suffix}", codec, expected))
    assert (audio.samples.shape, audio.sampling_rate, audio.first_seconds) == (expected.shape, RATE, 0.0)
    assert np.abs(audio.samples - expected).max() <= tolerance


@pytest.mark.parametrize("sampling_rate", [4000, 16000, 11025])
def test_the_resampler_is_flushed(sampling_rate: int, tmp_path: Path) -> None:
    audio = decode_audio(write_sound(tmp_path / "tone.wav", "pcm_f32le", tone(1)), sampling_rate=sampling_rate)
    assert abs(audio.samples.shape[1] - SECONDS * sampling_rate) <= 1
    assert abs(audio.duration_seconds - SECONDS) < 1e-3


def test_mono_mixes_down_as_ffmpeg_does(tmp_path: Path) -> None:
    """By 1 / sqrt(2) a channel: as loud as before, so that in-phase sound may exceed 1."""
    audio = decode_audio(write_sound(tmp_path / "tone.wav", "pcm_f32le", tone(2)), mono=True)
    assert audio.samples.shape == (1, int(RATE * SECONDS))
    np.testing.assert_allclose(audio.samples[0], tone(2).sum(0) / np.sqrt(2), atol=1e-6)


def test_bytes_are_as_good_as_a_path(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "tone.flac", "flac", tone(2))
    assert np.array_equal(decode_audio(path.read_bytes()).samples, decode_audio(path).samples)


def test_the_priming_of_an_encoder_is_cut_off(tmp_path: Path) -> None:
    audio = decode_audio(write_sound(tmp_path / "tone.m4a", "aac", tone(1)))
    assert abs(audio.samples.shape[1] - RATE * SECONDS) <= 1024
    spectrum = np.abs(np.fft.rfft(audio.samples[0, 2000:10000]))
    assert np.argmax(spectrum) == 300


def test_no_audio_is_corrupt_and_no_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CorruptMedia, match="no audio stream"):
        decode_audio(zoo.clip_path("h264_b_frames"))
    with pytest.raises(ObjectMissing, match="gone"):
        decode_audio(tmp_path / "gone.wav")
    with pytest.raises(CorruptMedia, match="16 bytes of audio"):
        decode_audio(b"this is no sound")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("aac", ".m4a"),
        ("pcm_s16le", ".wav"),
        ("pcm_s16le", ".aiff"),
        ("pcm_s16le", ".mka"),
        ("pcm_s16le", ".avi"),
        ("flac", ".flac"),
        ("libmp3lame", ".mp3"),
        ("libopus", ".ogg"),
        ("libopus", ".webm"),
    ],
)
def test_sound_that_was_cut_short_is_corrupt(codec: str, suffix: str, share: float, tmp_path: Path) -> None:
    rate = 48000 if codec == "libopus" else RATE
    options = {"movflags": "faststart"} if suffix == ".m4a" else {}
    whole = write_sound(tmp_path / f"tone{suffix}", codec, tone(1, rate), rate=rate, **options).read_bytes()
    with pytest.raises(CorruptMedia, match=r"cut short|does not decode|damaged"):
        decode_audio(whole[: int(share * len(whole))])


@pytest.mark.parametrize(("codec", "suffix"), [("libopus", ".ogg"), ("pcm_s16le", ".mka"), ("flac", ".flac")])
def test_a_bit_that_flipped_is_found_where_the_file_has_checksums(codec: str, suffix: str, tmp_path: Path) -> None:
    rate = 48000 if codec == "libopus" else RATE
    whole = write_sound(tmp_path / f"tone{suffix}", codec, tone(1, rate), rate=rate).read_bytes()
    body = whole.rfind(b"\xff\xf8") if suffix == ".flac" else len(whole) // 2  # its frames lie behind much padding
    for at in range(body, len(whole) - 200, (len(whole) - 200 - body) // 8 or 1):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        with pytest.raises(CorruptMedia, match=r"checksum|does not decode|damaged|cut short"):
            decode_audio(damaged)


def test_a_wav_that_was_written_into_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    whole = write_sound(tmp_path / "tone.wav", "pcm_s16le", tone(1)).read_bytes()
    at = whole.index(b"data") + 4
    for length in (b"\xff\xff\xff\xff", b"\0\xf0\xff\x7f"):
        data = whole[:4] + length + whole[8:at] + length + whole[at + 4 :]
        assert np.array_equal(decode_audio(data).samples, decode_audio(whole).samples)


def test_a_rate_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sampling_rate is 0"):
        decode_audio(tmp_path / "any.wav", sampling_rate=0)


def test_a_title_that_is_no_utf_8_does_not_matter(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "tone.wav", "pcm_s16le", tone(1))
    data = path.read_bytes()
    at = data.index(b"INFOISFT")  # the name of the program that wrote the file
    garbled = data[: at + 12] + b"\xff\xfe\xfd" + data[at + 15 :]
    assert np.array_equal(decode_audio(garbled).samples, decode_audio(path).samples)


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


@pytest.mark.parametrize("sampling_rate", [None, 11025])
@pytest.mark.parametrize("max_seconds", [0.0004, 0.1, 0.5, 99.0])
def test_the_first_seconds_are_the_beginning_of_the_whole(
    sampling_rate: int | None, max_seconds: float, tmp_path: Path
) -> None:
    path = write_sound(tmp_path / "tone.mka", "flac", tone(2))
    whole = decode_audio(path, sampling_rate=sampling_rate)
    part = decode_audio(path, sampling_rate=sampling_rate, max_seconds=max_seconds)
    assert part.samples.shape[1] == min(round(max_seconds * whole.sampling_rate), whole.samples.shape[1])
    assert np.array_equal(part.samples, whole.samples[:, : part.samples.shape[1]])


def test_what_comes_behind_the_seconds_wanted_is_not_decoded(tmp_path: Path) -> None:
    calls: list[None] = []
    path = write_sound(tmp_path / "tone.wav", "pcm_s16le", tone(1, seconds=30))
    decode_audio(path, progress=lambda: calls.append(None))
    num_packets = len(calls)
    decode_audio(path, max_seconds=1, progress=lambda: calls.append(None))
    assert len(calls) - num_packets < num_packets / 4


@given(st.floats(-3, 3), st.floats(-3, 3), st.none() | st.floats(0, 5), st.integers(1, 2))
def test_aligned_sound_is_heard_when_it_was(
    first: float, start: float, max_seconds: float | None, channels: int
) -> None:
    audio = Audio(tone(channels, rate=100) + 2, 100, first)
    aligned = aligned_to(audio, start, max_seconds)
    assert aligned.first_seconds == start
    assert max_seconds is None or aligned.samples.shape[1] <= round(100 * max_seconds)
    for i in range(0, aligned.samples.shape[1], 7):
        source = i - round((first - start) * 100)
        expected = audio.samples[:, source] if 0 <= source < audio.samples.shape[1] else np.zeros(channels)
        assert np.array_equal(aligned.samples[:, i], expected)


@pytest.mark.parametrize("start_seconds", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("max_seconds", [None, 0.6])
def test_decoding_aligned_is_decoding_and_then_aligning(
    start_seconds: float, max_seconds: float | None, tmp_path: Path
) -> None:
    late = remux_sound(write_sound(tmp_path / "a.mka", "flac", tone(2)), tmp_path / "b.mka", shift_seconds=0.5)
    options: dict[str, Any] = {"sampling_rate": 16000, "mono": True}
    expected = aligned_to(decode_audio(late, **options), start_seconds, max_seconds)
    got = decode_audio(late, start_seconds=start_seconds, max_seconds=max_seconds, **options)
    assert decode_audio(late, **options).first_seconds == 0.5
    assert got.samples.shape == (1, round(16000 * min(max_seconds or 9, 0.5 + SECONDS - start_seconds)))
    assert np.array_equal(got.samples, expected.samples)
    assert not got.samples[0, : round(16000 * max(0.5 - start_seconds, 0))].any()


def test_a_hole_in_a_recording_is_silence_where_sound_is_aligned(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mka", "pcm_f32le", tone(1) + 2)
    holey = remux_sound(path, tmp_path / "b.mka", hole=(0.5, 1.0))
    samples = decode_audio(holey, start_seconds=0.0).samples[0]
    silent = np.flatnonzero(samples == 0)
    assert len(samples) == RATE * SECONDS
    assert np.array_equal(silent, np.arange(silent[0], silent[-1] + 1))
    assert 0.35 * RATE < len(silent) < 0.65 * RATE
    kept = np.flatnonzero(samples)
    np.testing.assert_allclose(samples[kept], tone(1)[0][kept] + 2, atol=1e-6)
    assert decode_audio(holey).samples.shape[1] == RATE * SECONDS - len(silent)


def test_a_recording_that_changes_its_rate_within_is_one_sound(tmp_path: Path) -> None:
    parts = [write_sound(tmp_path / f"{r}.aac", "aac", tone(1, rate=r), rate=r).read_bytes() for r in (8000, 16000)]
    both = decode_audio(parts[0] + parts[1], sampling_rate=8000).samples[0]
    each = [decode_audio(part, sampling_rate=8000).samples[0] for part in parts]
    assert abs(len(both) - sum(map(len, each))) <= 1024
    assert np.array_equal(both[: len(each[0]) - 1024], each[0][:-1024])


def test_sound_larger_than_any_clip_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "tone.wav", "pcm_s16le", tone(1))
    monkeypatch.setattr(resample, "MAX_AUDIO_BYTES", 4 * 12_000)
    assert decode_audio(path).samples.shape[1] == 12_000
    for options in ({"sampling_rate": 16_000}, {"start_seconds": -1.0}):
        with pytest.raises(CorruptMedia, match="pass max_seconds"):
            decode_audio(path, **options)
    assert decode_audio(path, start_seconds=-1.0, max_seconds=0.1).samples.shape[1] == 800


def test_a_video_beside_the_sound_costs_nothing_and_times_are_the_clip_s(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as out:
        video: Any = out.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        sound: Any = out.add_stream("pcm_f32le", rate=RATE, layout="mono")
        for k in range(25):
            frame = av.VideoFrame.from_ndarray(zoo.moving_picture(k, 64, 64), format="rgb24")
            frame.pts, frame.time_base = k + 10, Fraction(1, 25)  # the pictures begin at 0.4 s
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        piece = av.AudioFrame.from_ndarray(tone(1), format="fltp", layout="mono")
        piece.sample_rate, piece.pts, piece.time_base = RATE, 0, Fraction(1, RATE)
        out.mux(sound.encode(piece))
        out.mux(sound.encode(None))
    aligned = decode_audio(tmp_path / "clip.mkv", start_seconds=0.4)
    assert np.array_equal(aligned.samples, decode_audio(tmp_path / "clip.mkv").samples[:, round(0.4 * RATE) :])
