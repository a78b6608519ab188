"""Chaos for a loader: workers that are killed, stopped, and made to hang in C with the GIL held."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deadlock import hold_the_gil
from fakes import FakeDataset, FakeReader
from millpond._datasets.base import Progress, Reader, ReadReport, Sink
from millpond._values import Field


@dataclass
class SpinningReader:
    """A reader that hangs when it finds a flag, which it takes away: so one worker hangs for each flag."""

    inner: Reader
    flag: Path

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        """See `Reader.read`."""
        with suppress(FileNotFoundError):
            os.unlink(self.flag)
            hold_the_gil()
        return self.inner.read(part, samples, sink, progress)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def close(self) -> None:
        """See `Reader.close`."""
        self.inner.close()


@dataclass
class SpinningDataset:
    """Any dataset whose readers are `SpinningReader`s."""

    inner: Any
    flag: Path

    def reader(self) -> SpinningReader:
        """See `Dataset.reader`."""
        return SpinningReader(self.inner.reader(), self.flag)

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


@dataclass
class HangingReader(SpinningReader):
    """A reader that hangs whenever it is to read one sample."""

    sample: int = 0

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        if self.sample in samples:
            hold_the_gil()
        return self.inner.read(part, samples, sink, progress)


@dataclass
class HangingDataset(SpinningDataset):
    """Any dataset whose readers hang at one sample."""

    sample: int = 0

    def reader(self) -> HangingReader:
        return HangingReader(self.inner.reader(), self.flag, self.sample)


@dataclass
class DeadlyReader(SpinningReader):
    """A reader whose worker dies at a sample: once if there is a flag to take away, else always."""

    sample: int = 0
    dies_after: bool = False
    always: bool = False

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        report = self.inner.read(part, samples, sink, progress) if self.dies_after else None
        if self.sample in samples and (self.always or self.flag.exists()):
            self.flag.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return report or self.inner.read(part, samples, sink, progress)


@dataclass
class DeadlyDataset(SpinningDataset):
    """Any dataset whose readers are `DeadlyReader`s."""

    sample: int = 0
    dies_after: bool = False
    always: bool = False

    def reader(self) -> Reader:  # type: ignore[override]
        return DeadlyReader(self.inner.reader(), self.flag, self.sample, self.dies_after, self.always)


@dataclass(frozen=True)
class DeadlyLooker:
    """Looks at rows of clips like their survey, and dies at one."""

    source: Any

    def __call__(self, sample: int) -> Any:
        from millpond._datasets.clip_headers import look_at_row  # here: most of who imports this module looks at none

        if sample == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        return look_at_row(self.source, sample)


BALLAST_FLOATS = 1 << 16
"""256 kB a sample: with the fakes' own few bytes a whole epoch would lie in the pond before anything happened."""


class BallastReader(FakeReader):
    """A fake reader of samples that weigh something."""

    def read(self, part: str, samples: NDArray[np.int64], sink: Sink, progress: Progress) -> ReadReport:
        if part == self.cameras[0]:
            sink.put("ballast", np.broadcast_to(np.float32(0), (len(samples), BALLAST_FLOATS)))
        return super().read(part, samples, sink, progress)


class BallastDataset(FakeDataset):
    """A fake dataset of samples that weigh something."""

    @property
    def fields(self) -> tuple[Field, ...]:
        return (*super().fields, Field("ballast", (BALLAST_FLOATS,), "float32"))

    @property
    def part_fields(self) -> Mapping[str, tuple[str, ...]]:
        fields = dict(super().part_fields)
        return fields | {self.cameras[0]: (*fields[self.cameras[0]], "ballast")}

    def reader(self) -> FakeReader:
        return BallastReader(**vars(super().reader()))


@dataclass
class Counts:
    """What was done to workers."""

    kills: int = 0
    stops: int = 0
    spins: int = 0


@dataclass
class Tormentor:
    """Kills, stops and spins, one at a time; the same for the same seed as far as the workers are.

    Args:
        pids: Gives the live workers.
        flag: What a `SpinningReader` looks for.
        seed: Of who is hit.
    """

    pids: Callable[[], Sequence[int]]
    flag: Path
    seed: int = 0
    done: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._last_pid = 0

    def kill(self) -> None:
        """SIGKILL for one of them."""
        self.done.kills += self._send(signal.SIGKILL)

    def stop(self) -> None:
        """SIGSTOP for another one than was hit last."""
        self.done.stops += self._send(signal.SIGSTOP)

    def spin(self) -> None:
        """Let the next task that is begun hang."""
        if not self.flag.exists():  # else nobody has met the last one yet
            self.flag.touch()
            self.done.spins += 1

    def _send(self, number: signal.Signals) -> bool:
        others = [pid for pid in self.pids() if pid != self._last_pid]
        if not others:
            return False
        self._last_pid = self._chance.choice(others)
        try:
            os.kill(self._last_pid, number)
        except ProcessLookupError:
            return False
        return True


class Chaos:
    """Torments workers by the clock, from a thread, between `with` and its end.

    Args:
        tormentor: Who does it.
        periods_seconds: Between kills, stops and spins.
    """

    def __init__(self, tormentor: Tormentor, periods_seconds: tuple[float, float, float]) -> None:
        self._acts = (tormentor.kill, tormentor.stop, tormentor.spin)
        self._periods = periods_seconds
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)

    def __enter__(self) -> Chaos:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        now = time.monotonic()
        due = [now + period for period in self._periods]
        while not self._ending.wait(max(0.0, min(due) - time.monotonic())):
            which = due.index(min(due))
            self._acts[which]()
            due[which] += self._periods[which]
