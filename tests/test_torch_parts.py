"""Parts of the DataLoader that need no worker: turns, indices, positions, tasks, fetchers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond._torch.fetching import IterableFetcher, MapFetcher  # noqa: E402
from millpond._torch.indices import Indices  # noqa: E402
from millpond._torch.position import Position  # noqa: E402
from millpond._torch.tasks import FetchTask, Kind, Place, pack_answer, pack_task, unpack_answer, unpack_task  # noqa: E402
from millpond._torch.turns import Turns  # noqa: E402
from torch_datasets import MarkedStream, Numbered, Stream, TellingStream, identities, refuse  # noqa: E402

# ---- turns


def seats(turns: Turns, count: int) -> list[int | None]:
    """Who gets the next batches."""
    given_to = []
    for _ in range(count):
        seat = turns.choose_seat()
        if seat is not None:
            turns.give_out(seat)
        given_to.append(seat)
    return given_to


def test_seats_take_turns() -> None:
    assert seats(Turns(3, 6, in_order=True), 6) == [0, 1, 2, 0, 1, 2]
    assert seats(Turns(3, 6, in_order=True, first_seat=2), 4) == [2, 0, 1, 2]


def test_a_seat_without_samples_is_passed_over() -> None:
    turns = Turns(3, 6, in_order=True)
    seats(turns, 6)
    assert turns.exhaust(1)
    assert not turns.exhaust(4)
    assert seats(turns, 4) == [0, 2, 0, 2]


def test_out_of_order_a_seat_gets_no_more_than_its_share() -> None:
    turns = Turns(2, 4, in_order=False)
    assert seats(turns, 5) == [0, 1, 0, 1, None]
    turns.arrive(1, "one")
    turns.take(1)
    assert seats(turns, 1) == [1]


@given(st.permutations(range(8)), st.booleans())
def test_answers_come_once_and_in_order_if_that_is_wanted(arrivals: list[int], in_order: bool) -> None:
    turns = Turns(2, 8, in_order=in_order)
    seats(turns, 8)
    taken = []
    for number in arrivals:
        turns.arrive(number, number)
        while (due := turns.due()) is not None:
            taken.append(turns.take(due))
    assert taken == (sorted(arrivals) if in_order else arrivals)
    assert turns.is_over
    assert turns.num_here == 0


@given(st.data())
def test_an_epoch_ends_whichever_seats_end_when(data: st.DataObject) -> None:
    turns = Turns(3, 6, in_order=data.draw(st.booleans()))
    left = data.draw(st.lists(st.integers(0, 4), min_size=3, max_size=3))
    waiting = [(number, seat) for number, seat in enumerate(seats(turns, 6)) if seat is not None]
    taken, most = [], sum(left)
    while not turns.is_over:
        number, seat = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        if left[seat]:
            left[seat] -= 1
            turns.arrive(number, number)
        elif not turns.exhaust(number):
            continue
        while (due := turns.due()) is not None:
            taken.append(turns.take(due))
        given_before = turns.given_out
        if seats(turns, 1) != [None]:
            waiting.append((given_before, turns._turns[given_before].seat))
    assert len(taken) == len(set(taken)) == most
    assert turns.choose_seat() is None


# ---- indices and positions


class Draws:
    """Batches 0 to 9, and a sampler that knows how many were drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self) -> list[int]:
        if self.drawn == 10:
            raise StopIteration
        self.drawn += 1
        return [self.drawn - 1]

    def state_dict(self) -> dict[str, int]:
        return {"drawn": self.drawn}


def rest(indices: Indices) -> Iterator[tuple[int, Any]]:
    while True:
        try:
            yield indices.next()
        except StopIteration:
            return


def test_indices_go_on_behind_what_was_delivered_and_leave_out_what_was_ahead() -> None:
    indices = Indices(Draws(), None)
    indices.begin(Position(delivered=3, ahead={5, 8}), is_endless=False, length=None)
    assert list(rest(indices)) == [(number, [number]) for number in (3, 4, 6, 7, 9)]


@pytest.mark.parametrize("length", [None, 10])
def test_indices_of_an_epoch_that_was_delivered_are_none(length: int | None) -> None:
    indices = Indices(Draws(), None)
    indices.begin(Position(delivered=10), is_endless=False, length=length)
    assert not list(rest(indices))


def test_the_state_of_a_sampler_is_that_after_the_batches_delivered() -> None:
    draws = Draws()
    indices = Indices(draws, draws)
    indices.begin(None, is_endless=False, length=10)
    assert indices.state_after(0) is None
    list(rest(indices))
    assert [indices.state_after(delivered) for delivered in (1, 4, 10)] == [{"drawn": n} for n in (1, 4, 10)]


