"""Runs one chunk, wherever that is: its process and all that is below, looks at it, its limits, its end."""

from __future__ import annotations

import contextlib
import math
import select
import signal
import time
from collections.abc import Callable, Iterator

from millpond._cgroups import ControlGroups
from millpond._observe.memory import tree_memory
from millpond._sweep.cancel import KILLED, Cancel
from millpond._sweep.growing_file import GrowingFile
from millpond._sweep.keeper import Ended, Keeper
from millpond._sweep.keeper_process import STUCK_SECONDS
from millpond._sweep.looks import Looks
from millpond._sweep.orders import ChunkOrder, ChunkOutcome, EndedBy, Look
from millpond._sweep.progress import Progress
from millpond._sweep.strays import kill_strays
from millpond._sweep.work_folder import WorkFolder

_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.05, 0.5
_PRINTED_SECONDS = 0.1
_SILENCE_SECONDS = STUCK_SECONDS + 15


def run_chunk(
    order: ChunkOrder,
    keeper: Keeper | None = None,
    *,
    cancel: Cancel | None = None,
    looked: Callable[[Look], None] | None = None,
    printed: Callable[[bytes], None] | None = None,
) -> ChunkOutcome:
    """Run a chunk's command and wait for its end, and that of every process it started.

    Whatever is raised in here (KeyboardInterrupt, an error of a callback) ends all of them at once, and the keeper.

    Args:
        order: The chunk.
        keeper: Runs it, and can run another one afterwards if it `is_alive`; None: one of its own.
        cancel: Ends it from outside.
        looked: Called with every look at the chunk's processes, in this thread.
        printed: Called with what they print, in pieces, in this thread.

    Returns:
        How it ended; what a child does, or that it cannot be started, never raises.
    """
    began_at = time.time()
    if cancel is not None and cancel.level:
        return ChunkOutcome(order.number, None, EndedBy.CANCELLED, began_at=began_at)
    try:
        folder = WorkFolder(order)
    except OSError as error:
        problem = f"cannot write the files of chunk {order.number}: {error}"
        return ChunkOutcome(order.number, None, problem=problem, began_at=began_at)
    num_oom_kills = ControlGroups().oom_kills() or 0
    with folder, _closed_on_error(keeper) as its_keeper:
        run = _ChunkRun(order, folder, its_keeper, cancel, looked, printed)
        ended = run.wait()
        return ChunkOutcome(
            number=order.number,
            exit_code=ended.exit_code,
            ended_by=_ended_by(ended, run.ended_by),
            problem=ended.problem or _stuck_in_words(ended.num_stuck),
            metrics=folder.metrics(),
            progress=folder.progress(),
            log=folder.log(),
            began_at=began_at,
            duration_seconds=run.elapsed_seconds,
            peak_pss_bytes=run.looks.peak_pss_bytes,
            peak_rss_bytes=ended.max_rss_bytes,
            oom_kills=max(0, (ControlGroups().oom_kills() or 0) - num_oom_kills),
            num_left_behind=ended.num_left_behind,
            looks=run.looks.kept,
        )


@contextlib.contextmanager
def _closed_on_error(given: Keeper | None) -> Iterator[Keeper]:
    keeper = Keeper() if given is None else given
    try:
        yield keeper
    except BaseException:
        keeper.close()
        raise
    if given is None:
        keeper.close()


def _ended_by(ended: Ended, wanted_by: EndedBy) -> EndedBy:
    """A process may have ended by itself just before it was asked to."""
    if ended.is_lost:
        return EndedBy.LOST
    return wanted_by if ended.was_asked else EndedBy.ITSELF


def _stuck_in_words(num_stuck: int) -> str:
    if not num_stuck:
        return ""
    return f"{num_stuck} of its processes outlived SIGKILL by {STUCK_SECONDS:.0f} s and were not waited for any longer"


