"""Draws a loader's indices, and goes on in the middle of an epoch."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

from millpond._torch.position import Position


class Indices:
    """Indices of batches, in the sampler's order.

    Args:
        draw: The next ones of the sampler; StopIteration at its end.
        sampler: One that can tell where it is; None: it is gone through from its start.
    """

    def __init__(self, draw: Callable[[], Any], sampler: Any) -> None:
        self._draw = draw
        self._sampler = sampler
        self._states: dict[int, Any] = {}  # batch -> the sampler's state after it was drawn
        self._next = 0
        self._ahead: set[int] = set()
        self._drawn: list[Any] = []  # not given out yet
        self._has_ended = False

    def begin(self, position: Position | None, *, is_endless: bool, length: int | None) -> None:
        """Begin an epoch, or go on where one was.

        Args:
            position: None: at its start.
            is_endless: Whether indices say nothing but how many there are: none is gone through.
            length: Batches of an epoch, where that is known.
        """
        self._states.clear()
        self._drawn.clear()
        self._next, self._ahead, self._has_ended = 0, set(), False
        if position is None:
            return
        self._next, self._ahead = position.delivered, set(position.ahead)
        has_place = self._sampler is not None and position.sampler is not None
        # A sampler that was asked for a last, short batch has come to its end with it, and stands at its start again.
        self._has_ended = has_place and self._next == length
        if is_endless or self._has_ended:
            return
        with contextlib.suppress(StopIteration):
            for _ in range(0 if has_place else position.delivered):
                self._draw()
            self._drawn.append(self._draw())  # now, while torch's generator is as it was: samplers seed themselves late

    def next(self) -> tuple[int, Any]:
        """Number in the epoch, and indices, of the next batch that has not been delivered."""
        while True:
            if self._has_ended:
                raise StopIteration
            indices = self._drawn.pop() if self._drawn else self._draw()
            number, self._next = self._next, self._next + 1
            if self._sampler is not None:  # a copy: the state may be the sampler's own, which changes
                self._states[number] = copy.deepcopy(self._sampler.state_dict())
            if number not in self._ahead:
                return number, indices

    def state_after(self, delivered: int) -> Any:
        """The sampler's state when so many batches had been drawn; None if it cannot tell."""
        for number in [number for number in self._states if number < delivered - 1]:
            del self._states[number]
        return self._states.get(delivered - 1)
