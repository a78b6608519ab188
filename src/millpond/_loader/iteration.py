"""One epoch as the training loop sees it: batches in order, failures by policy, books that balance."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import VALIDITY_FIELD, Dataset
from millpond._loader.batches import Outbox
from millpond._loader.driver import Driver
from millpond._loader.timeline import Timeline
from millpond._plan.books import Books
from millpond._plan.epoch import EpochPlan
from millpond._plan.pond import ReadyBatch
from millpond._quarantine import Quarantine
from millpond.errors import ArenaFull, ClosedError, DecodeTimeout, TooManyErrors, UsageError, WorkerDied, retold

logger = logging.getLogger("millpond")


@dataclass(slots=True)
class Progress:
    """What a loader has done since it was made, and where it stands; written by its iterators.

    Attributes:
        epochs: Epochs that were run to their end.
        batches: Batches delivered.
        samples: Samples delivered.
        skipped: Samples left out, or delivered as rows of zeros.
        failed: Bad samples of batches that stopped an epoch.
        position: (epoch, batch) that comes next.
        is_asked: Whether anybody has asked the last iterator for a batch.
    """

    epochs: int = 0
    batches: int = 0
    samples: int = 0
    skipped: int = 0
    failed: int = 0
    position: tuple[int, int] = (0, 0)
    is_asked: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch whose failures were dealt with.

    Attributes:
        ready: It.
        samples: int64 (n,), of the rows that leave.
        valid: bool (n,), which of them have data of their own; None where all that leave do.
        num_padded: Of those that have none, how many only fill the batch up.
    """

    ready: ReadyBatch
    samples: NDArray[np.int64]
    valid: NDArray[np.bool_] | None = None
    num_padded: int = 0

    @property
    def num_valid(self) -> int:
        """Rows with data of their own."""
        return len(self.samples) if self.valid is None else int(self.valid.sum())


@dataclass(frozen=True, slots=True)
class Policy:
    """How an epoch treats what goes wrong.

    Attributes:
        on_error: "raise", "skip" or "placeholder".
        max_errors: Samples that may be skipped in an epoch; None: any number.
        quarantine: Where skipped samples are written down.
        kept: Names of what the dataset adds to batches after a transform (text) or presents in them (lengths that
            vary); None: no transform, and the dataset does what it likes.
        full_rows: Rows that every batch is filled up to, so that ranks stay in step; None: batches may be short.
        whose: For the log: which rank's epoch it is; "" where there is one.
    """

    on_error: Literal["raise", "skip", "placeholder"]
    max_errors: int | None
    quarantine: Quarantine
    kept: tuple[str, ...] | None
    full_rows: int | None = None
    whose: str = ""


