"""The life of a worker as a table, and the rule that says when a task is poison. Pure: no processes here.

::

    starting -ready-> idle -dispatched-> busy -emptied-> idle
    idle, busy -drain-> draining            (asked to end; takes no more tasks)
    starting, busy, draining -over_limit-> hung    (asked for its stack, which ends it)
    any of these -kill-> killed             (SIGKILL was sent)
    killed -unreapable-> lost               (state D: the kernel waits for storage on its behalf)
    any of these but lost -reaped-> dead

A lost worker is as good as dead: with SIGKILL pending it runs no instruction of ours ever again, and what the kernel
still reads for it goes to its private memory. So its task is given to another, and its place to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from millpond.errors import InternalError


class State(Enum):
    """What a worker is, as the supervisor knows it."""

    STARTING = auto()
    IDLE = auto()
    BUSY = auto()
    DRAINING = auto()
    HUNG = auto()
    KILLED = auto()
    LOST = auto()
    DEAD = auto()


class Event(Enum):
    """What happens to a worker."""

    READY = auto()  # its handler is attached
    DISPATCHED = auto()  # a task was sent to it
    FINISHED = auto()  # an answer came, and it has more tasks
    EMPTIED = auto()  # an answer came, and it has no task left
    DRAIN = auto()  # it was asked to end
    OVER_LIMIT = auto()  # a limit passed; the signal that dumps its stack was sent
    KILL = auto()  # SIGKILL was sent
    UNREAPABLE = auto()  # it was killed and did not go
    REAPED = auto()  # it is gone, and can write nothing any more


_S, _E = State, Event
TRANSITIONS: dict[tuple[State, Event], State] = {
    (_S.STARTING, _E.READY): _S.IDLE,
    (_S.STARTING, _E.DRAIN): _S.DRAINING,
    (_S.STARTING, _E.OVER_LIMIT): _S.HUNG,
    (_S.STARTING, _E.KILL): _S.KILLED,
    (_S.STARTING, _E.REAPED): _S.DEAD,
    (_S.IDLE, _E.DISPATCHED): _S.BUSY,
    (_S.IDLE, _E.DRAIN): _S.DRAINING,
    (_S.IDLE, _E.KILL): _S.KILLED,
    (_S.IDLE, _E.REAPED): _S.DEAD,
    (_S.BUSY, _E.DISPATCHED): _S.BUSY,
    (_S.BUSY, _E.FINISHED): _S.BUSY,
    (_S.BUSY, _E.EMPTIED): _S.IDLE,
    (_S.BUSY, _E.DRAIN): _S.DRAINING,
    (_S.BUSY, _E.OVER_LIMIT): _S.HUNG,
    (_S.BUSY, _E.KILL): _S.KILLED,
    (_S.BUSY, _E.REAPED): _S.DEAD,
    (_S.DRAINING, _E.READY): _S.DRAINING,
    (_S.DRAINING, _E.FINISHED): _S.DRAINING,
    (_S.DRAINING, _E.EMPTIED): _S.DRAINING,
    (_S.DRAINING, _E.OVER_LIMIT): _S.HUNG,
    (_S.DRAINING, _E.KILL): _S.KILLED,
    (_S.DRAINING, _E.REAPED): _S.DEAD,
    # An answer may have been on its way when the limit passed or the signal was sent: it counts.
    (_S.HUNG, _E.READY): _S.HUNG,
    (_S.HUNG, _E.FINISHED): _S.HUNG,
    (_S.HUNG, _E.EMPTIED): _S.HUNG,
    (_S.HUNG, _E.KILL): _S.KILLED,
    (_S.HUNG, _E.REAPED): _S.DEAD,
    (_S.KILLED, _E.READY): _S.KILLED,
    (_S.KILLED, _E.FINISHED): _S.KILLED,
    (_S.KILLED, _E.EMPTIED): _S.KILLED,
    (_S.KILLED, _E.KILL): _S.KILLED,
    (_S.KILLED, _E.UNREAPABLE): _S.LOST,
    (_S.KILLED, _E.REAPED): _S.DEAD,
}


def next_state(state: State, event: Event) -> State:
    """The state after `event`.

    Raises:
        InternalError: The table has no such transition; the message names both.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        message = f"a worker in state {state.name} cannot take the event {event.name}"
        raise InternalError(message, state=state.name, event=event.name) from None


class Cause(Enum):
    """Why an attempt at a task ended without an answer."""

    DIED = auto()
    STALLED = auto()
    TIMED_OUT = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task that ended with its worker.

    Attributes:
        cause: Of the end.
        progress_count: How often it had called progress().
        stack: What the worker wrote of it; empty where it did not get to that, as on a machine that is overloaded.
        worker_index: Of the worker.
        pid: Of the worker.
        began_seconds: When it got the task, on the clock of time.monotonic().
        ended_seconds: When it was reaped.
    """

    cause: Cause
    progress_count: int
    stack: str = ""
    worker_index: int = 0
    pid: int = 0
    began_seconds: float = 0.0
    ended_seconds: float = 0.0


MAX_ATTEMPTS = 4


def is_poison(attempts: Sequence[Attempt], max_attempts: int = MAX_ATTEMPTS) -> bool:
    """Whether a task is to be given up.

    It is when it ended a worker twice at the same progress count (a worker that is killed from outside is hit at
    another count each time), twice by the total limit, or `max_attempts` times in all.
    """
    counts = [attempt.progress_count for attempt in attempts]
    timeouts = sum(attempt.cause is Cause.TIMED_OUT for attempt in attempts)
    return len(set(counts)) < len(counts) or timeouts >= 2 or len(attempts) >= max_attempts


def runs_alone(attempts: Sequence[Attempt], max_attempts: int = MAX_ATTEMPTS) -> bool:
    """Whether a task's next attempt is its last and so runs while no other task does.

    It may have died of what the others did: of the memory that all of them took together.
    """
    return 1 < max_attempts == len(attempts) + 1
