"""`millpond index`: make an index of episodes, and the sidecars that opening the dataset will find."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from millpond._cli.options import parse_storage_options, token_of
from millpond._cli.terminal import print_lines, progress_bar
from millpond._datasets.episode_index import EpisodeByteIndex, IndexBuild
from millpond._urls import redacted, scheme_of

_TOLD_PROBLEMS = 20


def run_index(
    sources: Sequence[str],
    *,
    out: Path | None,
    storage_options: Sequence[str],
    token_env: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Build it, and say what was indexed. Values of options, tokens, and secrets of URLs are never printed."""
    options, token = parse_storage_options(storage_options), token_of(token_env)
    with progress_bar("reading headers", unit="files", quiet=quiet or as_json) as bar:
        index = EpisodeByteIndex.build(
            sources[0] if len(sources) == 1 else list(sources),
            storage_options=options or None,
            token=token,
            workers=workers,
            progress=bar.show,
        )
    built = index.built
    assert built is not None
    if out is not None:
        index.save(out)
    if as_json:
        print(json.dumps(_facts(index, built, out), indent=2))
    else:
        names = [redacted(source) if scheme_of(source) else source for source in sources]
        name = index.root or ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        print_lines(Console(), _lines(index, built, out, name))


def _facts(index: EpisodeByteIndex, built: IndexBuild, out: Path | None) -> dict[str, Any]:
    return {
        "root": index.root,
        "episodes": len(index),
        "cameras": list(index.video_keys),
        "files": built.num_files,
        "requests": built.requests,
        "bytes_fetched": built.bytes_fetched,
        "seconds": built.seconds,
        "sidecars": built.sidecars,
        "out": None if out is None else str(out),
        "problems": {str(episode): str(problem) for episode, problem in index.problems.items()},
    }


def _lines(index: EpisodeByteIndex, built: IndexBuild, out: Path | None, name: str) -> Iterator[str]:
    yield (
        f"{name}: {_count(len(index), 'episode')}, {_count(len(index.video_keys), 'camera')} "
        f"({', '.join(index.video_keys)}), {_count(built.num_files, 'video file')}"
    )
    fetched = f"{_count(built.requests, 'GET')}, {built.bytes_fetched:,} bytes" if built.requests else "no GETs"
    yield f"{fetched} in {built.seconds:.2f} s; sample tables are kept in {built.sidecars}"
    if out is not None:
        yield f"index: {out} ({out.stat().st_size:,} bytes)"
    problems = list(index.problems.items())
    for _, problem in problems[:_TOLD_PROBLEMS]:
        yield str(problem)
    if len(problems) > _TOLD_PROBLEMS:
        yield f"and {len(problems) - _TOLD_PROBLEMS} episodes more with problems; --json lists them all"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
