"""What limits a loader, by how long its stages were at work; waits; the notes of a timeline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._loader import timeline as timeline_module
from millpond._loader.flows import Flows
from millpond._loader.lanes import Lanes
from millpond._loader.stage_times import StageTimes, WaitTimes
from millpond._loader.timeline import KEPT_SPANS, Timeline
from millpond._observe.spans import Span

SECOND = 10**9


class Clock:
    """In place of the module `time`."""

    now = 1

    def monotonic_ns(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timeline_module, "time", clock)
    return clock


def stretch(**shares: float) -> StageTimes:
    """Ten seconds of two workers."""
    amounts = {name: int(seconds * SECOND) for name, seconds in shares.items()}
    return StageTimes(**{"at_ns": 10 * SECOND, "fetch": 0, "decode": 0, "gather": 0, "wait": 0, "samples": 0} | amounts)


@pytest.mark.parametrize(
    ("shares", "fetches_ahead", "limit"),
    [
        ({"decode": 19, "wait": 9}, False, "decode"),
        ({"decode": 19, "wait": 0.5}, False, "consumer"),
        ({"decode": 4, "gather": 15, "wait": 5}, False, "gather"),
        ({"decode": 4, "fetch": 15, "wait": 5}, False, "fetch"),
        ({"decode": 6, "wait": 8}, True, "fetch"),  # workers idle, and bytes come from afar
        ({"decode": 6, "wait": 8}, False, "decode"),  # workers idle while one of them decodes what blocks the pond
        ({"decode": 12, "fetch": 1, "wait": 8}, True, "decode"),
        ({}, False, None),
    ],
)
def test_what_limits_is_what_took_most_of_the_time(
    shares: dict[str, float], fetches_ahead: bool, limit: str | None
) -> None:
    assert stretch(**shares).limiting_stage(2, fetches_ahead=fetches_ahead) == limit


def test_a_difference_of_times_tells_the_rate_in_between() -> None:
    later = StageTimes(5 * SECOND, 0, 0, 0, 0, 900)
    assert later.since(StageTimes(2 * SECOND, 0, 0, 0, 0, 300)).samples_per_second == 200
    assert later.since(later).samples_per_second == 0


def test_quantiles_of_waits_are_in_seconds() -> None:
    waits = WaitTimes.of(list(range(0, 101 * SECOND, SECOND)))
    assert (waits.p50_seconds, waits.p95_seconds, waits.p99_seconds) == (50, 95, 99)
    assert WaitTimes.of([]) == WaitTimes(0, 0, 0)


def test_a_wait_that_has_not_ended_counts_and_a_pause_between_epochs_does_not(clock: Clock) -> None:
    timeline = Timeline(1, fetches_ahead=False)
    clock.now += 100 * SECOND
    timeline.begin_epoch(0)
    clock.now += SECOND
    timeline.deliver(50)
    clock.now += 100 * SECOND  # the epoch is broken off
    timeline.begin_epoch(1)
    clock.now += SECOND
    timeline.begin_wait()
    clock.now += 3 * SECOND
    recent = timeline.recent(goes_on=True)
    assert (recent.seconds, recent.samples_per_second, recent.wait) == (5, 10, 3 * SECOND)
    assert timeline.limiting_stage(recent) == "decode"


def test_a_timeline_keeps_the_last_spans_only() -> None:
    timeline = Timeline(1, fetches_ahead=False)
    for number in range(KEPT_SPANS + 5):
        timeline.note(Span("plan", 0, number, number, "draw"))
    assert [span.began_ns for span in timeline.spans()] == list(range(5, KEPT_SPANS + 5))


def test_a_batch_is_led_back_to_its_decodes_and_their_fetches() -> None:
    flows = Flows()
    fetched = [number for _ in range(3) for number in flows.fetched((7, 0))]
    came, went = flows.decoded((7, 0), [4, 5])
    assert (list(came), len(went)) == (fetched, 2)
    gathered, (onward,) = flows.gathered(4)
    assert gathered == went[:1]
    assert flows.delivered(4) == (onward,)
    assert flows.delivered(5) == went[1:]
    assert flows.delivered(5) == ()


@given(st.lists(st.integers(0, 9)))
def test_lanes_under_way_at_once_differ_and_are_as_few_as_can_be(ends: list[int]) -> None:
    lanes, taken, most = Lanes(), list[int](), 0
    for end in ends:
        taken.append(lanes.take())
        most = max(most, len(taken))
        assert len(set(taken)) == len(taken)
        assert max(taken) < most
        if end < len(taken):
            lanes.give_back(taken.pop(end))
