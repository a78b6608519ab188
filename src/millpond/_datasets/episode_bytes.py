"""The compressed bytes of one camera of an episode, in memory, from which any number of decoders read."""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millpond._media.holes import ZERO_RUN_BYTES
from millpond._media.media_path import MediaPath
from millpond._media.memory_file import memory_file, write_all
from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange
from millpond.errors import InternalError

Take = Callable[[bytes | memoryview], None]

_NO_HOLE = b"\xff"


class EpisodeBytes:
    """Parts of one file, or all of it. Any thread; see `FileBytes`.

    Args:
        path: What errors call the file.
        table: Of the file.
        frames: int64, (n,), ascending: the frames of the file that are shown.
        parts: Where some ranges of the file begin, and their bytes; none overlapping.
        late: Reads what is in none of them: the preroll of a stream that turns out to need it, anew each time.
    """

    def __init__(
        self,
        path: MediaPath,
        table: SampleTable,
        frames: NDArray[np.int64],
        parts: Sequence[tuple[int, bytes | memoryview]],
        late: Callable[[ByteRange], bytes],
    ) -> None:
        self.path = path
        self.table = table
        self.frames = frames
        self.num_bytes = sum(len(data) for _, data in parts)
        self.preroll_gops = 0
        """As decoders found out; see `VideoFile`."""
        self._runs = _runs_of(parts)
        self._starts = [run.start for run in self._runs]
        self._late = late
        self._whole: MediaPath | None = None

    @classmethod
    def of_whole(
        cls, path: MediaPath, table: SampleTable, frames: NDArray[np.int64], fill: Callable[[Take], object]
    ) -> EpisodeBytes:
        """All of a file, for a stream that is decoded through its container: a file in memory, as long as this lives.

        Args:
            path: What errors call the file.
            table, frames: As for the class.
            fill: Calls what it is given with the bytes of the file, part by part.
        """
        made = cls(path, table, frames, (), _nothing_is_late)
        with ExitStack() as stack:
            memory = stack.enter_context(memory_file())
            fill(lambda part: write_all(memory.descriptor, part))
            made._whole = MediaPath(memory.path, path.label, is_copy=True)
            made.num_bytes = table.identity.size_bytes
            weakref.finalize(made, stack.pop_all().close)
        return made

    def read(self, wanted: ByteRange) -> bytes:
        """See `FileBytes`. What surrounds packets, where holes are looked for, may be missing; then it is no hole."""
        at = bisect_right(self._starts, wanted.start + ZERO_RUN_BYTES) - 1
        if at < 0:
            return self._late(wanted)
        run = self._runs[at]
        if run.start <= wanted.start and wanted.stop <= run.stop:
            return run.read(wanted.start, wanted.stop)
        # at the end of the file there is nothing around the last packet
        surplus = 0 if wanted.stop >= self.table.identity.size_bytes else ZERO_RUN_BYTES
        if wanted.stop - surplus > run.stop or wanted.start >= run.stop:
            return self._late(wanted)
        low, high = max(wanted.start, run.start), min(wanted.stop, run.stop)
        return _NO_HOLE * (low - wanted.start) + run.read(low, high) + _NO_HOLE * (wanted.stop - high)

    def check_identity(self) -> None:
        """Nothing: what is in memory does not change."""

    def whole(self) -> MediaPath:
        """See `FileBytes`."""
        if self._whole is None:
            raise InternalError(f"{self.path} was fetched in parts, and is to be read as a whole")
        return self._whole

    def close(self) -> None:
        """Nothing: others may read from it."""


@dataclass(slots=True)
class _Run:
    """Parts that follow one another without a gap: what was fetched in pieces is not copied together."""

    start: int
    stop: int
    starts: list[int]
    views: list[memoryview]

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of the file that are all in this run."""
        pieces = []
        for number in range(bisect_right(self.starts, start) - 1, len(self.starts)):
            first = self.starts[number]
            if first >= stop:
                break
            pieces.append(self.views[number][max(start - first, 0) : stop - first])
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


def _runs_of(parts: Sequence[tuple[int, bytes | memoryview]]) -> list[_Run]:
    runs: list[_Run] = []
    for start, data in sorted(parts, key=lambda part: part[0]):
        if not runs or runs[-1].stop != start:
            runs.append(_Run(start, start, [], []))
        runs[-1].starts.append(start)
        runs[-1].views.append(memoryview(data))
        runs[-1].stop += len(data)
    return runs


def _nothing_is_late(wanted: ByteRange) -> bytes:
    raise InternalError(f"bytes {wanted.start} to {wanted.stop} of a file are read that is decoded as a whole")
