"""Tiny whole files of every format, to be damaged: made by PyAV's and Pillow's encoders, every video frame signed."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from millpond._synth.encode import ordinary_priority
from millpond._synth.pattern import draw_pattern

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes a page to stderr otherwise

SIDE = 64
"""Pixels of a video frame's side: the least that the pattern needs."""
FRAMES, GOP, FPS = 24, 8, 25
RATE = 16_000

Media = Literal["video", "audio", "image"]


@dataclass(frozen=True, slots=True)
class Format:
    """How to make a file.

    Attributes:
        name: Codec and container.
        media: What `millpond.load_...` reads it with.
        kind: Its container, a key of `corruption_headers.MUTATORS`.
        encoder: FFmpeg's, or Pillow's.
        muxer: FFmpeg's.
        options: Of the encoder.
        muxing: Options of the muxer.
        sound: Video also has a track of sound.
    """

    name: str
    media: Media
    kind: str
    encoder: str
    muxer: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    muxing: Mapping[str, str] = field(default_factory=dict)
    sound: bool = False


_X264 = {"preset": "veryfast", "qp": "28", "x264-params": f"threads=1:keyint={GOP}:scenecut=0:bframes=2:open-gop=0"}
_X264_OPEN = {
    **_X264,
    "x264-params": f"threads=1:keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=3:b-adapt=0:open-gop=1",
}
_X265 = {
    "preset": "ultrafast",
    "x265-params": f"log-level=none:pools=none:frame-threads=1:keyint={GOP}:min-keyint={GOP}:bframes=2:scenecut=0"
    ":open-gop=0",
}
_SVT = {"preset": "9", "crf": "35", "g": str(GOP), "svtav1-params": "lp=1"}
_VPX = {"cpu-used": "8", "deadline": "realtime", "g": str(GOP), "crf": "36", "b": "0"}
_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}

FORMATS: dict[str, Format] = {
    made.name: made
    for made in (
        Format("h264_mp4", "video", "mp4", "libx264", "mp4", _X264),
        Format("h264_open_mp4", "video", "mp4", "libx264", "mp4", _X264_OPEN, {"movflags": "faststart"}),
        Format("h264_sound_mp4", "video", "mp4", "libx264", "mp4", _X264, sound=True),
        Format("h264_fragmented", "video", "mp4", "libx264", "mp4", _X264, _FRAGMENTED),
        Format("h264_mkv", "video", "matroska", "libx264", "matroska", _X264, {"write_crc32": "0"}),
        Format("h264_ts", "video", "ts", "libx264", "mpegts", _X264),
        Format("hevc_mp4", "video", "mp4", "libx265", "mp4", _X265),
        Format("hevc_mkv", "video", "matroska", "libx265", "matroska", _X265),
        Format("av1_mp4", "video", "mp4", "libsvtav1", "mp4", _SVT),
        Format("av1_webm", "video", "matroska", "libsvtav1", "webm", _SVT),
        Format("vp9_mp4", "video", "mp4", "libvpx-vp9", "mp4", _VPX),
        Format("vp9_webm", "video", "matroska", "libvpx-vp9", "webm", _VPX),
        Format("aac_mp4", "audio", "mp4", "aac", "mp4"),
        Format("aac_adts", "audio", "mpeg_audio", "aac", "adts"),
        Format("opus_ogg", "audio", "ogg", "libopus", "ogg"),
        Format("opus_webm", "audio", "matroska", "libopus", "webm"),
        Format("mp3", "audio", "mpeg_audio", "libmp3lame", "mp3"),
        Format("wav", "audio", "wav", "pcm_s16le", "wav"),
        Format("jpeg", "image", "jpeg", "JPEG"),
        Format("jpeg_progressive", "image", "jpeg", "JPEG", options={"progressive": "1"}),
        Format("png", "image", "png", "PNG"),
        Format("png_palette", "image", "png", "PNG", options={"palette": "1"}),
    )
}


def make(wanted: Format) -> bytes:
    """The bytes of a whole file: 24 frames, 0.6 s of sound, or one picture."""
    if wanted.media == "image":
        return _make_image(wanted)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"  # a file with a name: faststart reads it again
        _encode(wanted, path)
        return path.read_bytes()


def _encode(wanted: Format, path: Path) -> None:
    options = {"fflags": "+bitexact", **wanted.muxing}
    with ordinary_priority(), av.open(str(path), "w", format=wanted.muxer, options=options) as out:
        if wanted.media == "audio" or wanted.sound:
            sound = out.add_stream("aac" if wanted.sound else wanted.encoder, rate=RATE, layout="mono")
            if wanted.media == "audio":
                _encode_sound(out, sound)
        if wanted.media == "video":
            _encode_pictures(out, wanted)
            if wanted.sound:
                _encode_sound(out, sound)


def signed_picture(frame: int) -> NDArray[np.uint8]:
    """A frame as yuv420p, uint8 (96, 64): texture that moves, and in its upper left quarter the frame's number."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    luma = np.asarray(120 + 60 * np.sin((x + 3 * frame) / 7.0) + 20 * np.cos((y - 2 * frame) / 5.0), np.uint8)
    draw_pattern(luma, 0, 0, frame)
    chroma = np.full((SIDE // 2, SIDE), 128, np.uint8)
    chroma[:, SIDE // 4 : SIDE // 2] += np.uint8(2 * frame % 64)
    return np.concatenate([luma, chroma])


def _encode_pictures(out: Any, wanted: Format) -> None:
    stream = out.add_stream(wanted.encoder, rate=FPS, options=dict(wanted.options))
    stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
    stream.codec_context.thread_count = 1
    for number in range(FRAMES):
        frame = av.VideoFrame.from_ndarray(signed_picture(number), format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def _encode_sound(out: Any, stream: Any) -> None:
    seconds = np.arange(int(0.6 * RATE)) / RATE
    chirp = 0.4 * np.sin(2 * np.pi * (200 + 900 * seconds) * seconds)
    noise = np.random.default_rng(0).normal(0, 0.05, len(seconds))
    samples = ((chirp + noise) * 32767).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    resampler = av.AudioResampler(stream.format.name, "mono", stream.rate, frame_size=stream.frame_size or 1024)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


def _make_image(wanted: Format) -> bytes:
    y, x = np.mgrid[0:48, 0:SIDE]
    picture = Image.fromarray(np.stack([x * 4, y * 5, (x * y) % 256], -1).astype(np.uint8))
    if wanted.options.get("palette"):
        picture = picture.convert("P")
    file = io.BytesIO()
    picture.save(file, wanted.encoder, progressive=bool(wanted.options.get("progressive")))
    return file.getvalue()
