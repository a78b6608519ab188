"""Running epochs and measuring them: what `demo` and `bench` share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from millpond._loader.loader import Loader
from millpond._loader.statistics import LoaderStatistics
from millpond._observe.environment import environment_facts
from millpond._observe.meter import BatchMeter
from millpond._observe.spans import Span
from millpond._plan.mixing import expected_distinct


@dataclass(frozen=True, slots=True)
class EpochMeasure:
    """One epoch.

    Attributes:
        meter: When batches came.
        wall_seconds: From asking for the first batch to the end.
        cpu_seconds: Of the training process, all of its threads.
        mixing: Distinct episodes per full batch, over a full shuffle's; None where no batch was full.
        statistics: Of the loader at the epoch's end.
        spans: That the loader kept.
        began_ns: When it began, of the clock that spans have.
    """

    meter: BatchMeter
    wall_seconds: float
    cpu_seconds: float
    mixing: float | None
    statistics: LoaderStatistics
    spans: tuple[Span, ...]
    began_ns: int

    @property
    def samples_per_second(self) -> float:
        """Over the whole epoch."""
        return self.meter.samples / self.wall_seconds


def run_epoch(
    loader: Loader,
    on_batch: Callable[[int], None] = lambda samples: None,
    *,
    group: str = "episode_index",
    look: Callable[[dict[str, Any]], None] = lambda batch: None,
) -> EpochMeasure:
    """Take every batch of the next epoch and let it go at once.

    Args:
        loader: Warm or not; what it must still open counts.
        on_batch: Told the samples of each batch.
        group: The field whose different values are mixing: what `Dataset.groups` says of each sample.
        look: Given each batch; what it takes counts.
    """
    meter, began_ns = BatchMeter(), time.monotonic_ns()
    groups = []
    began, cpu_began = time.perf_counter(), time.process_time()
    for batch in loader:
        samples = len(batch[group])
        groups.append(np.asarray(batch[group]).copy())
        meter.note(samples, loader.open_slots)
        look(batch)
        on_batch(samples)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    full = [len(np.unique(indices)) for indices in groups if len(indices) == loader.batch_size]
    expected = expected_distinct(loader.dataset.groups, loader.batch_size)
    mixing = float(np.mean(full)) / expected if full else None
    return EpochMeasure(meter, wall, cpu, mixing, loader.statistics(), loader.timeline(), began_ns)


def mebibytes(size: float) -> str:
    """A size for people."""
    return f"{size / 2**20:.0f} MiB"


def mixing_text(mixing: float | None) -> str:
    """Mixing for people, with what it is."""
    figure = "unknown" if mixing is None else f"{mixing:.2f}"
    return f"{figure} (distinct episodes per batch; a full shuffle is 1)"


def with_environment(measure: dict[str, Any]) -> dict[str, Any]:
    """A measurement with the machine that it was made on."""
    return {"environment": environment_facts(), **measure}
