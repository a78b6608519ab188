"""What a read task does: decode its run of samples, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from millpond._datasets.base import Dataset, PartlyOpened
from millpond._datasets.share import Share
from millpond._loader.loader import Loader
from millpond._ray.blocks import block_of
from millpond._ray.options import ReadOptions
from millpond._ray.runs import Run

_USUAL_ROWS = 32
_BATCHES_IN_MEMORY = 16
"""That the budget should hold, for the pond to have room, and a batch to be no lump."""


@dataclass(frozen=True, slots=True)
class ReadRun:
    """Reads a run when it is called, in a worker of Ray's; it travels there pickled, and is small.

    Called again it gives the same blocks: what Ray has of a task whose worker died, it does not take twice.

    Attributes:
        dataset: Ray's reference to the whole dataset.
        run: The samples.
        options: How.
        epoch: How often the dataset was read before, which is part of the order.
        row_limit: Rows that are wanted of this run; None: all.
        most_bytes: Of a block, as far as there is more than one row; None: whatever it comes to.
    """

    dataset: Any
    run: Run
    options: ReadOptions
    epoch: int
    row_limit: int | None
    most_bytes: int | None

    def __call__(self) -> Iterator[Any]:
        """Blocks of the run, as they are decoded."""
        share = share_of(ray.get(self.dataset), self.run)
        pictures = frozenset(field.name for field in share.fields if field.frames)
        left = len(share) if self.row_limit is None else self.row_limit
        with closing(share), self._loader(share) as loader:
            loader.set_epoch(self.epoch)
            for batch in loader:
                block = block_of(batch, pictures, channels_last=self.options.channels_last)
                del batch  # its slot is the pond's again while Ray has the block
                yield block.slice(0, left)
                left -= block.num_rows
                if left <= 0:
                    return

    def _loader(self, share: Share) -> Loader:
        options = self.options
        return Loader(
            share,
            batch_size=self._rows(share),
            shuffle=options.shuffle,
            seed=_seed_of(options.seed, self.run),
            num_workers=options.decode_workers,
            memory=options.memory_bytes,
            on_error=options.on_error,
            max_errors=options.max_errors,
            quarantine=self._fresh_quarantine(),
            timeout=options.timeout,
            stall_timeout=options.stall_timeout,
            video_fetch_workers=options.video_fetch_workers,
            output="numpy",
            world_size=1,  # whatever the environment says: Ray shares out
        )

    def _rows(self, dataset: Dataset) -> int:
        if self.options.batch_size is not None:
            return self.options.batch_size
        row_bytes = sum(field.sample_bytes for field in dataset.fields)
        room = self.options.memory_bytes // _BATCHES_IN_MEMORY
        if self.most_bytes is not None:
            room = min(room, self.most_bytes)
        return max(1, min(_USUAL_ROWS, len(dataset), room // max(1, row_bytes)))

    def _fresh_quarantine(self) -> Path:
        """The task's own file: done again, or in the next epoch, it tells of that time alone."""
        path = Path(self.options.quarantine) / f"samples-{self.run.start:09d}-{self.run.stop:09d}.jsonl"
        if self.options.on_error != "raise":
            path.unlink(missing_ok=True)
        return path


def share_of(dataset: PartlyOpened, run: Run) -> Share:
    """The run as a dataset of its own, which looks at no files but its own."""
    part, first = dataset.opened_for(*run)
    return Share(part, run.start - first, run.stop - first, first_sample=first)


def _seed_of(seed: int, run: Run) -> int:
    """Another for every run: runs of one length would have one order."""
    return int(np.random.SeedSequence((seed, run.start)).generate_state(1, np.uint64)[0])
