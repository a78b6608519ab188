"""Folders that are there as a whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millpond._synth.request import is_left_over

UNFINISHED = ".unfinished"
"""A folder is written beside its place, in a folder with this ending, and moved there when it is whole."""


@contextmanager
def written_beside(root: Path) -> Iterator[Path]:
    """Give a folder to write to; it becomes `root` if all went well, and is removed if not."""
    place = root.resolve()
    unfinished = place.with_name(place.name + UNFINISHED)
    if is_left_over(unfinished):
        shutil.rmtree(unfinished)
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise type(error)(f"'{root}' cannot be made: '{unfinished}': {error.strerror}") from error
    try:
        yield unfinished
        _move(unfinished, place)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _move(unfinished: Path, place: Path) -> None:
    if not place.exists():
        unfinished.rename(place)
        return
    for folder in sorted(unfinished.iterdir()):  # an empty folder stays the same one: somebody may stand in it
        folder.rename(place / folder.name)
    unfinished.rmdir()
