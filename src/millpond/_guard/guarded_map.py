"""Many calls of a guard, ahead of who consumes their results."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal

from millpond._guard.guarded_call import GuardedCall
from millpond._guard.switchboard import Switchboard

logger = logging.getLogger("millpond")

OnError = Literal["raise", "skip", "return"]


def results_of(calls: CallsAhead, on_error: OnError) -> Generator[Any, None, None]:
    """The results of calls in order; closing it early ends what still runs. See `Guard.map`."""
    number, skipped, first_error = -1, 0, ""
    try:
        while (call := calls.next()) is not None:
            number += 1
            try:
                result = calls.result_of(call)
            except Exception as error:
                if on_error == "raise" or (isinstance(call, GuardedCall) and call.concerns_all):
                    error.add_note(f"item {number} of Guard.map, counted from 0")
                    raise
                if on_error == "skip":
                    skipped += 1
                    first_error = first_error or f"item {number}: {type(error).__name__}: {error}"
                    continue
                result = error.with_traceback(None)  # its frames hold this guard; the worker's are in a note
            yield result
            del result  # how long it lives is for the consumer to say
    finally:
        if skipped:
            logger.warning("Guard.map skipped %d of %d items; the first: %s", skipped, number + 1, first_error)
        calls.abandon()


class CallsAhead:
    """Calls for the items of an iterator, begun before their results are wanted.

    Args:
        switchboard: That carries them out.
        items: What each is for.
        make_call: Of an item; may raise if it cannot travel.
        max_ahead: Calls that are out, or wait for their turn.
    """

    def __init__(
        self, switchboard: Switchboard, items: Iterator[Any], make_call: Callable[[Any], GuardedCall], max_ahead: int
    ) -> None:
        self._switchboard = switchboard
        self._items = items
        self._make_call = make_call
        self._max_ahead = max_ahead
        self._ahead: deque[GuardedCall | Exception] = deque()
        self._is_exhausted = False
        self._ending: Exception | None = None

    def next(self) -> GuardedCall | Exception | None:
        """The next call, or why there is none for its item; None at the end.

        Raises:
            Exception: The iterator's own, when what came before it has been consumed.
        """
        is_first = True
        while not self._is_exhausted and len(self._ahead) < self._max_ahead:
            if not is_first and self._has_result:
                break  # what is ready must not wait for an iterator that is slow
            self._begin_next()
            is_first = False
        if self._ahead:
            return self._ahead.popleft()
        if self._ending is not None:
            raise self._ending
        return None

    @property
    def _has_result(self) -> bool:
        head = self._ahead[0] if self._ahead else None
        return isinstance(head, GuardedCall) and head.is_answered

    def _begin_next(self) -> None:
        try:
            item = next(self._items)
        except StopIteration:
            self._is_exhausted = True
            return
        except Exception as error:  # noqa: BLE001 - raised in its turn
            self._is_exhausted, self._ending = True, error
            return
        try:
            call = self._make_call(item)
        except TypeError as error:  # it cannot travel
            self._ahead.append(error)
        else:
            call.pending.parcel.detach()  # the iterator may fill the same array with its next item
            self._ahead.append(call)
            self._switchboard.submit(call.pending, begin=True)

    def result_of(self, call: GuardedCall | Exception) -> Any:
        """The result of a call, or raises its error."""
        if isinstance(call, Exception):
            raise call
        return call.result(self._switchboard)

    def abandon(self) -> None:
        """Nobody will consume what is ahead."""
        calls = [call.pending for call in self._ahead if isinstance(call, GuardedCall)]
        self._ahead.clear()
        if calls:
            self._switchboard.abandon(calls)
