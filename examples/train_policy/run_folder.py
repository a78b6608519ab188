"""What a run leaves in a folder of its own: the last checkpoint, and a loss curve that agrees with it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_HEADER = "step,loss,valid_rows\n"


@contextmanager
def owning(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, until the block or this process ends, in whatever way.

    Raises:
        SystemExit: Another one owns it.
    """
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another run writes to '{folder}': end its processes, or give another --out") from None
        yield


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file anew: whoever reads it, now or after a kill or a power cut, sees one or the other."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class LossCurve:
    """A line for each global step.

    Args:
        path: The file; one process writes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def rewind(self, step: int) -> None:
        """Take back the lines of later steps, and one that was half written: those steps are done again."""
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if self._path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) <= step]
        with replacing(self._path) as file:
            file.write("".join([_HEADER, *kept]).encode())

    def add(self, step: int, loss: float, valid_rows: int) -> None:
        """Write a step down; floats as Python prints them, which is exact."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{step},{loss!r},{valid_rows}\n")
