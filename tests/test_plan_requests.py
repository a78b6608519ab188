"""Every byte that is wanted is in some request, none is fetched twice, and gaps and lengths keep to their bounds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._plan.requests import RequestPlan, plan_requests
from millpond._values import ByteRange

RANGES = st.lists(st.builds(lambda start, length: ByteRange(start, start + length), st.integers(0, 300),
                            st.integers(0, 60)), max_size=30)  # fmt: skip
OBJECT = bytes(i % 251 for i in range(400))


def taken(plan: RequestPlan) -> list[bytes]:
    """What whoever carries out the plan gives for each range."""
    got = [OBJECT[request.start : request.stop] for request in plan.requests]
    return [b"".join(got[piece.request][piece.start : piece.stop] for piece in pieces) for pieces in plan.pieces]


@given(RANGES, st.integers(0, 50), st.integers(1, 100))
def test_the_pieces_of_a_range_are_its_bytes(ranges: list[ByteRange], gap: int, longest: int) -> None:
    plan = plan_requests(ranges, gap, longest)
    assert taken(plan) == [OBJECT[wanted.start : wanted.stop] for wanted in ranges]


@given(RANGES, st.integers(0, 50), st.integers(1, 100))
def test_requests_are_disjoint_in_order_and_within_their_bound(ranges: list[ByteRange], gap: int, longest: int) -> None:
    requests = plan_requests(ranges, gap, longest).requests
    assert all(0 < len(request) <= longest for request in requests)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(requests))


@given(RANGES, st.integers(0, 50), st.integers(1, 100))
def test_nothing_beyond_short_gaps_is_fetched_along(ranges: list[ByteRange], gap: int, longest: int) -> None:
    plan = plan_requests(ranges, gap, longest)
    wanted = {byte for one in ranges for byte in range(one.start, one.stop)}
    fetched = {byte for one in plan.requests for byte in range(one.start, one.stop)}
    assert wanted <= fetched
    assert plan.num_bytes == len(fetched)
    extra = sorted(fetched - wanted)
    runs = sum(a + 1 != b for a, b in itertools.pairwise(extra)) + bool(extra)
    assert len(extra) <= gap * runs


@given(RANGES, st.integers(0, 50))
def test_what_lies_close_together_is_one_request(ranges: list[ByteRange], gap: int) -> None:
    requests = plan_requests(ranges, gap, 1000).requests
    assert all(b.start - a.stop > gap for a, b in itertools.pairwise(requests))


def test_a_long_run_is_split_evenly() -> None:
    plan = plan_requests([ByteRange(0, 100), ByteRange(100, 250)], 0, 100)
    assert [len(request) for request in plan.requests] == [83, 83, 84]
    assert [len(pieces) for pieces in plan.pieces] == [2, 2]


def test_nothing_wanted_is_nothing_fetched() -> None:
    assert plan_requests([], 10, 10) == RequestPlan((), ())
    assert plan_requests([ByteRange(7, 7)], 10, 10) == RequestPlan((), ((),))


@pytest.mark.parametrize(("gap", "longest"), [(-1, 10), (0, 0)])
def test_bounds_that_make_no_plan_are_refused(gap: int, longest: int) -> None:
    with pytest.raises(ValueError, match="make no plan"):
        plan_requests([], gap, longest)
