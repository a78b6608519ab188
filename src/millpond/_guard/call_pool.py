"""A guard's workers and slots, with the calls that are out. Driven by one thread at a time; see `switchboard`."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from millpond._guard.adoption import SurroundingsWatch
from millpond._guard.call_errors import is_verdict
from millpond._guard.call_handler import NO_SLOT, CallHandler, pack_task
from millpond._guard.parcels import Parcel
from millpond._guard.result_slots import ResultSlots
from millpond._guard.slot_writer import SlotWriter
from millpond._workers.call_supervisor import CallSupervisor
from millpond._workers.messages import encode
from millpond._workers.outcomes import Completed, Failed
from millpond._workers.recycling import NO_RECYCLING, Recycling
from millpond._workers.undisturbed import undisturbed
from millpond._workers.verdicts import NEVER, TaskLimits
from millpond.errors import DecodeTimeout, WorkerDied

# The last: modules with functions that `with_timeout` has decorated import it.
PRELOAD = ("numpy", "millpond._guard.call_handler", "millpond._guard.timeouts")
# Workers are replaced as often as calls end them: a function that always crashes is for its caller to see.
_ANY_NUMBER = 1 << 62
# Importing a preload set takes its time from a network file system that is cold.
_START_SECONDS = 120.0
_MORE_LEASES = 4
"""Results that may lie in slots while the user holds them, beyond one for each worker."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What a guard's workers are started with; see `Guard`."""

    num_workers: int
    preload: tuple[str, ...] = ()
    recycling: Recycling = NO_RECYCLING
    on_demand: bool = False


