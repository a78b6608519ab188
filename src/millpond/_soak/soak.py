"""A soak from its first look to its verdict."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from millpond._interrupts import told_of
from millpond._observe.environment import environment_facts
from millpond._soak.out_folder import SoakFolder
from millpond._soak.results import Ending, SoakResult, judge_all
from millpond._soak.sampler import CORE_SHARE, Sampler, refuse_elsewhere
from millpond._soak.series import Series
from millpond._soak.target import Attached, Command

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_INTERVAL_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """How to soak.

    Attributes:
        duration_seconds: When it ends; None: when the command does.
        interval_seconds: From look to look.
        warmup_seconds: Looks before are kept, and not judged.
        grace_seconds: From the signal that asks a command to end to SIGKILL.
        core_share: Of a core, that the soak may cost: looks that are dear are taken less often.
    """

    duration_seconds: float | None = None
    interval_seconds: float = 1.0
    warmup_seconds: float = 10.0
    grace_seconds: float = 10.0
    core_share: float = CORE_SHARE

    def __post_init__(self) -> None:
        if not 0 < self.core_share < float("inf"):
            raise ValueError(f"--core-share must be more than 0, such as 0.01, not {self.core_share:g}")
        if not 0 < self.interval_seconds <= _LONGEST_INTERVAL_SECONDS:
            raise ValueError(
                f"--interval must be more than 0 s, and no more than an hour (3600 s), not {self.interval_seconds:g} s"
            )
        if not (self.warmup_seconds >= 0 and self.grace_seconds >= 0):
            raise ValueError("--warmup and --grace must not be less than 0 s")
        if self.duration_seconds is not None and self.duration_seconds <= self.warmup_seconds:
            raise ValueError(
                f"--duration ({self.duration_seconds:g} s) must be more than --warmup ({self.warmup_seconds:g} s), "
                "after which looks are judged"
            )


class SoakWatcher:
    """Is told how a soak goes; does nothing about it."""

    def looked(self, seconds: float, latest: Mapping[str, float]) -> None:
        """After a look; `latest` has the last value of every series."""

    def ending(self, why: str) -> None:
        """A command is about to be ended; this may take the grace."""

    def judged(self, result: SoakResult) -> None:
        """Before any of it is written, which a full disk prevents."""


def soak_command(argv: Sequence[str], options: SoakOptions, out: Path, watcher: SoakWatcher) -> SoakResult:
    """Start a command, look at it and all that it starts, end it, and say what grew.

    Raises:
        UsageError: It cannot be started, `out` cannot be used, or this system has no such /proc.
    """
    refuse_elsewhere()
    with SoakFolder(out) as folder, _woken() as wake, Command(argv) as command:
        return _Soak(command, options, folder, watcher, wake, {"command": list(argv), "pid": command.pid}).run()


def soak_process(pid: int, options: SoakOptions, out: Path, watcher: SoakWatcher) -> SoakResult:
    """Look at a process that runs already, and all below it, and say what grew; it is never signalled.

    Raises:
        UsageError: There is no such process, it is another user's, `out` cannot be used, or there is no such /proc.
    """
    refuse_elsewhere()
    with Attached(pid) as process, SoakFolder(out) as folder, _woken() as wake:
        return _Soak(process, options, folder, watcher, wake, {"command": None, "pid": pid}).run()


class _Wake:
    """A descriptor that is readable after a signal to this process.

    Attributes:
        descriptor: Readable when one has come that was not taken yet.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def take(self) -> int:
        """The number of a signal; 0: none has come."""
        is_ready = select.select([self.descriptor], [], [], 0)[0]
        return os.read(self.descriptor, 1)[0] if is_ready else 0


@contextlib.contextmanager
def _woken() -> Iterator[_Wake]:
    """Within it, signals that would end this process only make the descriptor readable."""
    read, write = os.pipe()
    os.set_blocking(write, False)

    def tell(number: int) -> None:
        with contextlib.suppress(BlockingIOError):  # there are enough of them
            os.write(write, bytes([number]))

    try:
        with told_of(SIGNALS, tell):
            yield _Wake(read)
    finally:
        os.close(read)
        os.close(write)


class _Soak:
    def __init__(
        self,
        target: Command | Attached,
        options: SoakOptions,
        folder: SoakFolder,
        watcher: SoakWatcher,
        wake: _Wake,
        facts: Mapping[str, Any],
    ) -> None:
        self._target, self._options, self._folder, self._watcher = target, options, folder, watcher
        self._wake = wake
        self._facts = facts
        self._series: dict[str, Series] = {}
        self._latest: dict[str, float] = {}

    def run(self) -> SoakResult:
        self._began_at, self._began = time.time(), time.monotonic()
        cpu_before = time.process_time()
        self._sampler = Sampler(
            self._target.tree, self._target.pid, self._options.interval_seconds, self._options.core_share
        )
        why = self._look_until_end()
        seconds, cpu_seconds = time.monotonic() - self._began, time.process_time() - cpu_before
        ending = self._end(why)
        judgements = judge_all(self._series, self._sampler.rooms, self._options.warmup_seconds)
        result = SoakResult(judgements, self._series, ending, self._all_facts(seconds, cpu_seconds))
        self._watcher.judged(result)
        self._folder.write_result(result.as_dict(), lambda: _page(result))
        return result

    def _look_until_end(self) -> int | None:
        """Why it ended: a signal's number, 0 after the duration, None where the target did."""
        due = self._began
        while True:
            due = max(due + self._options.interval_seconds, time.monotonic())
            if self._target.has_ended():
                return None
            self._look()
            ends = self._ends_at()
            select.select(
                [self._wake.descriptor, self._target.descriptor()], [], [], max(0.0, min(due, ends) - time.monotonic())
            )
            if number := self._wake.take():
                return number
            if time.monotonic() >= ends:
                return 0

    def _ends_at(self) -> float:
        duration = self._options.duration_seconds
        return float("inf") if duration is None else self._began + duration

    def _look(self) -> None:
        seconds = time.monotonic() - self._began
        values = self._sampler.look()
        if values:
            for name, value in values.items():
                self._series.setdefault(name, Series()).add(seconds, value)
            self._latest |= values
            self._folder.write_look(seconds, values)
            self._watcher.looked(seconds, self._latest)

    def _end(self, why: int | None) -> Ending:
        by = "itself" if why is None else signal.Signals(why).name if why else "duration"
        if why is not None:
            self._watcher.ending(by)
        left = self._target.end(why or signal.SIGTERM, self._options.grace_seconds, self._wake.descriptor)
        return Ending(by, why or 0, self._target.exit_code, left)

    def _all_facts(self, seconds: float, cpu_seconds: float) -> dict[str, Any]:
        return {
            **self._facts,
            "began_at": datetime.fromtimestamp(self._began_at).astimezone().isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "interval_seconds": self._options.interval_seconds,
            "warmup_seconds": self._options.warmup_seconds,
            "core_share": self._options.core_share,
            "oom_kills": self._sampler.oom_kills,
            "looks": {
                group.value: {
                    "looks": pace.num_looks,
                    "interval_seconds": round(pace.interval_seconds, 3),
                    "cpu_ms_per_look": round(pace.cost_seconds * 1e3, 4),
                }
                for group, pace in self._sampler.paces.items()
            },
            "cost": {"cpu_seconds": round(cpu_seconds, 4), "core_share": round(cpu_seconds / seconds, 6)},
            "environment": environment_facts(),
        }


def _page(result: SoakResult) -> str:
    from millpond._observe.report import render_report  # plotly: only when it is wanted
    from millpond._soak.report_page import soak_report

    return render_report(soak_report(result))
