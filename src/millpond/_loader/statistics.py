"""What `Loader.statistics()` gives."""

from __future__ import annotations

from dataclasses import dataclass

from millpond._flat import flat_values
from millpond._loader.stage_times import LimitingStage, WaitTimes
from millpond._plan.books import Books


@dataclass(frozen=True, slots=True)
class LoaderStatistics:
    """What a loader has done since it was made, and how it goes.

    Attributes:
        epochs: Epochs that were run to their end.
        batches: Batches delivered.
        samples: Samples delivered.
        samples_per_second: Over the last ten seconds; of an epoch that has ended or was broken off, over its last ten.
        wait: How long the consumer waited for a batch, of those that it took last.
        wait_seconds: How long it waited in all.
        limited_by: What keeps the loader from being faster, over the same ten seconds: "fetch", waiting for bytes;
            "decode"; "gather", the transform or the copy that finishes a batch; or "consumer", the training loop, for
            which batches lie ready. None before the first epoch.
        pond_slots: Slots of the pond.
        open_slots: Of them, those in use now: the pond's level.
        arena_bytes: Size of the arena; 0 before the first epoch and after `close`.
        arena_used_bytes: Of it, what open, ready and held batches, and bytes that were fetched ahead, take now.
        held_batches: Batches that the user holds on slots now.
        heap_copies: Batches that were copied because more were held.
        worker_restarts: Workers that were replaced because they died or hung.
        worker_recycles: Workers that were followed by a new one in good order.
        worker_pids: Of the live workers.
        skipped: Bad samples that were left out, or delivered as rows of zeros.
        failed: Bad samples of batches that stopped an epoch.
        bytes_read: By workers, from files or from what was fetched ahead.
        bytes_fetched: From an object store.
        retries: Of requests to it.
        counters: What workers counted: frames decoded, packets fed, bytes read and how long that took (`read_ns`); of a
            dataset in an object store also requests, retries, hedges, bytes fetched or found in the cache, ranges
            planned, and `late_requests` that a worker had to make itself.
        books: Of the current or last epoch.
    """

    epochs: int
    batches: int
    samples: int
    samples_per_second: float
    wait: WaitTimes
    wait_seconds: float
    limited_by: LimitingStage | None
    pond_slots: int
    open_slots: int
    arena_bytes: int
    arena_used_bytes: int
    held_batches: int
    heap_copies: int
    worker_restarts: int
    worker_recycles: int
    worker_pids: tuple[int, ...]
    skipped: int
    failed: int
    bytes_read: int
    bytes_fetched: int
    retries: int
    counters: dict[str, int]
    books: Books | None

    def as_dict(self, prefix: str = "") -> dict[str, float | int | str]:
        """The same as one flat mapping, for W&B or TensorBoard.

        Args:
            prefix: Before each name, such as "loader/".
        """
        return flat_values(self, prefix)
