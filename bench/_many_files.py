"""Thousands of MP4 files that are distinct to whoever opens them, and few on the disk: hard links of small clips."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av

from millpond._synth import write_dataset

CAMERAS = ("observation.images.front", "observation.images.wrist")
SMALL_BYTES = 2 << 20
"""A video up to so large is taken as it is; of a larger one clips are cut."""
CLIP_FRAMES = 100
CLIPS_PER_FILE = 4
_SYNTH: dict[str, Any] = {"episodes": 2, "cameras": 2, "episodes_per_file": 1, "codec": "av1", "gop": 2}


@dataclass(frozen=True)
class Clip:
    """One file that is linked to.

    Attributes:
        codec: As FFmpeg calls it.
        size: "640x480".
        num_bytes: Of the file.
        num_frames: That it has.
        keyframes: So many of them.
    """

    codec: str
    size: str
    num_bytes: int
    num_frames: int
    keyframes: int


@dataclass(frozen=True)
class ManyFiles:
    """What was made.

    Attributes:
        paths: Distinct ones, episode by episode, a file for each of two cameras.
        clip_of: For each, the number of the clip that it is.
        seconds: For each clip, when its frames are shown.
        clips: What they are.
        how: "hard links" or "copies".
    """

    paths: list[str]
    clip_of: list[int]
    seconds: list[list[float]]
    clips: list[Clip]
    how: str

    def facts(self) -> dict[str, Any]:
        return {"files": len(self.paths), "how": self.how, "clips": [asdict(clip) for clip in self.clips]}


def make_many_files(folder: Path, count: int, sources: Sequence[Path], *, synth: dict[str, Any]) -> ManyFiles:
    """Fill a folder.

    Args:
        folder: It is there, and somebody else removes it.
        count: Files.
        sources: LeRobot datasets that clips are taken from; none: one is synthesized.
        synth: `frames` and `size` of that.
    """
    if not sources:
        write_dataset(folder / "synth", **(_SYNTH | synth))
        sources = [folder / "synth"]
    (folder / "clips").mkdir()
    clips: list[Path] = []
    for source in sources:
        for video in sorted((source / "videos").rglob("*.mp4")):
            clips += _clips_of(video, folder / "clips", len(clips))
    if not clips:
        raise SystemExit(f"no MP4 below {', '.join(str(source / 'videos') for source in sources)}")
    paths, how = [], "hard links"
    for number in range(count):
        episode, camera = divmod(number, len(CAMERAS))
        path = folder / "videos" / CAMERAS[camera] / f"chunk-{episode // 1000:03d}" / f"file-{episode % 1000:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(clips[number % len(clips)], path)
        except OSError:  # a file system without hard links, or one that allows few of them
            shutil.copyfile(clips[number % len(clips)], path)
            how = "copies"
        paths.append(str(path))
    looked = [_look_at(clip) for clip in clips]
    return ManyFiles(
        paths=paths,
        clip_of=[number % len(clips) for number in range(count)],
        seconds=[seconds for _, seconds in looked],
        clips=[clip for clip, _ in looked],
        how=how,
    )


def _clips_of(video: Path, folder: Path, number: int) -> list[Path]:
    """A small video itself, copied: the source may lie on another file system, and keeps its number of links."""
    if video.stat().st_size <= SMALL_BYTES:
        return [Path(shutil.copyfile(video, folder / f"{number:04d}.mp4"))]
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        pieces = itertools.islice(_pieces(container.demux(stream)), CLIPS_PER_FILE)
        return [_write(piece, stream, folder / f"{number + k:04d}.mp4") for k, piece in enumerate(pieces)]


def _pieces(packets: Iterable[av.Packet]) -> Iterator[list[av.Packet]]:
    """Whole GOPs, CLIP_FRAMES packets or a few more."""
    piece: list[av.Packet] = []
    for packet in packets:
        if packet.is_keyframe and len(piece) >= CLIP_FRAMES:
            yield piece
            piece = []
        if packet.dts is not None:
            piece.append(packet)
    yield piece


def _write(packets: list[av.Packet], stream: av.VideoStream, target: Path) -> Path:
    """As they are, from time 0."""
    began = packets[0].pts
    with av.open(str(target), "w", options={"movflags": "faststart"}) as container:
        cut = container.add_stream_from_template(stream, opaque=True)  # libdav1d, for one, is no encoder
        for packet in packets:
            packet.pts, packet.dts = packet.pts - began, packet.dts - began
            packet.stream = cut
            container.mux(packet)
    return target


def _look_at(path: Path) -> tuple[Clip, list[float]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        packets = [packet for packet in container.demux(stream) if packet.size]
        seconds = sorted(float(packet.pts * stream.time_base) for packet in packets if packet.pts is not None)
        clip = Clip(
            codec=stream.codec_context.codec.canonical_name,
            size=f"{stream.width}x{stream.height}",
            num_bytes=path.stat().st_size,
            num_frames=len(packets),
            keyframes=sum(packet.is_keyframe for packet in packets),
        )
    return clip, seconds
