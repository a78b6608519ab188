"""Which worker makes which batch, and which batch comes next; torch's rules. Pure.

Batch i goes to the next worker in turn that still has samples, and batches come in that order; with `in_order=False` to
the next that has fewest to do, and they come as they are made.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Turn:
    seat: int
    answer: Any = None
    is_here: bool = False


class Turns:
    """Batches of one epoch from the moment they are given out until they are delivered.

    Args:
        num_workers: Seats.
        most_outstanding: Batches under way at once.
        in_order: Whether batches come in the order of their numbers.
        first_seat: Who makes the first one.
    """

    def __init__(self, num_workers: int, most_outstanding: int, *, in_order: bool, first_seat: int = 0) -> None:
        self.is_active = [True] * num_workers
        self.given_out = 0
        self._most_outstanding = most_outstanding
        self._in_order = in_order
        self._load = [0] * num_workers
        self._next_seat = first_seat
        self._next_due = 0
        self._turns: dict[int, _Turn] = {}
        self._arrived: deque[int] = deque()

    def choose_seat(self) -> int | None:
        """Who makes the next batch; None if nobody can."""
        num_workers = len(self.is_active)
        for _ in range(num_workers):
            seat, self._next_seat = self._next_seat, (self._next_seat + 1) % num_workers
            if self.is_active[seat] and (self._in_order or self._load[seat] < self._fair_load):
                return seat
        return None

    @property
    def _fair_load(self) -> int:
        return self._most_outstanding // sum(self.is_active)

    def give_out(self, seat: int) -> int:
        """Have this seat make the next batch; the batch's number."""
        number = self.given_out
        self._turns[number] = _Turn(seat)
        self._load[seat] += 1
        self.given_out += 1
        return number

    def arrive(self, number: int, answer: Any) -> None:
        """A batch is here, or what became of it."""
        turn = self._turns.get(number)
        if turn is not None:
            turn.answer, turn.is_here = answer, True
            self._arrived.append(number)

    def exhaust(self, number: int) -> bool:
        """The seat of this batch has no more samples; False if that was known."""
        turn = self._turns.pop(number, None)
        if turn is None or not self.is_active[turn.seat]:
            return False
        self.is_active[turn.seat] = False
        self._load[turn.seat] -= 1
        return True

    def due(self) -> int | None:
        """The number of the batch that is to be delivered now; None if it is not here yet."""
        if not self._in_order:
            return self._arrived[0] if self._arrived else None
        self._pass_over()
        turn = self._turns.get(self._next_due)
        return self._next_due if turn is not None and turn.is_here else None

    def take(self, number: int) -> Any:
        """What `due` named: it counts as delivered."""
        turn = self._turns.pop(number)
        self._arrived.remove(number)
        self._load[turn.seat] -= 1
        return turn.answer

    def here(self) -> list[Any]:
        """What arrived and was not delivered."""
        return [self._turns[number].answer for number in self._arrived]

    @property
    def num_here(self) -> int:
        """Batches that arrived and were not delivered."""
        return len(self._arrived)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of what was given out."""
        self._pass_over()
        return self._next_due >= self.given_out

    def _pass_over(self) -> None:
        """Go past batches that were delivered, and those of workers that had no samples for them."""
        while self._next_due < self.given_out:
            turn = self._turns.get(self._next_due)
            if turn is not None and (turn.is_here or self.is_active[turn.seat]):
                return
            self._turns.pop(self._next_due, None)
            self._next_due += 1