class EpochIterator(Iterator[dict[str, Any]]):
    """One epoch of a loader; made by `iter(loader)`.

    Args:
        dataset: What is read.
        driver: Moves the epoch forward.
        outbox: Hands batches over.
        plan: The order.
        books: Counted on.
        epoch: The epoch's number.
        policy: For failures.
        progress: Written to.
        timeline: Takes notes.
    """

    def __init__(
        self,
        dataset: Dataset,
        driver: Driver,
        outbox: Outbox,
        plan: EpochPlan,
        books: Books,
        epoch: int,
        policy: Policy,
        progress: Progress,
        timeline: Timeline,
    ) -> None:
        self._dataset = dataset
        self._driver = driver
        self._outbox = outbox
        self._books = books
        self._epoch = epoch
        self._policy = policy
        self._progress = progress
        self._timeline = timeline
        self._next_batch = plan.first_batch
        self._num_batches = plan.num_batches
        self._settled: Settled | None = None  # not yet given away
        self._pid = os.getpid()
        self._is_closed = False
        self.is_over = False
        timeline.begin_epoch(epoch)
        driver.start(plan)

    def __next__(self) -> dict[str, Any]:
        if os.getpid() != self._pid:
            raise UsageError(
                f"this iterator belongs to process {self._pid}; a forked child ({os.getpid()}) must make its own loader"
            )
        if self._is_closed:
            raise ClosedError("this epoch was closed, by its loader, its iterator or an error")
        self._progress.is_asked = True
        try:
            while self._next_batch < self._num_batches:
                if self._settled is None:
                    self._settled = self._settle(self._wait())
                if len(self._settled.samples):
                    # Not kept in a variable: what an exception caught below leaves of frames must not hold batches.
                    return self._hand_over(self._settled)
                self._leave_out(self._settled)
            self._finish()
        except BaseException as error:
            if self._settled is None or not isinstance(error, ArenaFull | RuntimeWarning):
                self.close()  # also after an interrupt, wherever it came: a batch may be lost
            raise
        raise StopIteration

    def _wait(self) -> ReadyBatch:
        ready = None
        self._timeline.begin_wait()
        try:
            ready = self._driver.next_ready()
        finally:
            self._timeline.wait(ready, self._driver.open_slots())
        return ready

    def _settle(self, ready: ReadyBatch) -> Settled:
        """Deal with failures: close the batch up, or leave rows of zeros; and fill it up."""
        try:
            if ready.failures:
                self._account_failures(ready)
            if self._policy.on_error == "placeholder":
                settled = Settled(ready, ready.samples, self._outbox.blank(ready))
            else:
                settled = Settled(ready, self._outbox.close_up(ready))
            rows = self._policy.full_rows
            return settled if rows is None else self._filled_up(settled, rows)
        except BaseException:
            self._driver.release(ready.slot)
            raise

    def _filled_up(self, settled: Settled, rows: int) -> Settled:
        """With rows that repeat good ones of the batch; of a batch without any, zeros in the name of any sample."""
        valid = np.zeros(rows, np.bool_)
        valid[: len(settled.samples)] = True if settled.valid is None else settled.valid
        padding = np.arange(len(settled.samples), rows)
        self._outbox.fill_up(settled.ready, valid, padding)
        named = settled.samples[valid[: len(settled.samples)]]
        named = named if len(named) else settled.ready.samples[:1]
        samples = np.concatenate([settled.samples, np.resize(named, len(padding))]).astype(np.int64)
        return Settled(settled.ready, samples, valid, num_padded=len(padding))

    def _hand_over(self, settled: Settled) -> dict[str, Any]:
        """Give a settled batch away.

        If there is no room (ArenaFull), or a warning is an error, it stays settled, and the next call tries again.
        Anything else, such as an interrupt, ends the epoch: the slot is a lease's by then, which gives it back.
        """
        samples = settled.samples
        self._outbox.require_room(settled.ready)
        self._settled = None
        batch = self._outbox.hand_over(settled.ready, len(samples))
        self._decorate(batch, samples)
        if settled.valid is not None:
            batch[VALIDITY_FIELD] = self._outbox.delivered(settled.valid)
        self._progress.batches += 1
        self._advance(settled)
        return batch

    def _leave_out(self, settled: Settled) -> None:
        """Every row of it was bad."""
        self._settled = None
        self._driver.release(settled.ready.slot)
        self._advance(settled)

    def _decorate(self, batch: dict[str, Any], samples: NDArray[np.int64]) -> None:
        if self._policy.kept is None:
            self._dataset.decorate(batch, samples)
        elif self._policy.kept:
            shown = {name: batch[name] for name in self._policy.kept if name in batch}
            self._dataset.decorate(shown, samples)
            batch.update({name: shown[name] for name in self._policy.kept})

    def _advance(self, settled: Settled) -> None:
        self._next_batch += 1
        self._books.padded += settled.num_padded
        self._books.delivered += settled.num_valid + settled.num_padded
        self._progress.position = (self._epoch, self._next_batch)
        self._progress.samples += settled.num_valid
        self._timeline.deliver(settled.num_valid)

    def _account_failures(self, ready: ReadyBatch) -> None:
        if self._policy.on_error == "raise":
            self._books.failed += len(ready.failures)
            self._progress.failed += len(ready.failures)
            row = min(ready.failures)
            sample = int(ready.samples[row])
            raise self._told(self._named(ready.failures[row], sample), sample)
        for row in sorted(ready.failures):
            sample = int(ready.samples[row])
            self._policy.quarantine.add(
                epoch=self._epoch,
                sample=sample,
                description=self._dataset.describe(sample),
                error=self._named(ready.failures[row], sample),
            )
        self._books.skipped += len(ready.failures)
        self._progress.skipped += len(ready.failures)
        limit = self._policy.max_errors
        if limit is not None and self._books.skipped > limit:
            raise self._too_many(limit) from ready.failures[max(ready.failures)]

    def _too_many(self, limit: int) -> TooManyErrors:
        skipped, planned = self._books.skipped, self._books.planned
        return TooManyErrors(
            f"{skipped} of {planned} samples of epoch {self._epoch} were skipped so far (limit {limit}, from "
            f"max_errors=); '{self._policy.quarantine.path}' says which and why: mend the data, or raise max_errors=",
            skipped=skipped,
            limit=limit,
            epoch=self._epoch,
        )

    def _named(self, error: Exception, sample: int) -> Exception:
        """The error of a worker that ended, with the sample's name: a supervisor knows its tasks by number only."""
        if not (isinstance(error, DecodeTimeout | WorkerDied) and "attempts" in error.facts):
            return error
        facts = self._dataset.describe(sample)
        which = ", ".join(f"{name} {value!r}" for name, value in facts.items() if name != "sample")
        return retold(error, f"sample {facts.get('sample', sample)} ({which})")

    def _told(self, error: Exception, sample: int) -> Exception:
        """The error as it is raised in the training loop, which a StopIteration would end without a word."""
        if isinstance(error, StopIteration):
            told: Exception = RuntimeError(f"transform raised StopIteration({error})")
            told.__cause__ = error
        else:
            told = error
        facts = self._dataset.describe(sample)  # of a share it has the number in the whole
        told.add_note(f"sample {facts.get('sample', sample)} of epoch {self._epoch}: {facts}")
        return told

    def _finish(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._progress.epochs += 1
            self._progress.position = (self._epoch + 1, 0)
            self._books.check()
            self._timeline.end_epoch(self._books, self._policy.whose)
            if self._books.skipped:
                logger.warning(
                    "epoch %d%s: %d of %d samples were skipped; %s says which and why",
                    self._epoch,
                    self._policy.whose,
                    self._books.skipped,
                    self._books.planned,
                    self._policy.quarantine.path,
                )

    def try_finish(self) -> bool:
        """Whether it is over, as it is once all batches are given: who counts them never asks for one more."""
        if not self.is_over and self._next_batch == self._num_batches:
            self._finish()
        return self.is_over

    def close(self) -> None:
        """End the epoch early; the next one that begins is the following, if this was asked for a batch. Idempotent."""
        if not self.is_over and os.getpid() == self._pid:
            self.is_over = self._is_closed = True
            if self._settled is not None:
                self._driver.release(self._settled.ready.slot)
                self._settled = None
            self._driver.cancel()

    def __del__(self) -> None:
        if hasattr(self, "is_over"):
            self.close()
