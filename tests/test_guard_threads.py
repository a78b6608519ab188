"""Many threads on one guard, interrupts amid its calls, and closing it under them."""

from __future__ import annotations

import gc
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import millpond
from guard_tasks import die, echo, fail, filled, hang_in_c, random_bytes, tell_and_hang, wait_for_file
from millpond import Guard
from programs import forked, program


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard(2, timeout=30) as guard:
        yield guard


class Alarm(BaseException):
    """As KeyboardInterrupt: no error, and may come in anything."""


@pytest.fixture
def in_time() -> Iterator[None]:
    """Raises Alarm in the main thread, in whatever it is doing, whenever the alarm rings."""

    def ring(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def when_there(path: Path, act: Callable[[], object]) -> threading.Thread:
    def wait() -> None:
        wait_for_file(str(path))
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_8_threads_at_once_get_what_they_asked_for(guard: Guard) -> None:
    def work(number: int) -> None:
        for round_ in range(40):
            value = number * 1000 + round_
            if round_ % 4 == 0:
                assert (guard.call(filled, 20_000, value) == value).all()
            elif round_ % 4 == 1:
                with pytest.raises(ValueError, match="bad value"):
                    guard.call(fail, "value")
            else:
                assert guard.call(echo, value) == value

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    statistics = guard.statistics()
    assert (statistics.calls_completed, statistics.calls_failed) == (8 * 30, 8 * 10)


def test_hangs_and_deaths_of_some_threads_calls_are_theirs_alone(guard: Guard) -> None:
    def work(number: int) -> str:
        try:
            if number % 5 == 0:
                guard.with_timeout(0.5).call(hang_in_c)
            elif number % 5 == 1:
                guard.call(die, "SIGKILL")
            return str(guard.call(echo, number))
        except millpond.MillpondError as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(work, range(20)))
    expected = ["DecodeTimeout", "WorkerDied"]
    assert found == [expected[number % 5] if number % 5 < 2 else str(number) for number in range(20)]


def test_maps_in_threads_are_each_in_order(guard: Guard) -> None:
    def work(seed: int) -> None:
        for number, array in enumerate(guard.map(lambda n: random_bytes(seed * 100 + n, 60_000), range(20))):
            assert (array == random_bytes(seed * 100 + number, 60_000)).all()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))


def test_a_thread_that_waits_long_holds_up_nobody(guard: Guard, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(guard.call, wait_for_file, str(tmp_path / "end"))
        assert [guard.call(echo, number) for number in range(200)] == list(range(200))
        assert not long.done()
        (tmp_path / "end").touch()
        assert long.result(20) != os.getpid()


# ---- interrupts


def test_an_interrupt_ends_the_call_with_its_worker_and_the_next_one_works(
    guard: Guard, tmp_path: Path, in_time: None
) -> None:
    for name in "abc":
        ringing = when_there(tmp_path / name, lambda: signal.setitimer(signal.ITIMER_REAL, 0.001))
        with pytest.raises(Alarm):
            guard.call(tell_and_hang, str(tmp_path / name))
        ringing.join()
        pid = int((tmp_path / name).read_text())
        assert not os.path.exists(f"/proc/{pid}")
        assert guard.call(echo, name) == name


def test_an_interrupt_of_the_leader_loses_no_other_thread_s_call(guard: Guard, tmp_path: Path, in_time: None) -> None:
    with ThreadPoolExecutor(1) as threads:

        def follow() -> int:
            wait_for_file(str(tmp_path / "led"))
            return guard.call(wait_for_file, str(tmp_path / "end"))

        other = threads.submit(follow)
        ringing = when_there(tmp_path / "led", lambda: signal.setitimer(signal.ITIMER_REAL, 0.05))
        with pytest.raises(Alarm):
            guard.call(tell_and_hang, str(tmp_path / "led"))
        ringing.join()
        pid = int((tmp_path / "led").read_text())
        assert not os.path.exists(f"/proc/{pid}")
        (tmp_path / "end").touch()
        assert other.result(20) != pid


# Python swallows, and reports, what a signal handler raises while a finalizer runs.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment_leave_the_guard_usable(guard: Guard, in_time: None) -> None:
    """Two hundred alarms, each at another moment of a call, while another thread calls, too."""
    stop = threading.Event()
    found: list[int] = []

    def call_on() -> None:
        number = 0
        while not stop.is_set():
            found.append(guard.call(echo, number) - number)
            number += 1

    other = threading.Thread(target=call_on)
    other.start()
    rung = 0
    for number in range(200):
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-5 + number * 2e-6)
            guard.call(echo, number)
            guard.call(filled, 50_000)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            rung += 1
    stop.set()
    other.join(30)
    assert not other.is_alive()
    assert set(found) == {0}
    assert rung > 20
    assert guard.call(echo, "usable") == "usable"
    gc.collect()
    assert guard.statistics().results_held == 0


def test_a_signal_handler_that_calls_the_guard_that_it_interrupts_is_told(guard: Guard, tmp_path: Path) -> None:
    found: list[Any] = []

    def ring(*_: object) -> None:
        try:
            guard.call(echo, 1)
        except millpond.UsageError as error:
            found.append(error)
        (tmp_path / "end").touch()

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        guard.call(wait_for_file, str(tmp_path / "end"))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert "use another guard there" in str(found[0])
    assert guard.call(echo, 2) == 2


