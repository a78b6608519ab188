"""Synthetic clips: what they show and sound like, and what making them leaves alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

import millpond
from clip_sets import SIZE, frames_shown
from millpond._synth.clip_set import CORRUPT, HANGING, clip_path, write_clip_set
from millpond._synth.clips import AUDIO_ENCODERS, Recipe, tone_hz, write_clip
from millpond._synth.scene import Scene

SUFFIXES = {"aac": ".mp4", "opus": ".webm", "mp3": ".mp3", "pcm": ".wav", "flac": ".mkv"}


@pytest.mark.parametrize("audio", AUDIO_ENCODERS)
def test_the_sound_of_a_clip_is_its_own_tone(tmp_path: Path, scene: Scene, audio: str) -> None:
    recipe = Recipe(7, codec=None, audio=audio)
    sound = millpond.load_audio(write_clip(tmp_path / f"x{SUFFIXES[audio]}", scene, recipe), sampling_rate=16_000)
    loudest = np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound))))) * 16_000 / len(sound)
    assert abs(loudest - tone_hz(7)) < 5
    assert abs(len(sound) - 16_000) < 1000


def test_times_are_where_they_were_asked_for(tmp_path: Path, scene: Scene) -> None:
    path = write_clip(tmp_path / "x.mkv", scene, Recipe(1, frames=12, video_start_seconds=0.5, audio="flac"))
    assert millpond.decode_audio(str(path)).first_seconds == 0.0
    assert frames_shown(millpond.load_video(path, times=[0.0, 0.25])) == [0, 6]


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no schedulers to tell apart")
def test_encoding_leaves_the_thread_an_ordinary_one(tmp_path: Path, scene: Scene) -> None:
    """SVT-AV1 makes it a realtime one where it may; workers that it starts would take the machine when they hang."""
    write_clip(tmp_path / "x.mp4", scene, Recipe(1, codec="av1", audio=None, frames=2))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_set_has_one_corrupt_clip_and_one_that_hangs(tmp_path: Path) -> None:
    counted: list[int] = []
    manifest = write_clip_set(tmp_path / "set", num_clips=14, size=SIZE, progress=counted.append)
    assert counted == [1] * 14
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [row["clip"] for row in rows] == list(range(14))
    paths = [manifest.parent / row["video"] for row in rows]
    assert [n for n, path in enumerate(paths) if stat.S_ISFIFO(path.stat().st_mode)] == [HANGING]
    with pytest.raises(millpond.CorruptMedia):
        millpond.load_video(paths[CORRUPT], num_frames=4)
    assert millpond.load_video(paths[0], num_frames=4).shape == (4, 3, *SIZE)


def test_a_set_is_there_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: object) -> None:
        if path.name == Path(clip_path(3)).name:
            raise RuntimeError("the disk is full")

    monkeypatch.setattr("millpond._synth.clip_set.write_clip", fail)
    with pytest.raises(RuntimeError, match="disk is full"):
        write_clip_set(tmp_path / "set", num_clips=5, size=SIZE)
    assert list(tmp_path.iterdir()) == []
