"""What a DataLoader has done, and what was left out of its batches."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from millpond._flat import flat_values
from millpond._quarantine import Quarantine

logger = logging.getLogger("millpond")


@dataclass(frozen=True, slots=True)
class DataLoaderStatistics:
    """A DataLoader at one moment, since it was made.

    Attributes:
        batches: Delivered.
        samples: Delivered in them.
        skipped: Samples that were left out, under on_error="skip".
        wait_seconds: That the consumer waited for batches.
        held_batches: Batches that the user holds on their slots now.
        heap_copies: Batches that were copied because more were held.
        copied_bytes: Of copies that are held now.
        shared_bytes: Shared memory that slots take now.
        worker_restarts: Workers that were replaced because they died or hung.
        worker_recycles: Workers that were followed by a new one in good order.
        worker_pids: Of the live workers.
    """

    batches: int
    samples: int
    skipped: int
    wait_seconds: float
    held_batches: int
    heap_copies: int
    copied_bytes: int
    shared_bytes: int
    worker_restarts: int
    worker_recycles: int
    worker_pids: tuple[int, ...]

    def as_dict(self, prefix: str = "") -> dict[str, float | int | str]:
        """All of it as flat numbers, for W&B or TensorBoard: `run.log(loader.statistics().as_dict("train/"))`.

        Args:
            prefix: Put before each name.
        """
        return flat_values(self, prefix)


class Tally:
    """Counts of a DataLoader, whichever iterators they come from.

    Args:
        quarantine: Where skipped samples are written.
        dataset_name: For it.
    """

    def __init__(self, quarantine: Quarantine, dataset_name: str) -> None:
        self.batches = self.samples = self.skipped = 0
        self.wait_seconds = 0.0
        self.heap_copies = self.restarts = self.recycles = 0  # of iterators that are closed
        self._quarantine = quarantine
        self._dataset_name = dataset_name

    def count(self, num_samples: int) -> None:
        """A batch was delivered."""
        self.batches += 1
        self.samples += num_samples

    def skip(self, epoch: int, index: Any, error: Exception) -> None:
        """A sample was left out of its batch."""
        self.skipped += 1
        logger.warning("sample %r is left out: %s: %s", index, type(error).__name__, error)
        sample = index if isinstance(index, int) else -1
        description = {"index": index, "dataset": self._dataset_name}
        self._quarantine.add(epoch=epoch, sample=sample, description=description, error=error)