CTRL_C = textwrap.dedent(
    """
    import os, signal, sys
    from guard_tasks import tell_and_hang
    from millpond import Guard

    with Guard(1, timeout=60) as guard:
        before = guard.call(os.getpid)
        try:
            guard.call(tell_and_hang, sys.argv[1])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        assert guard.call(os.getpid) != before
        print("called again")
    """
)


def test_ctrl_c_ends_the_call_and_the_next_one_works(tmp_path: Path) -> None:
    with program(CTRL_C, tmp_path / "own", str(tmp_path / "pid"), under=["setsid"]) as running:
        wait_for_file(str(tmp_path / "pid"))
        os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does
        code, out, errors = running.ended()
    assert (code, out) == (0, "interrupted\ncalled again\n"), errors
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text()}")


# ---- the end


def test_closing_ends_the_calls_of_other_threads(tmp_path: Path) -> None:
    guard = Guard(2, timeout=60)
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(lambda path: guard.call(tell_and_hang, path), str(tmp_path / name)) for name in "ab"]
        for name in "ab":
            wait_for_file(str(tmp_path / name))
        calls.append(threads.submit(lambda path: guard.call(tell_and_hang, path), str(tmp_path / "never")))
        began = time.monotonic()
        guard.close()
        for call in calls:
            with pytest.raises(millpond.ClosedError, match="this guard is closed"):
                call.result(10)
    assert time.monotonic() - began < 10
    assert not any(os.path.exists(f"/proc/{(tmp_path / name).read_text()}") for name in "ab")


def test_a_forked_child_that_goes_on_with_a_map_is_told_and_harms_nobody(guard: Guard) -> None:
    results = guard.map(echo, range(6))
    assert next(results) == 0

    def work() -> bytes:
        with pytest.raises(millpond.UsageError) as caught:
            next(results)
        results.close()
        gc.collect()
        return str(caught.value).encode()

    with forked(work) as result:
        assert b"belongs to process" in result()
    assert list(results) == [1, 2, 3, 4, 5]
    assert guard.statistics().restarts == 0


def test_a_forked_child_is_told_to_make_its_own(guard: Guard) -> None:
    held = [guard.call(filled, 50_000)]

    def work() -> bytes:
        with pytest.raises(millpond.UsageError) as caught:
            guard.call(echo, 1)
        guard.close()
        held.clear()
        gc.collect()
        return str(caught.value).encode()

    with forked(work) as result:
        assert b"make a guard after the fork" in result()
    assert guard.call(echo, 1) == 1
    assert (held[0] == 1.5).all()


# ---- exceptions of signal handlers at the worst moments, put there by a trace function


class Interrupted(Exception):
    """What a signal handler raises."""


def interrupt_at(is_moment: Callable[[Any, str], bool]) -> Callable[[Any, str, Any], Any]:
    """A trace function that raises once, at the first such (frame, event)."""
    left = [1]

    def trace(frame: Any, event: str, _: Any) -> Any:
        if left and is_moment(frame, event):
            left.pop()
            raise Interrupted
        return trace

    return trace


def call_interrupted(guard: Guard, is_moment: Callable[[Any, str], bool]) -> None:
    before = sys.gettrace()
    sys.settrace(interrupt_at(is_moment))
    try:
        with pytest.raises(Interrupted):
            guard.call(filled, 1 << 20, 99.0)
    finally:
        sys.settrace(before)


def test_an_interrupt_while_a_result_is_lent_gives_no_slot_back_twice() -> None:
    def has_lent(frame: Any, event: str) -> bool:
        return event == "line" and frame.f_code.co_name == "take" and "lent" in frame.f_locals

    with Guard(2, timeout=30) as guard:
        call_interrupted(guard, has_lent)
        held = [guard.call(filled, 1 << 20, number) for number in range(6)]
        assert [int(array[0]) for array in held] == [*range(6)]
        assert [int(array[-1]) for array in held] == [*range(6)]


def test_a_leader_that_is_interrupted_as_it_leaves_holds_nobody_up() -> None:
    def leaves(frame: Any, event: str) -> bool:
        return event == "call" and frame.f_code.co_name == "_leave"

    with Guard(1, timeout=30) as guard:
        call_interrupted(guard, leaves)
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(guard.call, len, "four").result(30) == 4
        assert guard.call(len, "five!") == 5


def test_who_waits_takes_the_lead_from_one_who_is_gone() -> None:
    with Guard(1, timeout=30) as guard:
        guard.call(len, "")
        guard._switchboard._leader, guard._switchboard._leading_thread = object(), threading.get_ident()
        assert guard.call(len, "four") == 4
        guard._switchboard._leader, guard._switchboard._leading_thread = object(), threading.get_ident()
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(guard.call, len, "four").result(30) == 4


def test_results_that_nobody_reads_give_their_memory_back() -> None:
    with Guard(2, timeout=30) as guard:
        for large in guard.map(filled, [12_000_000] * 8):
            del large
            break
        guard.call(len, "")
        slots = guard._switchboard.pool.slots  # type: ignore[union-attr]
        assert slots is not None
        assert os.fstat(slots.descriptor).st_blocks * 512 < 80_000_000
