"""Files that come into their place in one step, and stay there also after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def unfinished_path(path: Path) -> Path:
    """Where a file lies until it is whole; what is there was left by a process that was killed amid it."""
    return path.with_name(f".{path.name}.new")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file: a reader sees the former one or this one. One writer at a time."""
    unfinished = unfinished_path(path)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def put_in_place(path: Path) -> None:
    """Rename what lies at `unfinished_path(path)`, whose content is on the disk already."""
    os.replace(unfinished_path(path), path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the name
    finally:
        os.close(descriptor)
