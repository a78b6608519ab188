"""Work that no signal handler's exception comes into: descriptors are opened and closed, and noted, in one piece.

What a handler raises comes between any two steps of the main thread, and of no other: after a descriptor was opened,
and before the name that keeps it has it. No order of steps closes that gap, so such work has a thread of its own there.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_acts_for: dict[int, int] = {}
"""The threads of undisturbed work, each with the one that waits for it."""


def undisturbed(work: Callable[[], T]) -> T:
    """Do the work; what a signal handler raises meanwhile is raised once it is done.

    In the main thread it is done by another one, which costs 0.1 ms; elsewhere at once. An interrupt on the way in
    leaves it undone. The third of three within microseconds may be raised before the work, which goes on, has ended.

    Raises:
        BaseException: What the work raises, or a signal handler.
    """
    if threading.get_ident() != threading.main_thread().ident or sys.is_finalizing():  # then no thread would run
        return work()
    piece = _Piece(work)
    try:
        interrupt = _wait_for(piece)
    except BaseException as error:  # noqa: BLE001 - the second of two that came at once
        interrupt = _wait_for(piece) or error
    if interrupt is not None:
        try:
            raise interrupt
        finally:
            del interrupt  # whose traceback has this frame: a cycle would keep all that its frames have
    return piece.result()


def _wait_for(piece: _Piece[Any]) -> BaseException | None:
    """Until it is done; what a signal handler raised meanwhile, if any did."""
    interrupts: list[BaseException] = []
    while not piece.is_done:
        try:
            piece.begin()
            piece.wait()
        except BaseException as error:  # noqa: BLE001 - a handler's
            interrupts = [error]
    return interrupts.pop() if interrupts else None


def acting_thread() -> int:
    """The identity of this thread; in undisturbed work of the one that has it done."""
    ident = threading.get_ident()
    return _acts_for.get(ident, ident)


class _Piece(Generic[T]):
    """Some work, and the thread that does it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.is_done = False
        self._work = work
        self._waiting_thread = threading.get_ident()
        self._turns = [None]  # who takes it does the work: once, however often it is begun
        self._results: list[T] = []
        self._error: BaseException | None = None
        # No Event: who waits there takes locks by lines of Python, and an interrupt between those leaves them taken.
        self._ended = _thread.allocate_lock()
        self._ended.acquire()

    def begin(self) -> None:
        """Have it done, unless it is being done."""
        if self._turns:
            try:
                _thread.start_new_thread(self._launch, ())
            except RuntimeError:  # no thread is to be had, or the interpreter is about to end
                self._do()

    def _launch(self) -> None:
        # The thread that works is one of threading's: what asks there for the current thread would make up another,
        # which stays up to Python 3.11. Starting it waits for it on an Event, hence not in the main thread.
        try:
            threading.Thread(target=self._do, name="millpond-undisturbed", daemon=True).start()
        except (RuntimeError, MemoryError):
            self._do()

    def _do(self) -> None:
        try:
            self._turns.pop()
        except IndexError:
            return
        ident = threading.get_ident()
        _acts_for[ident] = self._waiting_thread
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
        finally:
            del _acts_for[ident]
            del self._work  # and what it holds: this thread may end a moment after the other goes on
            self.is_done = True
            self._ended.release()

    def wait(self) -> None:
        """Until it is done; raises what a signal handler does."""
        self._ended.acquire()

    def result(self) -> T:
        """Of the work, which is done; or what it raised."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._results.pop()
