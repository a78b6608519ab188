"""The guard: any function under a hard limit, in warm processes that are used again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from millpond._amounts import parse_bytes
from millpond._guard.call_pool import PoolOptions
from millpond._guard.calls import pack_function
from millpond._guard.default_timeout import default_timeout_seconds
from millpond._guard.functions import send_main_by_value
from millpond._guard.guarded_call import GuardedCall
from millpond._guard.guarded_map import CallsAhead, OnError, results_of
from millpond._guard.switchboard import Switchboard
from millpond._workers.cores import usable_cores
from millpond._workers.outcomes import WorkerStatistics
from millpond._workers.recycling import Recycling
from millpond._workers.verdicts import NEVER, TaskLimits

T = TypeVar("T")

_AHEAD_PER_WORKER = 4
BEGIN_SECONDS = 120.0
"""For importing what a function and its arguments are made of, in a worker that has not: torch from a network file
system takes its time, and must not be taken for a function that hangs."""


@dataclass(frozen=True, slots=True)
class GuardStatistics:
    """A guard at one moment.

    Attributes:
        calls_completed: That gave a result.
        calls_failed: That raised.
        calls_timed_out: That passed their limit; their workers were killed.
        calls_died: Whose worker ended by itself.
        restarts: Workers that were replaced because they ended.
        recycles: Workers that were replaced because they had had their time.
        results_held: Results that lie in shared memory because the caller holds them.
        shared_bytes: Shared memory that results have taken and that was not given back.
        workers: The processes.
    """

    calls_completed: int
    calls_failed: int
    calls_timed_out: int
    calls_died: int
    restarts: int
    recycles: int
    results_held: int
    shared_bytes: int
    workers: tuple[WorkerStatistics, ...]


class Guard:
    """Runs functions in worker processes that are ended when a call does not come back in time.

    A clip that makes a C library spin or wait while it holds the GIL can be stopped by no signal handler and no thread,
    only with its process. Workers are started once and used again; one that was ended is replaced at once. Large
    arrays, tensors and bytes come back through shared memory, mostly without a copy: writable, and yours for as long as
    you hold them.

    Works in any thread (many may call at once), in daemonic processes such as a DataLoader's workers, in notebooks, and
    in scripts without an import guard. Functions, arguments and results may come from `__main__`. After a fork the
    child makes a guard of its own; results that it inherited stay readable.

    Args:
        num_workers: Processes, all started now. None: as many as there are cores, each when it is first wanted.
        timeout: Seconds that a call may take once a worker has begun it; importing what it needs comes before (and may
            take two minutes), as does waiting for a worker that is free. None: what MILLPOND_DECODE_TIMEOUT says, or no
            limit; then a guard still keeps crashes away from you.
        preload: Modules that are imported once for all workers, so that each call finds them there. They may start no
            threads when they are imported.
        max_tasks_per_worker: Calls after which a worker is followed by a fresh one.
        max_worker_anon: Memory of its own (bytes, or "500MB") at which a worker is followed by a fresh one.

    Raises:
        TypeError, ValueError: An argument makes no sense; it says which.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        timeout: float | None = None,
        *,
        preload: Iterable[str] = (),
        max_tasks_per_worker: int | None = None,
        max_worker_anon: float | str | None = None,
    ) -> None:
        for name, value in (("num_workers", num_workers), ("max_tasks_per_worker", max_tasks_per_worker)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, or None, not {value!r}")
        if isinstance(preload, str):
            raise TypeError(f"preload is a sequence of module names: write ({preload!r},)")
        recycling = Recycling(max_tasks_per_worker, None if max_worker_anon is None else parse_bytes(max_worker_anon))
        self._limits = limits_of(timeout if timeout is not None else default_timeout_seconds() or NEVER)
        self._num_workers = num_workers or usable_cores()
        self._switchboard = Switchboard(
            PoolOptions(self._num_workers, tuple(preload), recycling, on_demand=num_workers is None)
        )
        send_main_by_value()
        self._switchboard.start()

    def with_timeout(self, seconds: float) -> Guard:
        """This guard with another limit, on the same workers: `guard.with_timeout(5).call(load, path)`."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _limits=limits_of(seconds))
        return other

    def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run `function(*args, **kwargs)` in a worker, at most once: a call that ended its worker is not tried again.

        Returns:
            Its result, bit for bit; tensors are on the CPU.

        Raises:
            DecodeTimeout: It did not end in time (a TimeoutError). Facts: function, item, limit_seconds,
                elapsed_seconds, stack (where it hung; a note, too).
            WorkerDied: Its worker ended. Facts: function, item, pid, exit_code, signal_name.
            RemoteError: It raised what cannot travel, the text and traceback of which are in it.
            TypeError: The function, an argument or the result cannot travel; it says which, and what to do.
            ClosedError: After close() or millpond.shutdown().
            UsageError: In a forked child; in a signal handler that interrupts a call of this guard.
            Exception: Whatever the function raises itself, with the worker's traceback as a note.
        """
        result: T = self.run(function, args, kwargs)
        return result

    def run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        timeout: float | None = None,
        item: str | None = None,
    ) -> Any:
        """As `call`, for wrappers around it.

        Args:
            function: That is run.
            args, kwargs: Its arguments.
            timeout: Seconds; None: the guard's.
            item: What errors name as what was worked on; None: the arguments.
        """
        self._switchboard.check_usable()
        limits = self._limits if timeout is None else limits_of(timeout)
        call = GuardedCall(function, pack_function(function), args, kwargs, limits, item=item)
        self._switchboard.submit(call.pending)
        return call.result(self._switchboard)

    def map(
        self, function: Callable[..., T], iterable: Iterable[Any], /, *, on_error: OnError = "raise"
    ) -> Generator[T, None, None]:
        """Run `function(item)` for each item, several at once; the results come in the order of the items.

        Items are taken as results are, and at most four for each worker are ahead. An iterator that is closed, or
        dropped, before its end ends what still runs for it.

        Args:
            function: Called with one item.
            iterable: Of items; may be endless.
            on_error: What becomes of an item whose call fails: "raise" its error, and end; "skip" it; or "return" the
                error in the place of its result.

        Raises:
            Exception: As `call`, when the iterator gets there. What would fail for every item is raised in any case.
        """
        if on_error not in ("raise", "skip", "return"):
            raise ValueError(f'on_error is "raise", "skip" or "return", not {on_error!r}')
        self._switchboard.check_usable()
        packed = pack_function(function)

        def make_call(item: Any) -> GuardedCall:
            return GuardedCall(function, packed, (item,), {}, self._limits)

        calls = CallsAhead(self._switchboard, iter(iterable), make_call, _AHEAD_PER_WORKER * self._num_workers)
        return results_of(calls, on_error)

    def close(self) -> None:
        """End the workers, and wait until they are gone. Idempotent; results that you hold stay as they are."""
        self._switchboard.close("this guard is closed")

    def statistics(self) -> GuardStatistics:
        """Counts, and who the workers are."""
        tally, pool = self._switchboard.tally, self._switchboard.pool
        slots = pool.slots if pool is not None else None
        workers = pool.supervisor.statistics() if pool is not None else None
        return GuardStatistics(
            tally.completed,
            tally.failed,
            tally.timed_out,
            tally.died,
            workers.restarts if workers else 0,
            workers.recycles if workers else 0,
            slots.leased if slots else 0,
            slots.memory_bytes if slots else 0,
            workers.workers if workers else (),
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a guard cannot travel to another process: make one there, or decorate the function with "
            "millpond.with_timeout, for which each process has its own"
        )

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def limits_of(seconds: float) -> TaskLimits:
    """A limit that a user gave.

    Raises:
        TypeError, ValueError: It is no positive number of seconds.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a timeout is a number of seconds, not {seconds!r}")
    if not seconds > 0:
        raise ValueError(f"a timeout must be positive, not {seconds!r}")
    return TaskLimits(float(seconds), begin_timeout_seconds=BEGIN_SECONDS)
