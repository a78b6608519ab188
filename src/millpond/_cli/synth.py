"""`millpond synth`: make a dataset whose every frame carries its identity."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from millpond._synth.encode import CODECS
from millpond._synth.writer import write_dataset


def run_synth(
    out: Path, *, episodes: int, frames: int, videos: int, image_features: int, codec: str, **others: Any
) -> None:
    """Make it, and say what it became.

    Args:
        out: Folder to make.
        episodes: How many.
        frames: Of each.
        videos: Cameras kept as video.
        image_features: Further cameras, kept as PNG in parquet.
        codec: Of the videos.
        others: As `write_dataset` takes them.
    """
    if codec not in CODECS:
        raise typer.BadParameter(f"{codec!r} is none of {', '.join(CODECS)}", param_hint="'--codec'")
    began = time.monotonic()
    cameras = videos + image_features
    write_dataset(
        out, episodes=episodes, frames=frames, cameras=cameras, image_features=image_features, codec=codec, **others
    )
    size_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    kinds = f"{cameras} cameras" + (f" ({image_features} as PNG in parquet)" if image_features else "")
    Console().print(
        f"{out}: {episodes} episodes, {episodes * frames} frames, {kinds}, "
        f"{size_bytes / 1e6:.1f} MB in {time.monotonic() - began:.1f} s",
        markup=False,
        soft_wrap=True,
    )
