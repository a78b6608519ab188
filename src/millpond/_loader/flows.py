"""Which fetches and decodes a batch came from, as numbers that a trace draws arrows by.

A fetch begins a flow, which the decode of its bytes ends; a decode begins one for each batch that it has rows of, which
ends where the batch is gathered, or else delivered. So from any delivery arrows lead back to its first bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import count


class Flows:
    """Numbers flows, of one epoch at a time. Fetches are noted by any thread, each of the others by one."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._to_task: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self._to_batch: defaultdict[int, list[int]] = defaultdict(list)

    def clear(self) -> None:
        """Another epoch begins; its numbers are new ones."""
        self._to_task.clear()
        self._to_batch.clear()

    def fetched(self, place: tuple[int, int]) -> tuple[int, ...]:
        """Bytes came for the task of a segment and a bundle of parts; the flow that goes on from there."""
        number = next(self._numbers)
        self._to_task[place].append(number)
        return (number,)

    def decoded(self, place: tuple[int, int], batches: Iterable[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A task has rows of these batches: the flows that lead to it, and those that go on."""
        numbers = [(batch, next(self._numbers)) for batch in batches]
        for batch, number in numbers:
            self._to_batch[batch].append(number)
        return tuple(self._to_task.pop(place, ())), tuple(number for _, number in numbers)

    def gathered(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A batch is finished: the flows that lead to it, and the one that goes on."""
        flows_in, number = self.delivered(batch), next(self._numbers)
        self._to_batch[batch] = [number]
        return flows_in, (number,)

    def delivered(self, batch: int) -> tuple[int, ...]:
        """A batch leaves: the flows that lead to it."""
        return tuple(self._to_batch.pop(batch, ()))
