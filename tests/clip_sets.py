"""What tests say of the clips of `fixtures_clips`: how they are made, and what an independent decode makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from millpond import AudioOptions, ClipDataset, Loader, VideoOptions
from millpond._synth import read_pattern
from millpond._synth.clips import Recipe

SIZE = (96, 128)
RATE = 16_000
SOUND = AudioOptions(sampling_rate=RATE)
FOUR_FRAMES = VideoOptions(num_frames=4, image_size=(64, 80))

RECIPES: dict[str, Recipe] = {
    "h264.mp4": Recipe(0, frames=30),
    "b-frames.mp4": Recipe(1, frames=25, b_frames=2, gop=10),
    "av1.mp4": Recipe(2, frames=16, codec="av1", audio="opus", gop=8),
    "vp9.webm": Recipe(3, frames=20, codec="vp9", audio="opus"),
    "flac.mkv": Recipe(4, frames=36, audio="flac"),
    "late-sound.mp4": Recipe(5, frames=24, audio_start_seconds=0.3),
    "early-sound.mp4": Recipe(6, frames=24, video_start_seconds=0.5),
    "short.mp4": Recipe(7, frames=3),
    "mp3.ts": Recipe(8, frames=24, audio="mp3"),
    "stereo.mp4": Recipe(9, frames=24, channels=2, fps=12),
}
"""One clip each of what a clip may be like; the number is in every frame."""

NAMES = list(RECIPES)


def write_manifest(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(names: Sequence[str] = NAMES) -> list[dict[str, Any]]:
    """A manifest's rows for some of the clips."""
    return [{"video": name, "number": RECIPES[name].number, "caption": f"this is {name}"} for name in names]


def open_clips(manifest: Path, **options: Any) -> ClipDataset:
    """Open with a cache of its own beside the manifest."""
    return ClipDataset(manifest, **{"cache_dir": manifest.parent / "cache", **options})


def make_loader(dataset: ClipDataset, **changes: Any) -> Loader:
    options: dict[str, Any] = {"batch_size": 4, "num_workers": 0, "memory": "300MiB", "output": "numpy"} | changes
    return Loader(dataset, **options)


@dataclass(frozen=True)
class Reference:
    """A clip decoded front to back through its container.

    Attributes:
        pictures: uint8 (H, W, 3) each.
        seconds: When each is shown, from the first on.
        sound: float32 (n,), aligned to the first frame.
    """

    pictures: list[NDArray[np.uint8]]
    seconds: NDArray[np.float64]
    sound: NDArray[np.float32]


def reference(path: Path) -> Reference:
    """Decode a clip with PyAV alone."""
    with av.open(str(path)) as container:
        frames: list[tuple[Any, Any]] = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    frames.sort(key=lambda entry: entry[0])
    seconds = np.asarray([time for time, _ in frames], np.float64)
    return Reference([picture for _, picture in frames], seconds - seconds[0], reference_sound(path, float(seconds[0])))


def reference_sound(path: Path, start_seconds: float | None) -> NDArray[np.float32]:
    """The sound of a file, mono at `RATE`, from a time on."""
    resampler = av.AudioResampler("fltp", "mono", RATE)
    parts, first = [], None
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            first = frame.time if first is None else first
            parts += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    sound = np.concatenate(parts)
    shift = 0 if start_seconds is None else round(((first or 0.0) - start_seconds) * RATE)
    return np.concatenate((np.zeros(max(shift, 0), np.float32), sound[max(-shift, 0) :]))


def numbers_shown(video: NDArray[np.uint8]) -> set[int]:
    """The clips that frames (T, 3, H, W) say they are of."""
    return {read_pattern(np.moveaxis(picture, 0, -1))[0] for picture in np.asarray(video)}


def frames_shown(video: NDArray[np.uint8]) -> list[int]:
    """The frames of their clip that frames (T, 3, H, W) say they are."""
    return [read_pattern(np.moveaxis(picture, 0, -1))[2] for picture in np.asarray(video)]


def take(loader: Loader) -> list[int]:
    """The numbers of the samples of an epoch, each checked against its frames."""
    seen: list[int] = []
    for batch in loader:
        for row, number in enumerate(batch["number"].tolist()):
            length = int(batch["video_length"][row]) if "video_length" in batch else None
            assert numbers_shown(batch["video"][row][:length]) == {number}
            seen.append(number)
    return seen
