"""Gives batches to workers to make, and takes them in torch's order; driven by who wants the next one, no thread.

A batch whose worker died or hung is made again by the next worker of that seat. What an iterable dataset had gone
through is lost with its worker, unless it can tell where it was (`state_dict`): a new worker says that it is not in its
place, and is brought there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from millpond._torch import verdicts
from millpond._torch.receiving import Receiver
from millpond._torch.tasks import NO_BATCH, NO_SLOT, FetchTask, Kind, Place, pack_task, unpack_answer
from millpond._torch.turns import Turns
from millpond._workers.outcomes import Completed, Failed
from millpond._workers.seated_supervisor import SeatedSupervisor
from millpond.errors import MillpondError


@dataclass(slots=True)
class Assignment:
    """One batch and who makes it.

    Attributes:
        epoch: Of the iterator.
        number: Of the batch, among those that were given out.
        batch: Its number in the epoch.
        seat: Of its worker.
        turn: Batches of this seat before it; NO_BATCH: it shall just be ready.
        indices: As the sampler gave them.
        left_out: Places among them whose samples ended a worker, and why.
        one_by_one: Whether samples are fetched singly, to find the one that ends workers.
        place: Where the dataset goes on, if it must be told.
        slot: Where it is made.
    """

    epoch: int
    number: int
    batch: int
    seat: int
    turn: int
    indices: Any
    left_out: dict[int, Exception]
    one_by_one: bool = False
    place: Place | None = None
    slot: int = NO_SLOT


@dataclass(slots=True)
class Arrival:
    """A batch that is here, or why it is not: `answer` is a worker's, or an error."""

    assignment: Assignment
    kind: Kind
    answer: memoryview | Exception
    state: bytes | None = None

    def take_error(self) -> Exception:
        """The answer, of which nothing is kept here: an error whose frames hold it is a cycle."""
        error, self.answer = self.answer, memoryview(b"")
        assert isinstance(error, Exception)
        return error


@dataclass(frozen=True, slots=True)
class Rules:
    """What a supply goes by.

    Attributes:
        num_workers: Seats.
        prefetch_factor: Batches under way for each.
        in_order: Whether batches come in the order of their numbers.
        is_iterable: Kind of the dataset.
        makes_batches: Whether indices are lists.
        skips: Whether samples that end their workers are left out.
    """

    num_workers: int
    prefetch_factor: int
    in_order: bool
    is_iterable: bool
    makes_batches: bool
    skips: bool

    @property
    def most_outstanding(self) -> int:
        """Batches under way at once."""
        return self.num_workers * self.prefetch_factor


