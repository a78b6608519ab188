"""Folders that are written to: the cache of sidecars, temporary files, and where skipped samples are told."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from millpond._amounts import size_in_words
from millpond._doctor.findings import Finding, Looking, fine, warning

_LITTLE_BYTES = 1 << 30
"""Sidecars of a large dataset take some hundred MiB, ranges of a store up to 10 GiB."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What there is of one.

    Attributes:
        place: The folder, or the next one above it that exists: the others are made when they are wanted.
        problem: Why nothing can be written; "".
        free_bytes: For this user.
        has_inodes: Whether there may be more files.
    """

    place: str
    problem: str
    free_bytes: int
    has_inodes: bool


def look_at_folders(cache: str, quarantine: str) -> Iterator[Finding | Looking]:
    """The cache, the temporary folder, and that of the quarantine file."""
    yield Looking(f"writing to the cache '{cache}'")
    yield folder("cache", look_at_folder(Path(cache)), "set MILLPOND_CACHE_DIR to a folder of a local disk")
    try:
        temporary = tempfile.gettempdir()
    except OSError as failure:
        yield warning("temporary files", str(failure), "set TMPDIR to a folder that can be written")
    else:
        yield Looking(f"writing to '{temporary}'")
        yield folder("temporary files", look_at_folder(Path(temporary)), "set TMPDIR to a folder with more room")
    where = Path(quarantine).absolute().parent
    yield Looking(f"writing to '{where}'")
    yield folder("quarantine file", look_at_folder(where), "set MILLPOND_QUARANTINE, or quarantine= of the loader")


def look_at_folder(path: Path) -> Folder:
    """Write a file there, and take it away again; nothing else is made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        with tempfile.TemporaryFile(dir=path, prefix="millpond-doctor-") as file:
            file.write(bytes(4096))
            file.flush()
        status = os.statvfs(path)
    except OSError as failure:
        return Folder(str(path), failure.strerror or type(failure).__name__, 0, has_inodes=True)
    has_inodes = status.f_files == 0 or status.f_favail > 0
    return Folder(str(path), "", status.f_bavail * status.f_frsize, has_inodes)


def folder(subject: str, found: Folder, remedy: str) -> Finding:
    """Whether it can be used."""
    if found.problem:
        return warning(subject, f"'{found.place}' cannot be written: {found.problem}", remedy)
    if not found.has_inodes:
        return warning(subject, f"'{found.place}' has no inodes left", remedy)
    told = f"'{found.place}' can be written, {size_in_words(found.free_bytes)} are free"
    return warning(subject, told, remedy) if found.free_bytes < _LITTLE_BYTES else fine(subject, told)