class _ChunkRun:
    """A chunk that runs: `wait` for its end."""

    def __init__(
        self,
        order: ChunkOrder,
        folder: WorkFolder,
        keeper: Keeper,
        cancel: Cancel | None,
        looked: Callable[[Look], None] | None,
        printed: Callable[[bytes], None] | None,
    ) -> None:
        self.ended_by = EndedBy.ITSELF
        self.looks = Looks()
        self._order = order
        self._folder = folder
        self._keeper = keeper
        self._cancel, self._cancel_level = cancel, 0
        self._looked, self._printed = looked, printed
        self._progress = Progress()
        self._began = self._progressed = time.monotonic()
        self._next_look, self._look_interval = self._began + _FIRST_LOOK_SECONDS, _FIRST_LOOK_SECONDS
        self._give_up_at = math.inf

    @property
    def elapsed_seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began

    def wait(self) -> Ended:
        """Start it, and attend to it until nothing is left of it."""
        with (
            contextlib.closing(GrowingFile(self._folder.log_path, from_end=True)) as log,
            contextlib.closing(GrowingFile(self._folder.progress_path)) as told,
        ):
            self._start()
            while (ended := self._keeper.poll()) is None:
                self._attend(log, told, time.monotonic())
                self._sleep()
            if ended.is_lost:
                kill_strays([self._folder.progress_path])
            while self._pass_on(log):
                pass
            return ended

    def _start(self) -> None:
        folder = self._folder
        removed = folder.path if folder.is_temporary else ""
        self._keeper.start(folder.command(), folder.environment(), folder.directory(), folder.log_path, removed)

    def _attend(self, log: GrowingFile, told: GrowingFile, now: float) -> None:
        """Do all that is due."""
        self._pass_on(log)
        self._hear(told, now)
        if now >= self._next_look:
            self._look(now)
        if now >= self._deadline:
            self._end(EndedBy.TIMEOUT)
        if self._cancel is not None and self._cancel.level > self._cancel_level:
            self._obey(self._cancel)
        if now >= self._give_up_at:
            self._keeper.kill()

    def _sleep(self) -> None:
        """Until the keeper or the canceller has news, or something is due."""
        poller = select.poll()
        for descriptor in self._keeper.descriptors:
            poller.register(descriptor, select.POLLIN)
        cancelled = None if self._cancel is None else self._cancel.next_descriptor(self._cancel_level)
        if cancelled is not None:
            poller.register(cancelled, select.POLLIN)
        now = time.monotonic()
        due = min(self._next_look, self._deadline, self._give_up_at, *([now + _PRINTED_SECONDS] * bool(self._printed)))
        poller.poll(max(0, math.ceil((due - now) * 1000)))

    def _pass_on(self, log: GrowingFile) -> bool:
        output = b"" if self._printed is None else log.read_on()
        if output and self._printed is not None:
            self._printed(output)
        return bool(output)

    def _hear(self, told: GrowingFile, now: float) -> None:
        if news := told.read_on():
            self._progress.feed(news)
            self._progressed = now

    def _look(self, now: float) -> None:
        pss_bytes = tree_memory(self._keeper.pid, without={self._keeper.pid}).pss_bytes
        look = Look(now - self._began, pss_bytes, len(self._progress.seconds), self._progress.current)
        self.looks.add(look)
        if self._looked is not None:
            self._looked(look)
        budget_bytes = self._order.budget_bytes
        if budget_bytes is not None and pss_bytes > budget_bytes and not self._progress.cooperates:
            self._end(EndedBy.BUDGET)
        self._look_interval = min(self._look_interval * 2, _LONGEST_LOOK_SECONDS)
        self._next_look = time.monotonic() + self._look_interval

    @property
    def _deadline(self) -> float:
        """Of the job that a cooperating child is at, else of the chunk; monotonic, passed once."""
        limit_seconds = self._order.timeout_seconds
        if limit_seconds is None or self.ended_by is not EndedBy.ITSELF:
            return math.inf
        return self._progressed + limit_seconds

    def _obey(self, cancel: Cancel) -> None:
        self._cancel_level = cancel.level
        if cancel.level >= KILLED:
            self._end(EndedBy.CANCELLED, grace_seconds=0.0)
        else:
            self._end(EndedBy.CANCELLED, cancel.number)

    def _end(self, ended_by: EndedBy, number: int = signal.SIGTERM, grace_seconds: float | None = None) -> None:
        """Have it ended; a second reason does not count, but may shorten the grace."""
        if self.ended_by is EndedBy.ITSELF:
            self.ended_by = ended_by
        elif grace_seconds is None:
            return
        if grace_seconds is None:
            grace_seconds = self._order.grace_seconds
        self._keeper.end(grace_seconds, number)
        self._give_up_at = time.monotonic() + grace_seconds + _SILENCE_SECONDS
