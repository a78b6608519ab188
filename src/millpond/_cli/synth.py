"""`millpond synth`: make a dataset whose every frame carries its identity."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millpond._cli.options import parse_size
from millpond._synth.encode import CODECS
from millpond._synth.writer import write_dataset


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make; it must not be there yet.")],
    episodes: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
    frames: Annotated[int, typer.Option(help="Frames of each episode.", min=1)] = 100,
    cameras: Annotated[int, typer.Option(help="Cameras kept as video.", min=0)] = 2,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT.")] = "640x480",
    codec: Annotated[str, typer.Option(help=f"One of {', '.join(CODECS)}.")] = "av1",
    gop: Annotated[int, typer.Option(help="Frames from keyframe to keyframe.", min=1)] = 2,
    b_frames: Annotated[int, typer.Option(help="Most B-frames in a row.", min=0)] = 0,
    audio: Annotated[bool, typer.Option(help="Add an audio track to the videos.")] = False,
    fps: Annotated[int, typer.Option(help="Frames a second.", min=1)] = 30,
    episodes_per_file: Annotated[int | None, typer.Option(help="All in one file if not given.", min=1)] = None,
    image_features: Annotated[int, typer.Option(help="Cameras kept as PNG in parquet.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the pictures and the numbers.")] = 0,
) -> None:
    """Make a LeRobot v3.0 dataset in which every frame carries a machine-readable (episode, camera, frame)."""
    if codec not in CODECS:
        raise typer.BadParameter(f"{codec!r} is none of {', '.join(CODECS)}")
    began = time.monotonic()
    write_dataset(
        out,
        episodes=episodes,
        frames=frames,
        cameras=cameras,
        size=parse_size(size),
        codec=codec,
        gop=gop,
        b_frames=b_frames,
        audio=audio,
        fps=fps,
        episodes_per_file=episodes_per_file,
        image_features=image_features,
        seed=seed,
    )
    size_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    Console().print(
        f"{out}: {episodes} episodes, {episodes * frames} frames, {cameras + image_features} cameras, "
        f"{size_bytes / 1e6:.1f} MB in {time.monotonic() - began:.1f} s"
    )
