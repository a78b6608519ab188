"""Functions that hang or end their process, and callers that are killed."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

import millpond
from guard_tasks import die, echo, filled, hang_in_c, tell_and_hang, wait_for_file
from millpond import Guard
from millpond._guard import parcels
from millpond._workers.zygote import live_zygotes
from programs import outlive, start_python

LIMIT = 0.3


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard(1, timeout=30) as guard:
        guard.call(echo, "ready")
        yield guard


def test_a_hang_in_c_with_the_gil_held_is_ended_and_told(guard: Guard) -> None:
    before = guard.call(os.getpid)
    began = time.monotonic()
    with pytest.raises(millpond.DecodeTimeout) as caught:
        guard.with_timeout(LIMIT).call(hang_in_c, "clip.mp4", b"x" * 1000)
    assert LIMIT <= time.monotonic() - began < LIMIT + 5
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert str(error).startswith("guard_tasks.hang_in_c('clip.mp4', <1000 bytes>) did not end in ")
    assert "(limit 0.3 s); killed and replaced worker 0 (pid " in str(error)
    assert (error.function, error.item) == ("guard_tasks.hang_in_c", "'clip.mp4', <1000 bytes>")
    assert error.limit_seconds == LIMIT <= error.elapsed_seconds
    assert "in hang_in_c" in error.stack
    assert "in hang_in_c" in error.__notes__[0]
    assert "millpond" not in error.stack.split("in hang_in_c")[1]  # how the call got there is of no interest
    assert guard.call(os.getpid) != before
    assert not os.path.exists(f"/proc/{before}")


def test_the_errors_survive_pickle(guard: Guard) -> None:
    for limit, arguments in ((LIMIT, [hang_in_c]), (30, [die, "SIGKILL"])):
        with pytest.raises((millpond.DecodeTimeout, millpond.WorkerDied)) as caught:
            guard.with_timeout(limit).call(*arguments)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again), again.facts) == (type(caught.value), str(caught.value), caught.value.facts)
        assert getattr(again, "__notes__", []) == getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", r"exited with code 7"),
        ("segfault", r"was killed by SIGSEGV \(Segmentation fault\)"),
        ("SIGKILL", r"was killed by SIGKILL \(Killed\)"),
        ("SIGABRT", r"was killed by SIGABRT \(Aborted\)"),
        ("SIGTERM", r"was killed by SIGTERM \(Terminated\)"),
    ],
)
def test_an_end_of_its_process_is_told_in_words(guard: Guard, how: str, words: str) -> None:
    pattern = rf"worker 0 \(pid \d+\) {words}.* while it ran guard_tasks.die\('{how}'\); it was replaced"
    with pytest.raises(millpond.WorkerDied, match=pattern) as caught:
        guard.call(die, how)
    assert caught.value.item == f"'{how}'"
    assert caught.value.signal_name == (None if how == "exit" else how.replace("segfault", "SIGSEGV"))
    assert caught.value.exit_code == (7 if how == "exit" else -signal.Signals[str(caught.value.signal_name)])
    if how == "segfault":
        assert "in die" in caught.value.stack
    assert guard.call(echo, 1) == 1


def test_a_kill_from_outside_is_told_and_the_call_not_made_again(guard: Guard, tmp_path: Path) -> None:
    pattern = r"SIGKILL .*while it ran guard_tasks.tell_and_hang\('.*pid'\)"
    with start_python(KILLER, str(tmp_path / "pid")), pytest.raises(millpond.WorkerDied, match=pattern):
        guard.call(tell_and_hang, str(tmp_path / "pid"))
    assert guard.statistics().calls_died == 1


KILLER = textwrap.dedent(
    """
    import os, signal, sys
    from guard_tasks import wait_for_file
    wait_for_file(sys.argv[1])
    os.kill(int(open(sys.argv[1]).read()), signal.SIGKILL)
    """
)


def test_an_idle_worker_that_was_killed_costs_no_call(guard: Guard) -> None:
    for _ in range(5):
        os.kill(guard.call(os.getpid), signal.SIGKILL)
        assert guard.call(echo, 1) == 1
    assert guard.statistics().calls_died == 0


def test_a_stopped_worker_goes_on(guard: Guard) -> None:
    guard.call(os.kill, guard.call(os.getpid), signal.SIGSTOP)
    assert guard.call(echo, 1) == 1
    assert guard.statistics().restarts == 0


def test_a_worker_that_dies_while_it_writes_its_result_leaves_no_memory(guard: Guard) -> None:
    def write_and_die() -> NDArray[np.float32]:
        def send_and_die(parcel: Any, *slot: Any) -> None:
            send(parcel, *slot)
            die("SIGKILL")

        send = parcels.Parcel.send
        parcels.Parcel.send = send_and_die  # type: ignore[assignment, method-assign]
        return filled(10_000_000)

    with pytest.raises(millpond.WorkerDied):
        guard.call(write_and_die)
    assert guard.call(filled, 100_000).sum() == 150_000
    slots = guard._switchboard.pool.slots  # type: ignore[union-attr]
    assert slots is not None
    assert os.fstat(slots.descriptor).st_blocks * 512 < 8_000_000  # it wrote 40


def test_a_zygote_that_is_killed_costs_no_later_call(guard: Guard) -> None:
    worker = psutil.Process(guard.call(os.getpid))
    for zygote in live_zygotes():
        os.kill(zygote.pid, signal.SIGKILL)
    assert not outlive([worker], 10)
    assert guard.call(echo, 1) == 1


def test_a_zygote_that_is_killed_with_its_worker_costs_the_call_and_it_is_not_made_again(
    guard: Guard, tmp_path: Path
) -> None:
    def run_and_kill() -> None:
        with (tmp_path / "runs").open("a") as file:
            file.write("x")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    with pytest.raises(millpond.WorkerDied, match=r"run_and_kill\(\)"):
        guard.call(run_and_kill)
    assert guard.call(echo, 1) == 1
    assert (tmp_path / "runs").read_text() == "x"


def test_what_a_function_starts_ends_with_its_worker(guard: Guard, tmp_path: Path) -> None:
    def start_and_die() -> None:
        start_python("import sys, guard_tasks; guard_tasks.tell_and_hang(sys.argv[1])", str(tmp_path / "pid"))
        wait_for_file(str(tmp_path / "pid"))
        die("SIGKILL")

    with pytest.raises(millpond.WorkerDied):
        guard.call(start_and_die)
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or not outlive([psutil.Process(child)], 10)


CALLER = textwrap.dedent(
    """
    import os, sys, threading
    from guard_tasks import limited_pid, tell_and_hang, wait_for_file
    from millpond import Guard

    guard = Guard(2, timeout=60)
    pids = {guard.call(os.getpid), limited_pid()}
    threading.Thread(target=guard.call, args=(tell_and_hang, sys.argv[1]), daemon=True).start()
    wait_for_file(sys.argv[1])
    if os.fork() == 0:  # it keeps copies of every socket
        import time
        time.sleep(3)
        os._exit(0)
    print("ready", flush=True)
    sys.stdin.read()
    """
)


@pytest.mark.parametrize("ending", ["kill", "exit"])
def test_nothing_outlives_the_caller_by_2_s(tmp_path: Path, ending: str) -> None:
    caller = start_python(CALLER, str(tmp_path / "pid"), stdin=subprocess.PIPE)
    with caller:
        assert caller.stdout is not None
        assert caller.stdin is not None
        assert caller.stdout.readline() == "ready\n"
        ours = [child for child in psutil.Process(caller.pid).children(recursive=True) if "millpond" in child.name()]
        if ending == "kill":
            caller.kill()
        else:
            caller.stdin.close()
        assert len(ours) == 5  # two zygotes, two workers of the guard, one of the default guard
        assert not outlive(ours, 2)


def test_500_calls_and_10_kills_leave_memory_descriptors_and_processes_as_they_were(guard: Guard) -> None:
    def belongings() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(psutil.Process().children(recursive=True))

    for number in range(20):
        assert guard.call(filled, 800_000, number)[-1] == number
    before, memory = belongings(), psutil.Process().memory_info().rss
    for number in range(500):
        assert guard.call(filled, 800_000, number)[-1] == number
        if number % 50 == 0:
            with pytest.raises(millpond.WorkerDied):
                guard.call(die, "SIGKILL")
    assert guard.call(echo, 1) == 1
    assert belongings() == before
    assert psutil.Process().memory_info().rss - memory < 20_000_000
    assert guard.statistics().shared_bytes <= 2 * 3_300_000


def test_importing_what_a_function_needs_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.5)\ndef double(x): return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    slow = importlib.import_module("slow_to_import")
    with Guard(1, timeout=0.3) as guard:
        assert guard.call(slow.double, 4) == 8
        assert guard.statistics().restarts == 0


def test_a_guard_within_a_guard_says_itself_what_hung() -> None:
    def inner() -> None:
        with Guard(1, timeout=0.2) as within:
            within.call(time.sleep, 9)

    with Guard(1, timeout=30) as guard, pytest.raises(millpond.DecodeTimeout) as caught:
        guard.call(inner)
    assert caught.value.function == "time.sleep"


def test_calls_that_nobody_waits_for_are_no_deaths_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    def fail_at_3(number: int) -> int:
        if number == 3:
            raise OSError("three")
        time.sleep(0.05 if number > 3 else 0)
        return number

    with Guard(2, timeout=30) as guard:
        with pytest.raises(OSError, match="three") as caught:
            list(guard.map(fail_at_3, range(100)))
        assert "item 3 of Guard.map" in caught.value.__notes__[-1]
        assert [*guard.map(fail_at_3, range(5), on_error="skip")] == [0, 1, 2, 4]
    messages = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert messages == ["Guard.map skipped 1 of 5 items; the first: item 3: OSError: three"]


def test_a_function_that_forks_has_one_end() -> None:
    def fork(child_raises: bool) -> str:
        if os.fork() == 0 and child_raises:
            raise ValueError("the child's")
        return "done"

    with Guard(1, timeout=30) as guard:
        for child_raises in (False, True):
            assert guard.call(fork, child_raises) == "done"
            assert [guard.call(echo, number) for number in range(5)] == [*range(5)]