def test_a_sampler_may_give_the_very_state_that_it_changes() -> None:
    class Live(Draws):
        def state_dict(self) -> dict[str, int]:
            return self.__dict__

    draws = Live()
    indices = Indices(draws, draws)
    indices.begin(None, is_endless=False, length=10)
    list(rest(indices))
    assert indices.state_after(4) == {"drawn": 4}


@given(st.permutations(range(8)), st.integers(0, 8))
def test_a_position_knows_what_was_delivered_whatever_the_order(order: list[int], count: int) -> None:
    position = Position()
    for number in order[:count]:
        position.deliver(number)
    assert set(range(position.delivered)) | position.ahead == set(order[:count])
    assert position.delivered not in position.ahead


def test_a_position_comes_back_from_its_state() -> None:
    places = [Place(3, b"\x00state"), Place(2)]
    position = Position({"torch": b"\xff\x00"}, {"torch": b"\x01"}, 17, 4, {6, 9}, {"left": 3}, places, 1, True)
    assert Position.from_state(position.to_state()) == position


# ---- tasks and answers


@pytest.mark.parametrize("indices", [None, 3, [1, 2], [(1, 2), "key"], [None] * 3, range(3)])
def test_a_task_comes_as_it_was(indices: Any) -> None:
    task = FetchTask(2, 7, 1, 100, indices, (0, 2), True, Place(3, b"x"), 11)
    assert unpack_task(pack_task(task)) == task
    assert unpack_task(pack_task(FetchTask(0, 0, indices=indices))).indices == indices


def test_indices_of_a_task_may_have_no_name_to_be_imported_by() -> None:
    task = unpack_task(pack_task(FetchTask(0, 0, indices=[lambda: 5])))
    assert task.indices[0]() == 5


def test_an_answer_comes_apart_as_it_was() -> None:
    assert tuple(unpack_answer(pack_answer(Kind.BATCH, b"message", b"state"))) == (Kind.BATCH, b"state", b"message")
    assert tuple(unpack_answer(pack_answer(Kind.READY, b""))) == (Kind.READY, None, b"")


# ---- fetching


class Steps:
    """Counts samples as they are announced."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_each_sample_is_announced_before_it_is_fetched() -> None:
    steps, seen = Steps(), []
    dataset = {index: index for index in range(4)}

    class Watched:
        def __getitem__(self, index: int) -> int:
            seen.append(steps.count)
            return dataset[index]

    fetched = MapFetcher(Watched(), makes_batches=True, skips=False).fetch(
        [2, 0, 3], steps, left_out=(1,), one_by_one=False
    )
    assert (fetched.data, fetched.num_samples, seen) == ([2, 3], 2, [1, 3])


@pytest.mark.parametrize("makes_batches", [True, False])
def test_bad_samples_are_told_by_their_place(makes_batches: bool) -> None:
    fetcher = MapFetcher(Numbered(8, {3: refuse}), makes_batches=makes_batches, skips=True)
    fetched = fetcher.fetch([1, 3, 5] if makes_batches else 3, Steps(), left_out=(), one_by_one=False)
    assert [place for place, _ in fetched.bad] == [1 if makes_batches else 0]
    assert fetched.num_samples == (2 if makes_batches else 0)


@pytest.mark.parametrize("kind", [Stream, MarkedStream, TellingStream])
def test_a_fetcher_goes_on_from_its_state_or_by_going_through(kind: Any) -> None:
    def begun(state: Any) -> IterableFetcher:
        return IterableFetcher(kind(10), makes_batches=True, drop_last=False, skips=False, state=state)

    indices = [None] * 4
    fetcher = begun(None)
    fetcher.fetch(indices, Steps())
    other = begun(fetcher.state_dict())
    if fetcher.state_dict() is None:
        other.skip(1, indices, Steps())
    for expected in ([4, 5, 6, 7], [8, 9]):
        assert identities(torch.stack(other.fetch(indices, Steps()).data)) == expected
    with pytest.raises(StopIteration):
        other.fetch(indices, Steps())


def test_a_generator_that_raised_is_over_and_that_is_not_hidden() -> None:
    fetcher = IterableFetcher(Stream(8, {2: refuse}), makes_batches=True, drop_last=False, skips=True)
    with pytest.raises(ValueError, match="bad"):
        fetcher.fetch([None] * 4, Steps())


def test_the_last_short_batch_is_none_where_it_is_to_be_dropped() -> None:
    fetcher = IterableFetcher(Stream(6), makes_batches=True, drop_last=True, skips=False)
    fetcher.fetch([None] * 4, Steps())
    with pytest.raises(StopIteration):
        fetcher.fetch([None] * 4, Steps())
