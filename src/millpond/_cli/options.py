"""Options that several commands share, and how what they say is checked: before any work, with exit code 2."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

DEMO_DATA = Path("demo-data")
"""Where `millpond demo` makes a dataset of its own."""

DEMO_CLIPS = Path("demo-clips")
"""Where `millpond demo --clips` makes a set of clips."""


_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")
"""As a path shows it, which has one slash where there were two."""


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from "640x480", which is width x height as people write it."""
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write WIDTHxHEIGHT, such as 640x480")
    return int(match[2]), int(match[1])


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """(height, width), or None."""
    return None if text is None else parse_size(text)


def check_size(text: str | None) -> str | None:
    """Give the text back if it is a size of pictures."""
    parse_image_size(text)
    return text


def check_memory(text: str) -> str:
    """Give the text back if it is a number of bytes."""
    from millpond._amounts import parse_bytes

    try:
        parse_bytes(text)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    return text


def check_local(path: Path | None) -> Path | None:
    """Give a path back that is no URL."""
    if path is not None and _URL.match(str(path)) and not path.exists():
        raise typer.BadParameter(f"'{path}' looks like a URL, and this takes a folder of this machine")
    return path


def check_report_place(path: Path | None) -> Path | None:
    """Give the path back if a file can be written there."""
    if path is None:
        return None
    folder = path.parent
    if not folder.is_dir():
        raise typer.BadParameter(f"'{path}' cannot be written: there is no folder '{folder}'")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise typer.BadParameter(f"'{path}' cannot be written: it is a folder, or you may not write there")
    return path


DatasetPath = Annotated[
    Path,
    typer.Argument(help="Folder of a LeRobot v3.0 dataset (it holds meta/info.json).", callback=check_local),
]
DatasetPlace = Annotated[
    str,
    typer.Argument(
        help="Folder of a LeRobot v3.0 dataset (it holds meta/info.json), or its URL, such as s3://bucket/pusht.",
        show_default=False,
    ),
]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        help="How the store is reached, such as endpoint_url=http://localhost:9000; may be repeated. Better leave "
        "secrets to the environment: others may see what is typed here.",
        metavar="KEY=VALUE",
        show_default=False,
    ),
]
TokenEnv = Annotated[str | None, typer.Option(help="The environment variable that holds a token.", metavar="NAME")]
Memory = Annotated[
    str, typer.Option(help="Budget for everything that the loader holds, such as 2GiB.", callback=check_memory)
]
BatchSize = Annotated[int, typer.Option(help="Samples of a batch.", min=1)]
NumWorkers = Annotated[int | None, typer.Option(help="Decoding processes; one per core if not given.", min=0)]
ImageSize = Annotated[
    str | None,
    typer.Option(help="WIDTHxHEIGHT of the delivered pictures; their own if not given.", callback=check_size),
]
Seed = Annotated[int, typer.Option(help="Of the order.")]

_KEYWORDS = (
    "batch_size",
    "chunk_size",
    "engine",
    "image_size",
    "jobs_key",
    "max_rss",
    "memory",
    "name_key",
    "num_workers",
    "on_error",
    "out",
    "parallel",
    "retries",
)
_SWITCHES = re.compile(r"\b(allow_changes|resume)=True\b")
_KEYWORD = re.compile(rf"(?<![\w/'\"-])({'|'.join(_KEYWORDS)})=(\w?)")


def as_options(message: str) -> str:
    """A message of the loader or the dataset as the command line says it: `image_size=` is `--image-size` here."""

    def option(match: re.Match[str]) -> str:
        value = match[2] and f" {match[2]}"
        return f"--{match[1].replace('_', '-')}{value}"

    as_switches = _SWITCHES.sub(lambda match: f"--{match[1].replace('_', '-')}", message)
    return _KEYWORD.sub(option, as_switches)


def parse_storage_options(texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs; a dot in the key leads into a table (client_kwargs.region_name=x); true and false are such."""
    options: dict[str, Any] = {}
    for number, text in enumerate(texts, 1):
        key, mark, value = text.partition("=")
        if not mark or not key or not all(key.split(".")):
            # what stands there may be a secret, and is not repeated
            raise typer.BadParameter(
                f"the {number}. --storage-option is not KEY=VALUE, such as endpoint_url=http://localhost:9000",
                param_hint="'--storage-option'",
            )
        *folders, name = key.split(".")
        table = options
        for folder in folders:
            table = table.setdefault(folder, {})
            if not isinstance(table, dict):
                raise typer.BadParameter(f"{folder!r} is a value and a table", param_hint="'--storage-option'")
        table[name] = {"true": True, "false": False}.get(value.lower(), value)
    return options


def token_of(variable: str | None) -> str | None:
    """What an environment variable holds; None where none is named."""
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        # somebody may have given the token itself
        raise typer.BadParameter(
            "give the name of an environment variable that holds the token: there is none of this name",
            param_hint="'--token-env'",
        )
    return token
