"""Undisturbed work: what a signal handler raises comes after it, never into it."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

from guard_tasks import die, echo
from millpond import Guard, WorkerDied
from millpond._workers.undisturbed import acting_thread, undisturbed


class Alarm(BaseException):
    """As KeyboardInterrupt: no error, and may come in anything."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Has Alarm raised in the main thread, and returns when it is."""
    rung = threading.Event()

    def ring(*_: object) -> None:
        rung.set()
        raise Alarm

    def interrupt() -> None:
        while not rung.wait(0.05):  # a signal that comes just before the main thread begins to wait does not wake it
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, ring)
    yield interrupt
    signal.signal(signal.SIGALRM, before)


def test_work_is_done_to_its_end_before_an_interrupt_goes_on(interrupt: Callable[[], None]) -> None:
    done: list[str] = []

    def work() -> None:
        interrupt()
        done.append(threading.current_thread().name)

    with pytest.raises(Alarm):
        undisturbed(work)
    assert done == ["millpond-undisturbed"]


def test_results_and_errors_come_back() -> None:
    assert undisturbed(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        undisturbed(lambda: 1 // 0)


def test_errors_hold_nothing_in_a_cycle() -> None:
    held = Held()
    gone = weakref.ref(held)

    def fail(held: Held) -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - its own
        undisturbed(partial(fail, held))
    del held
    assert gone() is None


class Held:
    """Something that an error's frames have."""


def test_it_acts_for_the_thread_that_waits_for_it() -> None:
    assert undisturbed(acting_thread) == acting_thread() == threading.get_ident()
    assert undisturbed(threading.get_ident) != threading.get_ident()


def test_other_threads_do_it_themselves() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(undisturbed(threading.get_ident) == threading.get_ident()))
    thread.start()
    thread.join()
    assert found == [True]


def test_it_is_done_also_where_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert undisturbed(threading.get_ident) == threading.get_ident()


TOUCHING = {"memfd_create", "pipe", "dup", "pidfd_open", "socketpair", "open", "recvmsg", "fork_exec", "close"}


def test_the_main_thread_itself_opens_and_closes_no_descriptor_of_a_guard() -> None:
    found: list[str] = []

    def note(frame: FrameType, event: str, what: Any) -> None:
        if event == "c_call" and what.__name__ in TOUCHING:
            found.append(f"{frame.f_code.co_qualname} calls {what.__name__}")

    sys.setprofile(note)
    try:
        with Guard(1, timeout=60) as guard:
            assert guard.call(echo, 1) == 1
            with pytest.raises(WorkerDied):
                guard.call(die, "SIGKILL")
            assert guard.call(echo, 2) == 2
    finally:
        sys.setprofile(None)
    assert found == []
