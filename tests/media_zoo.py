"""Clips of every kind that the packet path must read, made by PyAV's own encoders: no file, no command needed."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from millpond._media.frames import DecodeReport, decode_frames
from millpond._media.index import build_sample_table
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond._synth.encode import ordinary_priority

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes a page to stderr otherwise

WIDTH, HEIGHT, FRAMES, FPS = 100, 76, 50, 25
"""100 pixels make lines of 300 bytes, which the decoder pads: strides are tested throughout."""


@dataclass(frozen=True)
class Clip:
    """How to make a clip, and what its table must say."""

    name: str
    encoder: str
    options: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ".mp4"
    muxer: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    prepare: Callable[[Any], None] | None = None
    pts: Callable[[int], int] = lambda k: k
    picture: Callable[[int], NDArray[np.uint8]] | None = None
    repack: Callable[[bytes], bytes] | None = None
    finish: Callable[[bytes], bytes] | None = None
    backend: str = "packets"
    is_open_gop: bool = False
    needs_preroll: bool = False
    frames: int = FRAMES


def moving_picture(k: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Texture that moves: uint8, (H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    red = 128 + 100 * np.sin((x + 3 * k) / 9.0)
    green = 128 + 100 * np.cos((y - 2 * k) / 7.0)
    blue = (x * 2 + y * 3 + 5 * k) % 256
    noise = np.random.default_rng(k).integers(0, 24, (height, width))
    picture: NDArray[np.uint8] = np.clip(np.stack([red + noise, green, blue], -1), 0, 255).astype(np.uint8)
    return picture


@ordinary_priority()
def make(clip: Clip, folder: Path) -> Path:
    """Encode a clip into a folder."""
    path = folder / f"{clip.name}{clip.suffix}"
    with av.open(str(path), "w", options=dict(clip.muxer)) as out:
        stream: Any = out.add_stream(clip.encoder, rate=FPS, options=dict(clip.options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, clip.pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 600)
        if clip.prepare is not None:
            clip.prepare(stream)
        for k in range(clip.frames):
            frame = av.VideoFrame.from_ndarray((clip.picture or moving_picture)(k), format="rgb24")
            frame.pts, frame.time_base = 24 * clip.pts(k), Fraction(1, 600)
            for packet in stream.encode(frame):
                out.mux(_repacked(packet, clip))
        for packet in stream.encode(None):
            out.mux(_repacked(packet, clip))
    if clip.finish is not None:
        path.write_bytes(clip.finish(path.read_bytes()))
    return path


def _repacked(packet: Any, clip: Clip) -> Any:
    if clip.repack is None or not packet.is_keyframe:
        return packet
    copy: Any = av.Packet(clip.repack(bytes(packet)))
    for name in ("pts", "dts", "duration", "time_base", "stream", "is_keyframe"):
        setattr(copy, name, getattr(packet, name))
    return copy


def vp9_hidden_and_shown(key_frame: bytes) -> bytes:
    """A VP9 superframe: the key frame with its show_frame bit cleared, and a frame that shows it from slot 0."""
    hidden, shown = bytes([key_frame[0] & ~0x02]) + key_frame[1:], b"\x88"
    marker = bytes([0b110_11_001])  # two frames, sizes of four bytes
    return hidden + shown + marker + struct.pack("<II", len(hidden), len(shown)) + marker


def remux(
    source: Path,
    target: Path,
    *,
    shift_frames: int = 0,
    muxer: Mapping[str, str] | None = None,
    colour: Mapping[str, int] | None = None,
) -> Path:
    """Copy the packets of a video into another container: earlier by some frames, or with a colour of its own."""
    with av.open(str(source)) as inp, av.open(str(target), "w", options=dict(muxer or {})) as out:
        stream = inp.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for name, value in (colour or {}).items():
            setattr(copy.codec_context, name, value)
        assert stream.time_base is not None
        shift = round(shift_frames / FPS / stream.time_base)
        for packet in inp.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            out.mux(packet)
    return target


def with_co64(data: bytes, shift_bytes: int = 0) -> bytes:
    """Rewrite the 32-bit chunk offsets of an MP4 whose `moov` comes last into 64-bit ones, all later by some bytes."""

    def boxes(payload: bytes) -> bytes:
        out, at = b"", 0
        while at < len(payload):
            length, kind = struct.unpack_from(">I4s", payload, at)
            inner = payload[at + 8 : at + length]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                inner = boxes(inner)
            elif kind == b"stco":
                count = struct.unpack_from(">I", inner, 4)[0]
                offsets = struct.unpack_from(f">{count}I", inner, 8)
                kind, inner = b"co64", inner[:8] + struct.pack(f">{count}Q", *(k + shift_bytes for k in offsets))
            out += struct.pack(">I4s", len(inner) + 8, kind) + inner
            at += length
        return out

    return boxes(data)


def turned(degrees: int, hflip: bool = False, vflip: bool = False) -> Callable[[Any], None]:
    return lambda stream: stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)


def _colour(**fields: int) -> Callable[[Any], None]:
    def prepare(stream: Any) -> None:
        for name, value in fields.items():
            setattr(stream.codec_context, name, value)

    return prepare


X264 = {"preset": "veryfast", "g": "12"}
B_FRAMES = {**X264, "bf": "3", "x264-params": "scenecut=0"}
X265 = {
    "preset": "ultrafast",
    "x265-params": "log-level=none:pools=none:frame-threads=1:keyint=12:bframes=3:scenecut=0",
}
SVT = {"preset": "12", "g": "2", "svtav1-params": "lp=1"}
VPX = {"cpu-used": "8", "deadline": "realtime", "g": "16"}


def vfr(k: int) -> int:
    """Uneven times: 0, 1, 2, 5, 6, 7, 10, ..."""
    return 5 * (k // 3) + k % 3


CLIPS = (
    Clip("h264_b_frames", "libx264", B_FRAMES),
    Clip(
        "h264_open_gop",
        "libx264",
        {**X264, "x264-params": "open-gop=1:bframes=3:scenecut=0:b-adapt=0"},
        is_open_gop=True,
    ),
    Clip(
        "h264_intra_refresh",
        "libx264",
        {**X264, "x264-params": "intra-refresh=1:keyint=12:bframes=0:scenecut=0"},
        needs_preroll=True,
    ),
    Clip("hevc_closed", "libx265", {**X265, "x265-params": X265["x265-params"] + ":open-gop=0"}),
    Clip("hevc_cra", "libx265", {**X265, "x265-params": X265["x265-params"] + ":open-gop=1"}, is_open_gop=True),
    Clip("av1_gop_2", "libsvtav1", SVT),
    Clip("av1_gop_16", "libsvtav1", {**SVT, "g": "16"}),
    Clip("vp9_mp4", "libvpx-vp9", VPX),
    Clip("vp9_webm", "libvpx-vp9", VPX, suffix=".webm"),
    Clip("vp9_hidden", "libvpx-vp9", {**VPX, "error-resilient": "1"}, suffix=".webm", repack=vp9_hidden_and_shown),
    Clip("h264_10_bit", "libx264", B_FRAMES, pix_fmt="yuv420p10le"),
    Clip("hevc_10_bit", "libx265", X265, pix_fmt="yuv420p10le", is_open_gop=True),
    Clip("h264_444", "libx264", B_FRAMES, pix_fmt="yuv444p"),
    Clip("h264_full_range", "libx264", B_FRAMES, pix_fmt="yuvj420p", prepare=_colour(color_range=2)),
    Clip(
        "h264_bt709",
        "libx264",
        B_FRAMES,
        prepare=_colour(color_range=1, colorspace=1, color_primaries=1, color_trc=1),
    ),
    Clip("h264_interlaced", "libx264", {**X264, "x264-params": "tff=1:bframes=2"}),
    Clip("h264_vfr", "libx264", B_FRAMES, pts=vfr),
    Clip("h264_faststart", "libx264", B_FRAMES, muxer={"movflags": "faststart"}),
    Clip("h264_fragmented", "libx264", B_FRAMES, muxer={"movflags": "frag_keyframe+empty_moov"}),
    Clip("h264_co64", "libx264", B_FRAMES, finish=with_co64),
    Clip("h264_mov", "libx264", B_FRAMES, suffix=".mov"),
    Clip("h264_turned_90", "libx264", B_FRAMES, prepare=turned(90)),
    Clip("h264_turned_180", "libx264", B_FRAMES, prepare=turned(180)),
    Clip("h264_turned_270", "libx264", B_FRAMES, prepare=turned(270)),
    Clip("h264_mkv", "libx264", B_FRAMES, suffix=".mkv"),
    Clip("h264_turned_mkv", "libx264", B_FRAMES, suffix=".mkv", prepare=turned(90)),
    Clip("av1_mkv", "libsvtav1", SVT, suffix=".mkv"),
    Clip("h264_avi", "libx264", {**X264, "bf": "0"}, suffix=".avi"),
    Clip("h264_ts", "libx264", B_FRAMES, suffix=".ts", backend="container"),
    Clip("mjpeg_avi", "mjpeg", suffix=".avi", pix_fmt="yuvj420p", backend="container"),
    Clip("mpeg4_mp4", "mpeg4", {"g": "12", "bf": "2"}, backend="container"),
    Clip("mpeg4_avi", "mpeg4", {"g": "12"}, suffix=".avi", backend="container"),
)

BY_NAME = {clip.name: clip for clip in CLIPS}


@functools.cache
def folder() -> Path:
    """Where this process keeps its clips; gone when it ends."""
    path = Path(tempfile.mkdtemp(prefix="millpond-zoo-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def clip_path(name: str) -> Path:
    """The clip of this name, encoded at the first call. Never to be written to."""
    return make(BY_NAME[name], folder())


@functools.cache
def clip_table(name: str) -> SampleTable:
    """The sample table of a clip."""
    return build_sample_table(clip_path(name))


def reference(path: Path, limit: int | None = None, stream: int = 0) -> list[NDArray[np.uint8]]:
    """PyAV's own decode of a file, front to back, each frame upright: uint8, (H, W, 3)."""
    pictures: list[NDArray[np.uint8]] = []
    with av.open(str(path)) as container:
        container.streams.video[stream].codec_context.thread_count = 1
        for frame in container.decode(video=stream):
            picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            pictures.append(np.rot90(picture, frame.rotation // 90).copy())
            if len(pictures) == limit:
                break
    return pictures


@functools.cache
def clip_reference(name: str) -> tuple[NDArray[np.uint8], ...]:
    """The reference pictures of a clip."""
    return tuple(reference(clip_path(name)))


def read(
    path: Path, table: SampleTable, frames: list[int] | None = None, **options: Any
) -> tuple[dict[int, NDArray[np.uint8]], DecodeReport]:
    """Decode frames (all by default) in one call: what was written, by position, and the report."""
    got: dict[int, NDArray[np.uint8]] = {}
    wanted = np.arange(table.num_frames) if frames is None else np.array(frames, np.int64)
    with VideoFile(path, table) as file:
        report = decode_frames(file, wanted, lambda j, picture: got.__setitem__(j, picture.copy()), **options)
    return got, report
