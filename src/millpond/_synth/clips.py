"""Clips of their own: short files in which every frame says who it is, and the sound says whose it is."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from millpond._synth.encode import Codec, Encoding, encoder_options, ordinary_priority
from millpond._synth.scene import Scene

AUDIO_ENCODERS = {"aac": "aac", "opus": "libopus", "mp3": "libmp3lame", "pcm": "pcm_s16le", "flac": "flac"}
"""FFmpeg's encoder of each kind of sound."""

AUDIO_RATE = 48_000
"""Samples per second of every sound; the one rate that all of these encoders take."""

_BLOCK_SAMPLES = 960


def tone_hz(number: int) -> float:
    """What a clip sounds like: 300 Hz and up in steps of 40, so that 50 clips can be told apart."""
    return 300.0 + 40.0 * (number % 50)


@dataclass(frozen=True)
class Recipe:
    """How a clip is made.

    Attributes:
        number: The clip's own: the episode of its pattern, and its tone.
        frames: How many.
        codec: Of the frames; None: no frames.
        audio: One of `AUDIO_ENCODERS`; None: no sound.
        gop: Frames from keyframe to keyframe.
        b_frames: Most in a row.
        fps: Frames per second.
        video_start_seconds: Time of the first frame.
        audio_start_seconds: Time of the first sample. The tone is counted from time 0, so its phase tells the time.
        channels: Of the sound, 1 or 2.
    """

    number: int
    frames: int = 24
    codec: Codec | None = "h264"
    audio: str | None = "aac"
    gop: int = 12
    b_frames: int = 0
    fps: int = 24
    video_start_seconds: float = 0.0
    audio_start_seconds: float = 0.0
    channels: int = 1

    @property
    def stop_seconds(self) -> float:
        """Where the sound ends: with the last frame."""
        return self.video_start_seconds + self.frames / self.fps


def write_clip(path: Path, scene: Scene, recipe: Recipe) -> Path:
    """Encode one clip; the suffix of `path` says the container."""
    os.environ.setdefault("SVT_LOG", "0")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        streams: list[tuple[Any, Iterator[Any]]] = []
        if recipe.codec is not None:
            streams.append((_video_stream(container, scene, recipe), _frames(scene, recipe)))
        if recipe.audio is not None:
            streams.append((_audio_stream(container, recipe), _blocks(recipe)))
        timed = (_timed(n, frames) for n, (_, frames) in enumerate(streams))
        for _, n, frame in heapq.merge(*timed, key=lambda entry: entry[:2]):
            with ordinary_priority():
                container.mux(streams[n][0].encode(frame))
        for stream, _ in streams:
            container.mux(stream.encode(None))
    return path


def _timed(stream: int, frames: Iterator[Any]) -> Iterator[tuple[float, int, Any]]:
    return ((frame.time, stream, frame) for frame in frames)


def _video_stream(container: av.container.OutputContainer, scene: Scene, recipe: Recipe) -> Any:
    assert recipe.codec is not None
    encoding = Encoding(codec=recipe.codec, gop=recipe.gop, b_frames=recipe.b_frames, fps=recipe.fps)
    name, options = encoder_options(encoding)
    stream: Any = container.add_stream(name, recipe.fps, options={**options, "g": str(recipe.gop)})
    stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
    stream.codec_context.thread_count = 1
    return stream


def _audio_stream(container: av.container.OutputContainer, recipe: Recipe) -> Any:
    assert recipe.audio is not None
    return container.add_stream(AUDIO_ENCODERS[recipe.audio], AUDIO_RATE, layout=_layout(recipe))


def _layout(recipe: Recipe) -> str:
    return "stereo" if recipe.channels == 2 else "mono"


def _frames(scene: Scene, recipe: Recipe) -> Iterator[Any]:
    tick = Fraction(1, recipe.fps)
    first = round(recipe.video_start_seconds * recipe.fps)
    for index, picture in enumerate(scene.pictures(recipe.number, 0, recipe.frames)):
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = first + index, tick
        yield frame


def tone(recipe: Recipe, start: int, stop: int) -> NDArray[np.float32]:
    """Samples `start` to `stop` from time 0, float32 (C, n): a tone that gets louder and softer four times a second."""
    seconds = np.arange(start, stop) / AUDIO_RATE
    loudness = 0.2 + 0.1 * np.sin(2 * np.pi * 4.0 * seconds)
    wave = loudness * np.sin(2 * np.pi * tone_hz(recipe.number) * seconds)
    return np.stack([wave, -wave / 2])[: recipe.channels].astype(np.float32)


def _blocks(recipe: Recipe) -> Iterator[Any]:
    start, stop = (round(s * AUDIO_RATE) for s in (recipe.audio_start_seconds, recipe.stop_seconds))
    for first in range(start, stop, _BLOCK_SAMPLES):
        samples = tone(recipe, first, min(first + _BLOCK_SAMPLES, stop))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=_layout(recipe))
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, first, Fraction(1, AUDIO_RATE)
        yield frame
