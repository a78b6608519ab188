"""The clips of the clip bench: made for it, or those of a folder; what is wanted of each, by a decode of its own; and
what becomes of them on the way from a web site to a disk.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from _clip_checks import SQUARE
from millpond._synth.clips import Recipe, write_clip
from millpond._synth.scene import Scene

SIZES = ((360, 640), (480, 640), (640, 360))
"""(height, width) of clips that are made."""
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")

_RECIPES: tuple[Callable[..., Recipe], ...] = (
    partial(Recipe, codec="h264", gop=48),
    partial(Recipe, codec="h264", gop=250, b_frames=2),
    partial(Recipe, codec="av1", audio="opus", gop=60),
    partial(Recipe, codec="h264", gop=24, b_frames=2),
)


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip, and what is wanted of it.

    Attributes:
        path: Where it lies.
        indices: Frames, as they are shown.
        seconds: A time at which each is shown, half of its length after it begins.
        start_seconds: When the first frame of the clip is shown.
        reference: uint8 (T, 3, h, w, 3), `off_by`'s.
    """

    path: Path
    indices: list[int]
    seconds: list[float]
    start_seconds: float
    reference: NDArray[np.uint8]


def write_clips(folder: Path, num_clips: int, sizes: Sequence[tuple[int, int]] = SIZES, seconds: int = 2) -> list[Path]:
    """Clips of `seconds` and more, 24 frames a second, as sites hold them: H.264 with long GOPs, AV1, sound."""
    scenes = [Scene(*size, seed=number) for number, size in enumerate(sizes)]
    paths = []
    for number in range(num_clips):
        recipe = _RECIPES[number % len(_RECIPES)](number, frames=24 * seconds + 9 * (number % 5))
        paths.append(write_clip(folder / f"{number:03}.mp4", scenes[number % len(scenes)], recipe))
    return paths


def look_at(path: Path, num_frames: int, size: tuple[int, int]) -> Clip | None:
    """Choose frames spread evenly, none twice, and decode them front to back with PyAV and Pillow.

    Returns:
        None if the clip has fewer frames.
    """
    times = frame_seconds(path)
    if len(times) < num_frames:
        return None
    indices = ((np.arange(num_frames) + 0.5) * len(times) / num_frames).astype(int).tolist()
    around = sorted({min(max(i + step, 0), len(times) - 1) for i in indices for step in (-1, 0, 1)})
    height, width = size
    pictures: dict[int, NDArray[np.uint8]] = {}
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(container.streams.best("video"))):  # type: ignore[arg-type]
            if number in around:
                picture = Image.fromarray(frame.to_ndarray(format="rgb24"))  # type: ignore[union-attr]
                pictures[number] = np.asarray(picture.resize((width // SQUARE, height // SQUARE), Image.Resampling.BOX))
    last = len(times) - 1
    reference = [[pictures[min(max(i + step, 0), last)] for step in (-1, 0, 1)] for i in indices]
    shown = times + np.median(np.diff(times)) / 2
    return Clip(path, indices, shown[indices].tolist(), float(times[0]), np.array(reference, np.uint8))


def frame_seconds(path: Path) -> NDArray[np.float64]:
    """When each frame is shown, by the container."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        times = [float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.size]
    return np.sort(np.array(times, np.float64))


def write_rows(folder: Path, clips: Sequence[Clip], repeats: int = 1, url: str = "") -> None:
    """Say what is wanted, `repeats` times over: for millpond `manifest.jsonl`, for the others `rows.json`, and the
    pictures that they must show, `reference.npy`. With `url`, clips are there, by their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "path": f"{url}/{clip.path.name}" if url else str(clip.path),
            "clip": number,
            "frames": clip.indices,
            "seconds": clip.seconds,
        }
        for number, clip in enumerate(clips)
    ] * repeats
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    starts = [clip.start_seconds for clip in clips] * repeats
    lines = [
        {"video": row["path"], "clip": row["clip"], "seconds": [round(s - start, 6) for s in row["seconds"]]}
        for row, start in zip(rows, starts, strict=True)
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    np.save(folder / "reference.npy", np.stack([clip.reference for clip in clips]))


def write_shards(folder: Path, clips: Sequence[Clip], num_shards: int, repeats: int) -> list[str]:
    """The same clips, `repeats` times over, as WebDataset has them: tars of NAME.mp4 and NAME.json. Their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(enumerate(clips)) * repeats
    names = [f"shard-{number:03}.tar" for number in range(num_shards)]
    for shard, name in enumerate(names):
        with tarfile.open(folder / name, "w") as tar:
            for place, (number, clip) in list(enumerate(rows))[shard::num_shards]:
                wanted = {"clip": number, "frames": clip.indices, "seconds": clip.seconds}
                _add(tar, f"{place:06}.mp4", clip.path.read_bytes())
                _add(tar, f"{place:06}.json", json.dumps(wanted).encode())
    return names


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))


def cut_short(data: bytes) -> bytes:
    """A download that broke off; an MP4 that ends in its index loses it."""
    return data[: len(data) // 2]


def with_hole(data: bytes) -> bytes:
    """A block that never reached the disk: zeros, in the middle of the pictures."""
    start = len(data) // 3
    return data[:start] + bytes(4096) + data[start + 4096 :]


def with_flipped_bits(data: bytes) -> bytes:
    """A bit in each 2 KiB."""
    changed = bytearray(data)
    for at in range(2048, len(data) // 2, 2048):
        changed[at] ^= 16
    return bytes(changed)


def with_a_flipped_bit(data: bytes) -> bytes:
    """In the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]


def page_instead(data: bytes) -> bytes:
    """The server's words, saved as a clip."""
    return b"<!DOCTYPE html><html><body><h1>429 Too Many Requests</h1></body></html>\n"


def nothing(data: bytes) -> bytes:
    return b""


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": cut_short,
    "with a hole": with_hole,
    "with flipped bits": with_flipped_bits,
    "with a flipped bit": with_a_flipped_bit,
    "a page instead": page_instead,
    "empty": nothing,
}


def damaged(clips: Sequence[Clip], folder: Path) -> dict[Clip, int]:
    """Copies of the first clips, each damaged in every way, and the numbers of their originals."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, clip in enumerate(clips[: len(_RECIPES)]):
        for kind, damage in DAMAGE.items():
            path = folder / f"{number}-{kind.replace(' ', '-')}{clip.path.suffix}"
            path.write_bytes(damage(clip.path.read_bytes()))
            found[replace(clip, path=path)] = number
    return found


def never_opening(clip: Clip, folder: Path) -> Clip:
    """A file whose opening waits for ever, as on a network file system that is gone: a FIFO that nobody writes to."""
    path = folder / f"never{clip.path.suffix}"
    os.mkfifo(path)
    return replace(clip, path=path)
