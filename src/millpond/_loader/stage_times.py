"""How long the stages of a loader were at work, and what that says about its speed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

LimitingStage = Literal["fetch", "decode", "gather", "consumer"]

BUSY_CONSUMER_SHARE = 0.1
"""A consumer that waits for less of its time than that is what limits: were batches free, it would gain no more."""


class StageTimes(NamedTuple):
    """How long each stage was at work, in nanoseconds, and what came of it.

    Attributes:
        at_ns: On the clock of time.monotonic_ns(); of a difference, how long it took.
        fetch: Of workers: reading bytes.
        decode: Of workers: the rest of tasks that read.
        gather: Of workers: finishing batches.
        wait: Of the consumer: for batches.
        samples: Delivered.
    """

    at_ns: int
    fetch: int
    decode: int
    gather: int
    wait: int
    samples: int

    def since(self, other: StageTimes) -> StageTimes:
        """What was added."""
        return StageTimes(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def plus(self, difference: StageTimes) -> StageTimes:
        """So much later."""
        return StageTimes(*(mine + more for mine, more in zip(self, difference, strict=True)))

    @property
    def seconds(self) -> float:
        """Of a difference, how long it took."""
        return self.at_ns / 1e9

    @property
    def samples_per_second(self) -> float:
        """Of a difference."""
        return self.samples / self.seconds if self.at_ns else 0.0

    def limiting_stage(self, num_workers: int, *, fetches_ahead: bool) -> LimitingStage | None:
        """Of a difference: what kept the loader from being faster; None where nothing was done.

        A consumer that hardly ever waited was the limit itself. Else it was what workers spent most time on. Where
        they idled while the consumer waited, they had no bytes, if bytes are fetched ahead of them; if not, they
        waited for room, which the slowest decode had.

        Args:
            num_workers: That could work at a time.
            fetches_ahead: Whether bytes come from a store before tasks are given out.
        """
        if not (self.fetch or self.decode or self.gather or self.wait):
            return None
        if self.wait < BUSY_CONSUMER_SHARE * self.at_ns:
            return "consumer"
        idle = max(0, num_workers * self.at_ns - self.fetch - self.decode - self.gather)
        shares: dict[LimitingStage, int] = {"fetch": self.fetch, "decode": self.decode, "gather": self.gather}
        shares["fetch" if fetches_ahead else "decode"] += idle
        return max(shares, key=shares.__getitem__)


@dataclass(frozen=True, slots=True)
class WaitTimes:
    """How long the consumer waited for each of the batches that it took last, 1,024 at most; 0 where it took none.

    Attributes:
        p50_seconds: Half of the batches were there sooner.
        p95_seconds: 95 % were.
        p99_seconds: 99 % were.
    """

    p50_seconds: float = 0.0
    p95_seconds: float = 0.0
    p99_seconds: float = 0.0

    @classmethod
    def of(cls, waits_ns: Sequence[int]) -> WaitTimes:
        """Quantiles, with linear interpolation between waits."""
        return cls(*(np.quantile(waits_ns, (0.5, 0.95, 0.99)) / 1e9).tolist()) if len(waits_ns) else cls()
