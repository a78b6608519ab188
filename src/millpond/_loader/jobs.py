"""A task of the pond on its way through workers: whole, and in pieces if it ends one worker after the other.

One sample that hangs or kills its worker must not take the others of its task with it. So a task that ended its worker
is done again in pieces, each the smallest that has a life of its own (a GOP, a clip, a sample of a transform). The
pieces are tried more than once, and only those that are given up fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from millpond._loader.flows import Flows
from millpond._loader.work import CopyTask, ReadTask
from millpond._plan.pond import Pond


@dataclass(slots=True)
class Job:
    """One task of a pond.

    Attributes:
        pond: Whose task it is.
        task_id: In that pond.
        payload: All of it.
        place: Of a task that reads: (segment in the plan's order, number of its bundle of parts).
        batch: Of a task that finishes one: its number.
        waiting: Answers that have not come.
        failures: Position in the payload's samples -> why it has no data.
        is_split: Whether its pieces are out.
        must_end_whole: Whether pieces only find out which samples are bad, and the others are then read in one go: the
            pieces of a block would write over each other's frames.
    """

    pond: Pond
    task_id: int
    payload: ReadTask | CopyTask
    place: tuple[int, int] | None = None
    batch: int | None = None
    waiting: int = 1
    failures: dict[int, Exception] = field(default_factory=dict)
    is_split: bool = False
    must_end_whole: bool = False

    @property
    def stage(self) -> Literal["decode", "gather"]:
        """What it is to a trace."""
        return "gather" if self.place is None else "decode"

    def facts(self) -> dict[str, int | str]:
        """What a trace says of it."""
        if self.batch is not None:
            return {"batch": self.batch}
        return {} if self.place is None else {"segment": self.place[0]}

    def flows(self, flows: Flows | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What leads to it, and what goes on from it."""
        if flows is None:
            return (), ()
        if self.batch is not None:
            return flows.gathered(self.batch)
        return ((), ()) if self.place is None else flows.decoded(self.place, self.pond.batches_of(self.place[0]))

    def rest(self) -> Piece | None:
        """The samples that have not failed; None where all have."""
        good = [at for at in range(len(self.payload.samples)) if at not in self.failures]
        return piece_of(self, np.asarray(good, np.int64)) if good else None


@dataclass(frozen=True, slots=True)
class Piece:
    """What one worker is given of a job.

    Attributes:
        job: It belongs to.
        payload: For the worker.
        positions: int64 (n,), of the payload's samples in the job's; None: it is the whole job.
    """

    job: Job
    payload: ReadTask | CopyTask
    positions: NDArray[np.int64] | None = None

    @property
    def samples(self) -> NDArray[np.int64]:
        """Of the dataset."""
        return self.payload.samples

    def facts(self) -> dict[str, int | str]:
        """What a trace says of it."""
        parts = {"parts": ", ".join(self.payload.parts)} if isinstance(self.payload, ReadTask) else {}
        return {**self.job.facts(), **parts, "samples": len(self.samples)}

    def fail(self, positions: NDArray[np.int64], error: Exception) -> None:
        """Note why some of this piece's samples have no data."""
        theirs = positions if self.positions is None else self.positions[positions]
        for at in theirs.tolist():
            self.job.failures.setdefault(at, error)

    def fail_whole(self, error: Exception) -> None:
        """Note why none of this piece's samples have data."""
        self.fail(np.arange(len(self.payload.samples)), error)

    def can_be_split(self, cuts: NDArray[np.int64]) -> bool:
        """Whether it is a whole job of several pieces.

        Args:
            cuts: int64 (S + 1,), ascending samples where a GOP, or a clip, begins.
        """
        samples = self.payload.samples
        if self.positions is not None or len(samples) < 2:
            return False
        if isinstance(self.payload, CopyTask):
            return True
        first, last = np.searchsorted(cuts, (samples[0], samples[-1]), side="right")
        return bool(first != last)

    def split(self, cuts: NDArray[np.int64]) -> list[Piece]:
        """The pieces of a job that `can_be_split`."""
        if isinstance(self.payload, ReadTask):
            owners = np.searchsorted(cuts, self.payload.samples, side="right")
        else:
            owners = np.arange(len(self.payload.samples))
        parts = np.split(np.arange(len(owners)), np.flatnonzero(np.diff(owners)) + 1)
        return [piece_of(self.job, part) for part in parts]


def piece_of(job: Job, positions: NDArray[np.int64]) -> Piece:
    """Some of a job's samples."""
    payload = job.payload
    if isinstance(payload, ReadTask):
        part: ReadTask | CopyTask = payload._replace(
            samples=payload.samples[positions], slots=payload.slots[positions], rows=payload.rows[positions]
        )
    else:
        part = payload._replace(
            samples=payload.samples[positions],
            slots=payload.slots[positions],
            slot_rows=payload.slot_rows[positions],
            rows=payload.rows[positions],
        )
    return Piece(job, part, positions)
