"""In a worker: samples of a dataset, by torch's rules (torch/utils/data/_utils/fetch.py).

Each sample is announced by a call of progress(), so that one that hangs or kills the worker is known by its place:
the n-th call comes before the n-th sample. What goes wrong with a sample may leave it out of its batch.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Progress = Callable[[], None]


@dataclass(slots=True)
class Fetched:
    """What came of one batch's indices.

    Attributes:
        data: The samples, or the one sample where batches are not made here.
        num_samples: That are in it.
        bad: Samples that were left out: place in the batch, and why.
        is_left_out: Whether no sample of the batch is left. One that a batch sampler made without any is a batch.
    """

    data: Any
    num_samples: int
    bad: list[tuple[int, Exception]] = field(default_factory=list)
    is_left_out: bool = False


class MapFetcher:
    """Samples of a map-style dataset.

    Args:
        dataset: Anything with `__getitem__`.
        makes_batches: Whether indices are lists of indices.
        skips: Whether a sample that raises is left out.
    """

    def __init__(self, dataset: Any, *, makes_batches: bool, skips: bool) -> None:
        self._dataset = dataset
        self._makes_batches = makes_batches
        self._skips = skips

    def fetch(self, indices: Any, progress: Progress, *, left_out: Collection[int], one_by_one: bool) -> Fetched:
        """The samples of these indices.

        Args:
            indices: As the sampler gave them.
            progress: Called before each sample.
            left_out: Places that are not fetched, since they ended a worker.
            one_by_one: Not by `__getitems__`.
        """
        if not self._makes_batches:
            return self._one(indices, progress, left_out)
        if not one_by_one and not left_out and getattr(self._dataset, "__getitems__", None):
            try:
                data = self._dataset.__getitems__(indices)
                return Fetched(data, len(indices))
            except Exception:
                if not self._skips:
                    raise
        return self._many(indices, progress, left_out)

    def _one(self, index: Any, progress: Progress, left_out: Collection[int]) -> Fetched:
        progress()
        if 0 in left_out:
            return Fetched(None, 0, is_left_out=True)
        try:
            return Fetched(self._dataset[index], 1)
        except Exception as error:
            if not self._skips:
                raise
            return Fetched(None, 0, [(0, error)], is_left_out=True)

    def _many(self, indices: Sequence[Any], progress: Progress, left_out: Collection[int]) -> Fetched:
        fetched = Fetched([], 0)
        for place, index in enumerate(indices):
            progress()
            if place in left_out:
                continue
            try:
                fetched.data.append(self._dataset[index])
            except Exception as error:
                if not self._skips:
                    raise
                fetched.bad.append((place, error))
        fetched.num_samples = len(fetched.data)
        fetched.is_left_out = not fetched.data and len(indices) > 0
        return fetched


class IterableFetcher:
    """Samples of an iterable dataset, in its own order.

    Args:
        dataset: Anything with `__iter__`.
        makes_batches: Whether indices are lists, as long as batches shall be.
        drop_last: Whether a batch that would be short is none.
        skips: Whether a sample that raises is left out.
        state: From `state_dict()`, of the place to go on at.
    """

    def __init__(
        self, dataset: Any, *, makes_batches: bool, drop_last: bool, skips: bool, state: dict[str, Any] | None = None
    ) -> None:
        self._dataset = dataset
        self._makes_batches = makes_batches
        self._drop_last = drop_last
        self._skips = skips
        self._has_ended = state is not None and state["has_ended"]
        # Of one that has ended nothing will be asked: what it was told now, it would remember in the next epoch.
        going_on = {} if state is None or self._has_ended else state
        if "dataset" in going_on:
            dataset.load_state_dict(going_on["dataset"])
        self._iterator: Iterator[Any] = iter(dataset)
        if "iterator" in going_on:
            self._iterator.load_state_dict(going_on["iterator"])  # type: ignore[attr-defined]

    def fetch(self, indices: Any, progress: Progress) -> Fetched:
        """The next samples, as many as there are indices.

        Raises:
            StopIteration: There are no more; its value is what was left out at the end, if anything was.
        """
        if self._has_ended:
            raise StopIteration
        fetched = Fetched(None, 0)
        if not self._makes_batches:
            fetched.data = self._next(0, progress, fetched.bad)
            fetched.num_samples = 1
            return fetched
        fetched.data = []
        for place in range(len(indices)):
            try:
                fetched.data.append(self._next(place, progress, fetched.bad))
            except StopIteration:
                self._has_ended = True
                break
        fetched.num_samples = len(fetched.data)
        if not fetched.data or (self._drop_last and len(fetched.data) < len(indices)):
            raise StopIteration(fetched.bad)
        return fetched

    def _next(self, place: int, progress: Progress, bad: list[tuple[int, Exception]]) -> Any:
        while True:
            progress()
            try:
                return next(self._iterator)
            except StopIteration:
                raise
            except Exception as error:
                # A generator that has raised is at its end: what would have come after is lost, and must not be so
                # without a word.
                if not self._skips or inspect.isgenerator(self._iterator):
                    raise
                bad.append((place, error))

    def skip(self, num_batches: int, indices: Any, progress: Progress) -> None:
        """Go past batches, each for these indices, where the dataset cannot tell where it is."""
        with contextlib.suppress(StopIteration):
            for _ in range(num_batches):
                self.fetch(indices, progress)

    def state_dict(self) -> dict[str, Any] | None:
        """Where it is; None if neither the iterator nor the dataset can tell."""
        if hasattr(self._iterator, "state_dict"):
            return {"iterator": self._iterator.state_dict(), "has_ended": self._has_ended}
        if hasattr(self._dataset, "state_dict"):
            return {"dataset": self._dataset.state_dict(), "has_ended": self._has_ended}
        return None
