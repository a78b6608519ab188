"""A small set of clips with a manifest, for `millpond demo --clips`: one of them is corrupt, one hangs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from millpond._synth.beside import written_beside
from millpond._synth.clips import Recipe, write_clip
from millpond._synth.request import check_place
from millpond._synth.scene import Scene

MANIFEST = "manifest.jsonl"
CORRUPT, HANGING = 7, 13
"""Which clips are bad."""

_PLACES = ("a kitchen", "a street", "a workshop", "a beach")
_MOVES = ("from the left", "from above", "slowly", "twice")
_HOLE_BYTES = 512


def write_clip_set(
    out: Path,
    *,
    num_clips: int = 24,
    size: tuple[int, int] = (144, 192),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write clips of one to two seconds, H.264 with AAC and AV1 with Opus in turn, and their manifest.

    The set is there as a whole or not at all. Clip `CORRUPT` has a hole of zeros where its first picture was. Clip
    `HANGING` is a FIFO that nobody writes to: opening it waits for ever, as on a network file system that is gone.

    Args:
        out: The folder to make; it must not exist, or be empty.
        num_clips: More than `HANGING`.
        size: (height, width), even, at least 64 x 64.
        seed: Of the pictures.
        progress: Called with 1 per clip.

    Returns:
        The manifest: columns `video`, `clip` and `caption`.
    """
    check_place(out)
    with written_beside(out) as unfinished:
        _write_clips(unfinished, num_clips, Scene(*size, seed=seed), progress or (lambda _: None))
        rows = "".join(json.dumps(_row(number)) + "\n" for number in range(num_clips))
        (unfinished / MANIFEST).write_text(rows, encoding="utf-8")
    return out / MANIFEST


def clip_path(number: int) -> str:
    """Where a clip lies, from the manifest on."""
    return f"clips/{number:03}.mp4"


def _row(number: int) -> dict[str, Any]:
    caption = f"{_PLACES[number % len(_PLACES)]}, seen {_MOVES[number // len(_PLACES) % len(_MOVES)]}"
    return {"video": clip_path(number), "clip": number, "caption": caption}


def _recipe(number: int) -> Recipe:
    frames = 24 + 5 * (number % 6)
    if number % 2 and number != CORRUPT:
        return Recipe(number, frames=frames, codec="av1", audio="opus")
    return Recipe(number, frames=frames)


def _write_clips(folder: Path, num_clips: int, scene: Scene, progress: Callable[[int], None]) -> None:
    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="millpond-synth")
    try:
        jobs = [partial(_write_one, folder / clip_path(number), scene, number) for number in range(num_clips)]
        for done in [pool.submit(job) for job in jobs]:
            done.result()
            progress(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _write_one(path: Path, scene: Scene, number: int) -> None:
    if number == HANGING:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        return
    write_clip(path, scene, _recipe(number))
    if number == CORRUPT:
        _tear(path)


def _tear(path: Path) -> None:
    """Put zeros where the first picture is."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4 + _HOLE_BYTES
    data[start : start + _HOLE_BYTES] = bytes(_HOLE_BYTES)
    path.write_bytes(data)