class Supply:
    """Batches of one iterator, epoch after epoch.

    Args:
        supervisor: Of its workers; closed by who made it.
        receiver: Of what they make.
        rules: To go by.
        next_indices: Gives number and indices of the next batch; StopIteration at the epoch's end.
        on_left_out: Told what was left out where no batch came of it.
    """

    def __init__(
        self,
        supervisor: SeatedSupervisor,
        receiver: Receiver,
        rules: Rules,
        next_indices: Callable[[], tuple[int, Any]],
        on_left_out: Callable[[list[tuple[int, bytes]]], None],
    ) -> None:
        self._supervisor = supervisor
        self._receiver = receiver
        self._rules = rules
        self._next_indices = next_indices
        self._on_left_out = on_left_out
        self._epoch = -1
        self._last_task_id = 0
        self._in_flight: dict[int, Assignment] = {}
        self._turns = Turns(rules.num_workers, rules.most_outstanding, in_order=rules.in_order)
        self._taken: Arrival | None = None
        self._events: deque[Completed | Failed] = deque()

    def begin_epoch(self, places: Sequence[Place], first_seat: int = 0, shared_seed: int | None = None) -> None:
        """Give out the first batches; those of a former epoch that are still under way come to nothing.

        Args:
            places: Where an iterable dataset goes on, by seat.
            first_seat: Who makes the first batch.
            shared_seed: Of this epoch, for datapipes; None: the one that the iterator began with.
        """
        rules = self._rules
        for arrival in (*self._turns.here(), self._taken):
            self.drop(arrival)
        self._epoch += 1
        self._shared_seed = shared_seed
        self._turns = Turns(rules.num_workers, rules.most_outstanding, in_order=rules.in_order, first_seat=first_seat)
        self._given_turns = [place.turn for place in places]
        self._first_places, self._places = list(places), list(places)
        self._waiting: deque[Assignment] = deque()
        self._taken = None
        for _ in range(rules.most_outstanding):
            self._give_out_next()
        busy = {assignment.seat for assignment in self._in_flight.values()}
        for seat in set(range(rules.num_workers)) - busy:  # so that each worker is initialized, as torch has it
            self._submit(Assignment(self._epoch, -1, -1, seat, NO_BATCH, None, {}))

    def next(self) -> Arrival | None:
        """The next batch, waited for as long as it takes; None at the epoch's end.

        Raises:
            ArenaFull: What the user holds leaves no room for it.
            Exception: The sampler's own, once; or the supervisor's, which is then of no further use.
        """
        while (arrival := self._take_due()) is None and not self._turns.is_over:
            self._pump()
            if not self._in_use:
                raise self._receiver.full(self._receiver.largest_bytes)
            self._wait(None)
        return arrival

    def next_if_here(self) -> Arrival | None:
        """The next batch, if it is here already."""
        self._wait(0.0)
        return self._take_due()

    def drop(self, arrival: Arrival | None) -> None:
        """Give back the slot of a batch that nobody will take."""
        if arrival is not None:
            self._release(arrival.assignment, was_read=True)

    def _take_due(self) -> Arrival | None:
        while self._events:
            self._on_event(self._events.popleft())
        if self._taken is None:
            number = self._turns.due()
            if number is None:
                return None
            self._taken = self._turns.take(number)
            self._give_out_next()
        arrival, self._taken = self._taken, None
        return arrival

    def _wait(self, timeout_seconds: float | None) -> None:
        self._events.extend(self._supervisor.wait(timeout_seconds))

    @property
    def _in_use(self) -> int:
        """Slots of batches that were not delivered."""
        return len(self._in_flight) + self._turns.num_here + (self._taken is not None)

    # ---- giving out

    def _give_out_next(self) -> None:
        try:
            batch, indices = self._next_indices()
        except StopIteration:
            self._pump()
            return
        seat = self._turns.choose_seat()
        if seat is not None:
            turn = self._given_turns[seat]
            self._given_turns[seat] += 1
            place = self._first_places[seat]  # later ones are lost with their worker, if the dataset cannot tell them
            begins_there = place if place.turn == turn and turn > 0 else None
            number = self._turns.give_out(seat)
            self._waiting.append(Assignment(self._epoch, number, batch, seat, turn, indices, {}, place=begins_there))
        self._pump()

    def _pump(self) -> None:
        """Submit what waits, as far as there is memory for it."""
        while self._waiting and self._receiver.has_room(self._in_use):
            self._submit(self._waiting.popleft())

    def _submit(self, assignment: Assignment) -> None:
        slots = self._receiver.slots
        if assignment.slot == NO_SLOT and slots is not None and assignment.turn != NO_BATCH:
            assignment.slot = slots.reserve()
        self._last_task_id += 1
        self._in_flight[self._last_task_id] = assignment
        task = FetchTask(
            assignment.epoch,
            assignment.turn,
            assignment.slot,
            self._receiver.memory_bytes,
            assignment.indices,
            tuple(assignment.left_out),
            assignment.one_by_one,
            assignment.place,
            self._shared_seed,
        )
        self._supervisor.submit(self._last_task_id, pack_task(task), seat=assignment.seat)

    # ---- what comes back

    def _on_event(self, event: Completed | Failed) -> None:
        assignment = self._in_flight.pop(event.task_id)
        if assignment.epoch != self._epoch or assignment.turn == NO_BATCH:
            self._release(assignment, was_read=isinstance(event, Completed))
        elif isinstance(event, Failed):
            self._on_failed(assignment, event.error)
        else:
            self._on_answer(assignment, event.result)
        self._pump()

    def _on_answer(self, assignment: Assignment, result: bytes) -> None:
        kind, state, message = unpack_answer(result)
        if kind is Kind.OUT_OF_PLACE:
            self._put_in_place(assignment)
            return
        if kind is Kind.BATCH or kind is Kind.ERROR:
            self._places[assignment.seat] = Place(assignment.turn + 1, state)
        if kind is not Kind.BATCH:
            self._release(assignment, was_read=True)
        if kind is Kind.BATCH or kind is Kind.ERROR:
            self._turns.arrive(assignment.number, Arrival(assignment, kind, message, state))
        elif kind is Kind.EXHAUSTED and self._turns.exhaust(assignment.number):
            self._on_left_out(self._receiver.receive(message, None))
            self._give_out_next()

    def _put_in_place(self, assignment: Assignment) -> None:
        """A new worker is not where its dataset should be."""
        place = self._places[assignment.seat]
        if not self._turns.is_active[assignment.seat]:
            self._release(assignment, was_read=True)
        elif place.state is None or assignment.turn < place.turn:
            end = self._supervisor.last_end(assignment.seat)
            self._lose_seat(assignment, verdicts.place_lost(assignment.seat, assignment.turn, end))
        else:
            assignment.place = place if assignment.turn == place.turn else None
            self._submit(assignment)

    def _on_failed(self, assignment: Assignment, error: Exception) -> None:
        verdict = verdicts.is_verdict(error)
        if verdict and self._rules.skips and not self._rules.is_iterable and self._narrow_down(assignment, error):
            self._submit(assignment)
            return
        told = verdicts.told(error, assignment.seat, assignment.indices, is_left_out=False) if verdict else error
        if self._rules.is_iterable:
            self._lose_seat(assignment, told)
        else:
            self._turns.arrive(assignment.number, Arrival(assignment, Kind.ERROR, told))
            self._release(assignment, was_read=False)

    def _narrow_down(self, assignment: Assignment, error: Exception) -> bool:
        """Leave out the sample that ended its worker, or have samples fetched singly; False if neither can be."""
        assert isinstance(error, MillpondError)
        place = error.facts["progress_count"] - 1
        size = len(assignment.indices) if self._rules.makes_batches else 1
        if 0 <= place < size and place not in assignment.left_out:
            assignment.left_out[place] = verdicts.told(error, assignment.seat, assignment.indices, is_left_out=True)
            return True
        if place < 0 and self._rules.makes_batches and not assignment.one_by_one:
            assignment.one_by_one = True
            return True
        return False

    def _lose_seat(self, assignment: Assignment, error: Exception) -> None:
        """Nothing more can come of this seat in this epoch: its dataset's place is lost."""
        self._turns.is_active[assignment.seat] = False
        self._turns.arrive(assignment.number, Arrival(assignment, Kind.ERROR, error))
        self._release(assignment, was_read=False)

    def _release(self, assignment: Assignment, *, was_read: bool) -> None:
        slots = self._receiver.slots
        slot, assignment.slot = assignment.slot, NO_SLOT  # first: an interrupt may lose one, never free it twice
        if slots is not None and slot != NO_SLOT:
            (slots.release if was_read else slots.release_unread)(slot)
