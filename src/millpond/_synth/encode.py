"""Encode many episodes into one MP4, streamed: a frame exists once, whatever the length."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.frame import PictureType

from millpond._synth.scene import Scene

Codec = Literal["av1", "h264", "hevc", "vp9"]
CODECS: tuple[Codec, ...] = ("av1", "h264", "hevc", "vp9")

MAX_B_FRAMES = 16
"""In a row: more than that neither x264 nor x265 takes."""

_AUDIO_RATE = 16_000
_AUDIO_FRAME_SAMPLES = 1024  # AAC's frame


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the videos of a dataset are made.

    Attributes:
        codec: One of `CODECS`.
        gop: Frames from keyframe to keyframe; there are no others, except as `episode_keyframes` says.
        b_frames: Most B-frames in a row. For VP9 any number above 0 lets the encoder hide reference frames; AV1
            does that by itself where the GOP is long enough.
        audio: Add an AAC tone.
        fps: Frames per second.
        episode_keyframes: Also start every episode with a keyframe, as LeRobot's own writer does.
        threads: Of one encoder.
    """

    codec: Codec = "av1"
    gop: int = 2
    b_frames: int = 0
    audio: bool = False
    fps: int = 30
    episode_keyframes: bool = False
    threads: int = 1


def encoder_options(encoding: Encoding) -> tuple[str, dict[str, str]]:
    """FFmpeg's encoder and its options: fixed GOPs, each codec at the quality that is its default (AV1: LeRobot's)."""
    gop, reorder = encoding.gop, encoding.b_frames > 0
    match encoding.codec:
        case "av1":
            # Presets 10 and up leave artefacts, as SVT itself warns: they lost pattern cells that turn from dark to
            # bright. lp bounds SVT's threads and memory.
            return "libsvtav1", {"preset": "9", "crf": "30", "svtav1-params": f"lp={encoding.threads}"}
        case "h264":
            return "libx264", {
                "preset": "veryfast",
                "bf": str(encoding.b_frames),
                "keyint_min": str(gop),
                "sc_threshold": "0",
                "x264-params": "open-gop=0:b-adapt=0",
            }
        case "hevc":
            parameters = (
                f"keyint={gop}:min-keyint={gop}:bframes={encoding.b_frames}:b-adapt=0:scenecut=0:open-gop=0"
                f":pools={encoding.threads}:frame-threads=1:log-level=error"
            )
            return "libx265", {"preset": "ultrafast", "x265-params": parameters, "forced-idr": "1"}
        case "vp9":
            return "libvpx-vp9", {
                "deadline": "realtime" if not reorder else "good",
                "cpu-used": "8",
                "crf": "32",
                "b": "0",
                "keyint_min": str(gop),
                "auto-alt-ref": str(int(reorder)),
                "lag-in-frames": "16" if reorder else "0",
            }


def encode_episodes(
    path: Path,
    scene: Scene,
    camera: int,
    episodes: Sequence[tuple[int, int]],
    encoding: Encoding,
    on_frame: Callable[[], None],
) -> None:
    """Write one MP4.

    Args:
        path: Its folder is made.
        scene: What the camera sees.
        camera: Its number in the pattern.
        episodes: (episode, frames) one after the other.
        encoding: How.
        on_frame: Called after each frame.
    """
    # What is fatal only; the one way to keep SVT-AV1 from writing to stderr, as it does when it is interrupted. What
    # FFmpeg cannot go on from is raised all the same.
    os.environ.setdefault("SVT_LOG", "0")
    path.parent.mkdir(parents=True, exist_ok=True)
    name, options = encoder_options(encoding)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(name, encoding.fps, options={**options, "g": str(encoding.gop)})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        tick = Fraction(1, encoding.fps)  # kept: the muxer replaces stream.time_base when it writes the header
        stream.time_base = tick
        stream.codec_context.thread_count = encoding.threads
        tone = _Tone(container) if encoding.audio else None
        position = 0
        for episode, num_frames in episodes:
            for index, picture in enumerate(scene.pictures(episode, camera, num_frames)):
                frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                frame.pts, frame.time_base = position, tick
                if encoding.episode_keyframes and index == 0:
                    frame.pict_type = PictureType.I
                with ordinary_priority():
                    container.mux(stream.encode(frame))
                position += 1
                if tone is not None:
                    tone.fill(position / encoding.fps)
                on_frame()
        container.mux(stream.encode(None))
        if tone is not None:
            tone.flush()


@contextlib.contextmanager
def ordinary_priority() -> Iterator[None]:
    """Undo what SVT-AV1 does to the thread that opens it: where it may, as root may, a realtime thread (SCHED_FIFO 99).

    Whatever that thread forks or starts is one, too, and when it spins it takes a core from everything else, from those
    who would end it too.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


class _Tone:
    """A 220 Hz tone beside the video."""

    def __init__(self, container: av.container.OutputContainer) -> None:
        self._container = container
        stream = container.add_stream("aac", _AUDIO_RATE, layout="mono", format="fltp")
        assert isinstance(stream, av.AudioStream)
        self._stream = stream
        self._position = 0

    def fill(self, until_seconds: float) -> None:
        while (self._position + _AUDIO_FRAME_SAMPLES) / _AUDIO_RATE <= until_seconds:
            phase = 2 * np.pi * 220.0 / _AUDIO_RATE * (self._position + np.arange(_AUDIO_FRAME_SAMPLES))
            samples = (0.2 * np.sin(phase)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = _AUDIO_RATE, self._position
            frame.time_base = Fraction(1, _AUDIO_RATE)
            self._container.mux(self._stream.encode(frame))
            self._position += _AUDIO_FRAME_SAMPLES

    def flush(self) -> None:
        self._container.mux(self._stream.encode(None))
