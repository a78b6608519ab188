"""The life-cycle table, and the rule of poison, as tables."""

from __future__ import annotations

import pytest

from millpond._workers.lifecycle import TRANSITIONS, Attempt, Cause, Event, State, is_poison, next_state, runs_alone
from millpond.errors import InternalError

D, S, T = Cause.DIED, Cause.STALLED, Cause.TIMED_OUT


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ((Event.READY,), State.IDLE),
        ((Event.READY, Event.DISPATCHED, Event.DISPATCHED, Event.FINISHED), State.BUSY),
        ((Event.READY, Event.DISPATCHED, Event.EMPTIED), State.IDLE),
        ((Event.READY, Event.DISPATCHED, Event.OVER_LIMIT, Event.REAPED), State.DEAD),
        ((Event.READY, Event.DISPATCHED, Event.OVER_LIMIT, Event.KILL, Event.EMPTIED, Event.REAPED), State.DEAD),
        ((Event.DRAIN, Event.READY, Event.REAPED), State.DEAD),
        ((Event.KILL, Event.UNREAPABLE), State.LOST),
    ],
)
def test_events_lead_to(events: tuple[Event, ...], end: State) -> None:
    state = State.STARTING
    for event in events:
        state = next_state(state, event)
    assert state is end


def test_what_the_table_lacks_raises_naming_event_and_state() -> None:
    with pytest.raises(InternalError, match=r"in state IDLE cannot take the event FINISHED") as caught:
        next_state(State.IDLE, Event.FINISHED)
    assert (caught.value.state, caught.value.event) == ("IDLE", "FINISHED")


def test_nothing_leaves_death_or_loss() -> None:
    assert not [event for state, event in TRANSITIONS if state in (State.DEAD, State.LOST)]


def test_every_other_state_can_be_reaped() -> None:
    living = set(State) - {State.DEAD, State.LOST}
    assert {state for state, event in TRANSITIONS if event is Event.REAPED} == living


def test_only_a_killed_worker_is_lost() -> None:
    assert [state for (state, event), after in TRANSITIONS.items() if event is Event.UNREAPABLE] == [State.KILLED]


@pytest.mark.parametrize(
    ("attempts", "poison"),
    [
        ([(D, 0)], False),
        ([(D, 3), (D, 3)], True),
        ([(D, 3), (S, 3)], True),
        ([(D, 3), (D, 9)], False),
        ([(D, 1), (D, 2), (D, 3)], False),
        ([(D, 1), (S, 2), (D, 3), (D, 4)], True),
        ([(T, 1), (T, 2)], True),
        ([(T, 1), (D, 2)], False),
    ],
)
def test_poison(attempts: list[tuple[Cause, int]], poison: bool) -> None:
    assert is_poison([Attempt(*attempt) for attempt in attempts]) is poison


def test_a_task_that_is_tried_once_is_poison_at_once_and_never_runs_alone() -> None:
    assert is_poison([Attempt(D, 0)], max_attempts=1)
    assert not runs_alone([], max_attempts=1)


def test_only_the_last_attempt_runs_alone() -> None:
    attempts = [Attempt(D, count) for count in range(4)]
    assert [runs_alone(attempts[:count]) for count in range(4)] == [False, False, False, True]
