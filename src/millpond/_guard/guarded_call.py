"""One call of a guard, from its arguments to its result or error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millpond._guard.call_errors import in_words, named
from millpond._guard.call_pool import PendingCall
from millpond._guard.calls import Function, pack_call
from millpond._guard.functions import name_of
from millpond._guard.parcels import unpack
from millpond._guard.result_slots import ResultReader
from millpond._guard.switchboard import Switchboard
from millpond._workers.outcomes import Failed
from millpond._workers.verdicts import TaskLimits
from millpond.errors import ClosedError


class GuardedCall:
    """A call, with what messages say of it.

    Args:
        function: That is run.
        packed: The same, for its way to a worker.
        args, kwargs: Its arguments.
        limits: Of the call.
        item: What errors name as what was worked on; None: the arguments.

    Raises:
        TypeError: An argument cannot travel.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        packed: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        limits: TaskLimits,
        *,
        item: str | None = None,
    ) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._item = item
        self.pending = PendingCall(pack_call(function, packed, args, kwargs), limits)

    @property
    def is_answered(self) -> bool:
        """Whether `result` will not wait."""
        return self.pending.answer is not None

    @property
    def concerns_all(self) -> bool:
        """After an error of `result`: whether it is no verdict on this call, but would be the same for any."""
        return self.pending.answer is None or self.pending.pool_failed

    def result(self, switchboard: Switchboard) -> Any:
        """Wait for the answer; the result, or raises the error. Once only."""
        switchboard.wait_for(self.pending)
        answer = self.pending.answer
        if isinstance(answer, Failed):
            item = in_words(self._args, self._kwargs) if self._item is None else self._item
            raise named(answer.error, name_of(self._function), item)
        return self._unpack(answer.result if answer is not None else b"")

    def _unpack(self, message: bytes) -> Any:
        slots, self.pending.slots = self.pending.slots, None
        reader = None if slots is None else ResultReader(slots, self.pending.slot)
        try:
            return unpack(message, reader)
        except Exception as error:
            if slots is not None and slots.is_closed:
                raise ClosedError("this guard was closed before the result was read") from None
            error.add_note(f"raised while the result of {name_of(self._function)} was unpickled")
            raise
        finally:
            if reader is not None:
                reader.close()
