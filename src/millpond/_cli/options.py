"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

DatasetPath = Annotated[Path, typer.Argument(help="Folder of a LeRobot v3.0 dataset (it holds meta/info.json).")]
Memory = Annotated[str, typer.Option(help="Budget for everything that the loader holds, such as 2GiB.")]
BatchSize = Annotated[int, typer.Option(help="Samples of a batch.", min=1)]
NumWorkers = Annotated[int | None, typer.Option(help="Decoding processes; one per core if not given.", min=0)]
ImageSize = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the delivered pictures; their own if not given.")]
Seed = Annotated[int, typer.Option(help="Of the order.")]


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from "640x480", which is width x height as people write it."""
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write WIDTHxHEIGHT, such as 640x480")
    return int(match[2]), int(match[1])


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """(height, width), or None."""
    return None if text is None else parse_size(text)
