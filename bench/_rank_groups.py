"""The ranks of one side, each a process of its own; asked together, they begin together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

from _process import Contender
from millpond._observe.memory import tree_pids


@dataclass(frozen=True)
class Shape:
    """How an epoch is shared out.

    Attributes:
        ranks: Processes with a loader each.
        workers: Of each.
        is_canonical: Whether its order is that of any number of ranks.
    """

    ranks: int
    workers: int
    is_canonical: bool = False


@dataclass(frozen=True)
class Look:
    """What the ranks of a side delivered.

    Attributes:
        batches: Of each rank, the samples of its batches.
        padded_rows: Of all of them.
        states: After the last batch, of each rank.
    """

    batches: list[list[list[int]]]
    padded_rows: int
    states: list[dict[str, Any]]

    @property
    def steps(self) -> list[list[int]]:
        """The samples of each global batch: those of rank 0, then those of rank 1, ...; as far as all ranks came."""
        return [list(chain.from_iterable(of_step)) for of_step in zip(*self.batches, strict=False)]

    @property
    def samples(self) -> list[int]:
        return [sample for batches in self.batches for batch in batches for sample in batch]


class RankGroup:
    """Processes that become ranks when they construct their loaders."""

    def __init__(self, processes: Sequence[Contender]) -> None:
        self._processes = tuple(processes)

    @classmethod
    def started(cls, count: int, stack: ExitStack) -> RankGroup:
        """Start so many, for the time of the stack."""
        return cls([stack.enter_context(Contender("_peer_rank.py")) for _ in range(count)])

    @classmethod
    def joined(cls, groups: Sequence[RankGroup]) -> RankGroup:
        """The processes of all of them."""
        return cls([process for group in groups for process in group._processes])

    def first(self, count: int) -> RankGroup:
        """So many of them, as a group of their own."""
        return RankGroup(self._processes[:count])

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def pids(self) -> list[int]:
        """Of these processes and all below them."""
        return [pid for process in self._processes for pid in tree_pids(process.pid)]

    def construct(self, **loader: Any) -> list[dict[str, Any]]:
        """A loader in each of them, of its rank."""
        for rank, process in enumerate(self._processes):
            process.tell("construct", rank=rank, world_size=len(self), **loader)
        return self._answers()

    def look(self, **arguments: Any) -> Look:
        """See `_peer_rank.Rank.look`."""
        found = self._ask("look", **arguments)
        padded = sum(one["padded_rows"] for one in found)
        return Look([one["batches"] for one in found], padded, [one["state"] for one in found])

    def epoch(self) -> dict[str, Any]:
        """Time an epoch, from asking all ranks for it until the last one has its last batch; sums over ranks."""
        began = time.monotonic()
        found = self._ask("epoch")
        wall_seconds = time.monotonic() - began
        summed = {name: sum(one[name] for one in found) for name in ("samples", "cpu_seconds", "frames_decoded")}
        return {**summed, "wall_seconds": wall_seconds, "wall_seconds_of_ranks": [one["wall_seconds"] for one in found]}

    def close_loaders(self) -> None:
        self._ask("close")

    def _ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        for process in self._processes:
            process.tell(do, **arguments)
        return self._answers()

    def _answers(self) -> list[dict[str, Any]]:
        return [process.answer() for process in self._processes]
