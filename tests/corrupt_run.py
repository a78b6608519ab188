"""Damages files by the hundred and has each examined in a guarded worker: what came of them, counted."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import millpond
from corrupt_clips import Format
from corrupt_reading import Case, Reading, examine
from corruption import corrupted
from millpond.errors import DecodeTimeout

TIMEOUT_SECONDS = 20.0
"""For one file, which takes 20 ms: also on a machine that is busy with something else."""


@dataclass
class Tally:
    """What came of many files of one format.

    Attributes:
        files: How many.
        outcomes: By what a user gets: frames, or an error's name.
        offenders: Seed, mutator, and which promises were broken.
        frames, altered, echoes: See `Reading`.
    """

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    offenders: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)
    frames: int = 0
    altered: int = 0
    echoes: int = 0

    def add(self, seed: int, mutator: str, reading: Reading) -> None:
        """Count one file."""
        self.files += 1
        self.outcomes[reading.outcome] += 1
        self.frames += reading.frames
        self.altered += reading.altered
        self.echoes += reading.echoes
        if reading.broken:
            self.offenders.append((seed, mutator, reading.broken))


def examined(
    guard: millpond.Guard, wanted: Format, whole: Path, seeds: Iterable[int], folder: Path
) -> Iterator[tuple[int, str, Reading, Path]]:
    """Yield (seed, mutator, reading, path) of damaged files; each is gone when the next is asked for.

    A worker's death, and any error that is not the reader's own verdict on the file, are broken promises.
    """
    data, waiting = whole.read_bytes(), deque[tuple[int, str, Path]]()

    def cases() -> Iterator[Case]:
        for seed in seeds:
            damaged = corrupted(data, wanted.kind, seed)
            path = folder / f"{wanted.name}-{seed}"
            path.write_bytes(damaged.data)
            waiting.append((seed, damaged.mutator, path))
            yield Case(wanted.media, path, whole)

    results: Iterator[object] = guard.map(examine, cases(), on_error="return")
    for result in results:
        seed, mutator, path = waiting.popleft()
        yield seed, mutator, _reading(result), path
        os.unlink(path)


def _reading(result: object) -> Reading:
    if isinstance(result, Reading):
        return result
    assert isinstance(result, Exception)
    name = type(result).__name__
    return Reading(name, () if isinstance(result, DecodeTimeout) else (f"{name}: {result}",))
