"""Folders that are there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millpond._locks import lock_soon
from millpond._synth.request import check_place, is_left_over

UNFINISHED = ".unfinished"
"""A folder is written beside its place, in a folder with this ending, and moved there when it is whole."""


@contextmanager
def written_beside(root: Path) -> Iterator[Path]:
    """Give a folder to write to; it becomes `root` if all went well, and is removed if not.

    Raises:
        FileExistsError: `root` is not free, or another process is writing it.
    """
    place = root.resolve()
    unfinished = place.with_name(place.name + UNFINISHED)
    with _claimed(unfinished, root):
        try:
            check_place(place)
            yield unfinished
            _move(unfinished, place)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


@contextmanager
def _claimed(unfinished: Path, root: Path) -> Iterator[None]:
    """Make a folder that is nobody else's until the block ends; what a killed process left in it goes."""
    try:
        if not is_left_over(unfinished):
            unfinished.mkdir(parents=True)
        descriptor = os.open(unfinished, os.O_RDONLY)
    except OSError as error:
        raise type(error)(f"'{root}' cannot be made: '{unfinished}': {error.strerror}") from error
    try:
        if not _is_alone(descriptor, unfinished):
            raise FileExistsError(f"'{root}' cannot be made: another process is writing '{unfinished}'")
        for left in unfinished.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        os.close(descriptor)


def _is_alone(descriptor: int, unfinished: Path) -> bool:
    try:
        # who held the lock may have finished meanwhile: then what is open has become the root, or is gone
        return lock_soon(descriptor, 0.0) and os.path.samestat(os.fstat(descriptor), os.stat(unfinished))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # the file system has no locks


def _move(unfinished: Path, place: Path) -> None:
    if not place.exists():
        unfinished.rename(place)
        return
    for folder in sorted(unfinished.iterdir()):  # an empty folder stays the same one: somebody may stand in it
        folder.rename(place / folder.name)
    unfinished.rmdir()