@dataclass(slots=True)
class Tally:
    """Calls that were answered; written by the thread that drives."""

    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    died: int = 0

    def count(self, answer: Completed | Failed) -> None:
        """One more."""
        if isinstance(answer, Completed):
            self.completed += 1
        elif is_verdict(answer.error):
            self.timed_out += isinstance(answer.error, DecodeTimeout)
            self.died += isinstance(answer.error, WorkerDied)
        else:
            self.failed += 1


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call from its beginning until its answer is read.

    Attributes:
        parcel: Function and arguments.
        limits: Of the call.
        answer: What came, when it is there; its result still lies in the slot.
        pool_failed: The answer is no verdict on this call, but on all of them.
        slots, slot: Where arguments and result lie.
        is_abandoned: Nobody waits for it any more.
        gate: Something is put here to make the thread look that waits for it.
    """

    parcel: Parcel
    limits: TaskLimits
    answer: Completed | Failed | None = None
    pool_failed: bool = False
    slots: ResultSlots | None = None
    slot: int = NO_SLOT
    is_abandoned: bool = False
    gate: SimpleQueue[None] = field(default_factory=SimpleQueue)

    @classmethod
    def of_nobody(cls) -> PendingCall:
        """One that is never given out, for a thread that waits for something else than an answer."""
        return cls(Parcel([], []), TaskLimits(NEVER))

    def settle(self, answer: Completed | Failed, *, pool_failed: bool = False) -> None:
        """The answer is here."""
        self.pool_failed = pool_failed
        self.answer = answer
        self.gate.put(None)

    def release(self) -> None:
        """Nobody will read what lies in its slot. Idempotent."""
        slots, self.slots = self.slots, None
        if slots is not None:
            slots.release_unread(self.slot)

    def forget_pool(self) -> None:
        """The pool that had it is gone, and its slots with it."""
        self.slots, self.slot = None, NO_SLOT

    def __del__(self) -> None:
        self.release()  # whoever waited for it was interrupted before it could read the answer


class CallPool:
    """Workers that run calls.

    Attributes:
        slots: None where this machine has no such memory: there all goes through sockets.
    """

    def __init__(self, options: PoolOptions, tally: Tally) -> None:
        self._owner_pid = os.getpid()
        self._is_ended = False
        self._num_workers = options.num_workers
        self._tally = tally
        self._calls: dict[int, PendingCall] = {}
        self._last_id = 0
        self._surroundings = SurroundingsWatch()
        self.slots: ResultSlots | None = None
        with contextlib.suppress(OSError):
            self.slots = ResultSlots(options.num_workers + _MORE_LEASES)
        self.supervisor = CallSupervisor(
            encode(CallHandler()),
            num_workers=options.num_workers,
            # A call behind another in a worker would wait for it while other workers are idle, and might have begun
            # when the worker is killed for the other one.
            tasks_in_flight_per_worker=1,
            descriptors=[self.slots.descriptor] if self.slots else [],
            preload=(*PRELOAD, *options.preload),
            limits=TaskLimits(NEVER),
            max_attempts=1,
            max_restarts=_ANY_NUMBER,
            recycling=options.recycling,
            on_demand=options.on_demand,
            start_timeout_seconds=_START_SECONDS,
        )

    @property
    def unanswered(self) -> list[PendingCall]:
        """Calls that are out, in their order."""
        return list(self._calls.values())

    def give_out(self, queue: deque[PendingCall]) -> None:
        """Give workers the calls at the queue's head, as far as there is room. In order: none overtakes another."""
        while queue and len(self._calls) < self._num_workers:
            call = queue[0]
            if not call.is_abandoned:
                self._last_id += 1
                self._calls[self._last_id] = call
            queue.popleft()  # last: an interrupt must find it somewhere
            if not call.is_abandoned:
                self._begin(self._last_id, call)

    def _begin(self, task_id: int, call: PendingCall) -> None:
        try:
            if self.slots is None:
                message = call.parcel.send()
            else:
                call.slots, call.slot = self.slots, self.slots.reserve()
                message = call.parcel.send(SlotWriter(partial(self.slots.mapping, call.slot)))
        except Exception as error:  # noqa: BLE001 - for want of memory, most likely; it concerns this call alone
            del self._calls[task_id]
            call.release()
            call.settle(Failed(task_id, error))
            return
        self.supervisor.submit(task_id, pack_task(call.slot, self._surroundings.encoded(), message), limits=call.limits)

    def take_answers(self, timeout_seconds: float | None = None) -> None:
        """Wait until something happens, and settle the calls that were answered; raises as `Supervisor.wait` does."""
        for answer in self.supervisor.wait(timeout_seconds):
            call = self._calls[answer.task_id]
            if isinstance(answer, Failed):
                call.release()  # whatever is in its slot
            if not call.is_abandoned:
                self._tally.count(answer)
                call.settle(answer)
            del self._calls[answer.task_id]

    def withdraw_abandoned(self) -> None:
        """End the calls that nobody waits for: their workers are killed, or they do not begin."""
        self.supervisor.withdraw([task_id for task_id, call in self._calls.items() if call.is_abandoned])

    # ---- the end

    def __del__(self) -> None:
        if hasattr(self, "supervisor"):  # nobody closed the guard, or an interrupt kept somebody from it
            try:
                self.end_now()
            except BaseException:  # an interrupt, perhaps on the way in
                self.end_now()
                raise

    @property
    def failure(self) -> Exception | None:
        """Why the supervisor cannot go on, if it cannot."""
        return self.supervisor.failure

    def close(self) -> None:
        """End the workers in good order; calls that are out get no answer."""
        undisturbed(self._close)

    def _close(self) -> None:
        try:
            self.supervisor.close()
        finally:
            if self.slots is not None:
                self.slots.close()
            self._is_ended = True

    def end_now(self) -> None:
        """Kill the workers, also if an interrupt left the supervisor in disorder. Results stay; idempotent."""
        if os.getpid() == self._owner_pid and not self._is_ended:
            undisturbed(self._end_now)

    def _end_now(self) -> None:
        self.supervisor.end_now()
        self._is_ended = True


def is_in_order_after(error: BaseException) -> bool:
    """Whether an error hit the supervisor while it did nothing but wait.

    A signal handler's exception can come between any two steps. Nearly always it comes in the selector, from which
    nothing is lost: what is ready there is ready the next time.
    """
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "select" and frame.f_globals.get("__name__") == "selectors":
            return True
        trace = trace.tb_next
    return False
