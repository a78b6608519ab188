"""Whoever dies, hangs or leaves while a chunk runs: its sweep, its keeper, its process, what that started."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from chunk_orders import command_order, python_order
from millpond._sweep import chunk_run
from millpond._sweep.cancel import Cancel
from millpond._sweep.chunk_run import run_chunk
from millpond._sweep.engines.local import LocalEngine
from millpond._sweep.keeper import Keeper
from millpond._sweep.orders import EndedBy
from programs import outlive, program

PATIENCE_SECONDS = 20

# Starts a process that leaves its group, its session and its parent; both say that they are there and wait. One write
# for each line: output is not buffered, and print() writes word by word.
WITH_STRAY = """
    import os, signal, sys

    def wait_as(name):
        signal.signal(signal.SIGINT, lambda *_: sys.exit(os.write(1, name + b" was asked\\n") and 0))
        os.write(1, b"ready\\n")
        while True:
            signal.pause()

    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        wait_as(b"stray")
    os.wait()
    wait_as(b"child")
"""
DEAF = """
    import os, signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    os.kill(os.getpid(), {then})
    signal.pause()
"""
SWEEP = """
import os, sys, time
from chunk_orders import python_order
from millpond._sweep.keeper import Keeper
from millpond._sweep.chunk_run import run_chunk

keeper = Keeper()
sibling = os.fork()  # with the socket
if sibling == 0:
    time.sleep(600)
print(sibling, flush=True)
run_chunk(python_order(sys.argv[1]), keeper, printed=lambda output: print(output.decode(), end="", flush=True))
"""


def when_ready(act: Callable[[], None], num: int = 1) -> Callable[[bytes], None]:
    """For `printed`: act once so many have said that they are ready."""
    seen = bytearray()

    def printed(output: bytes) -> None:
        before = seen.count(b"ready")
        seen.extend(output)
        if before < num <= seen.count(b"ready"):
            act()

    return printed


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is appended passes at once, for whoever runs a chunk here."""
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * sum(passed), time=time.time)
    monkeypatch.setattr(chunk_run, "time", clock)
    return passed


def keeper_of_this_process() -> psutil.Process:
    (keeper,) = [child for child in psutil.Process().children() if child.name() == "millpond-keeper"]
    return keeper


def test_a_killed_sweep_leaves_nothing_though_a_sibling_holds_its_socket(tmp_path: Path) -> None:
    with program(SWEEP, tmp_path / "sweep", WITH_STRAY) as sweep:
        sibling = psutil.Process(int(sweep.line()))
        assert [sweep.line(), sweep.line()] == ["ready", "ready"]
        ours = [process for process in psutil.Process(sweep.process.pid).children(recursive=True) if process != sibling]
        sweep.process.kill()
        assert len(ours) == 3
        assert not outlive(ours, PATIENCE_SECONDS)
        sibling.kill()
        assert not sweep.left(PATIENCE_SECONDS)


def test_a_killed_keeper_is_noticed_and_replaced_and_its_chunk_is_gone() -> None:
    below: list[psutil.Process] = []

    def kill_keeper() -> None:
        keeper = keeper_of_this_process()
        below.extend(keeper.children(recursive=True))
        keeper.kill()

    printed = when_ready(kill_keeper, 2)
    engine = LocalEngine(1, printed=lambda number, output: printed(output))
    lost, after = [future.result() for future in engine.submit([python_order(WITH_STRAY), command_order("true")])]
    engine.close()
    assert (lost.ended_by, lost.exit_code, after.exit_code) == (EndedBy.LOST, None, 0)
    assert "killed by SIGKILL (9)" in lost.problem
    assert len(below) == 2
    assert not outlive(below, PATIENCE_SECONDS)


def test_a_stopped_keeper_goes_on_to_end_its_chunk() -> None:
    cancel = Cancel()

    def stop_keeper() -> None:
        keeper_of_this_process().suspend()
        cancel.request(signal.SIGTERM)

    outcome = run_chunk(python_order(WITH_STRAY), cancel=cancel, printed=when_ready(stop_keeper, 2))
    cancel.close()
    assert (outcome.ended_by, outcome.exit_code) == (EndedBy.CANCELLED, -signal.SIGTERM)


def test_all_are_asked_once_when_a_chunk_is_cancelled_and_may_say_their_last() -> None:
    cancel = Cancel()
    printed = when_ready(lambda: cancel.request(signal.SIGINT), 2)
    outcome = run_chunk(python_order(WITH_STRAY), cancel=cancel, printed=printed)
    cancel.close()
    assert (outcome.ended_by, outcome.exit_code) == (EndedBy.CANCELLED, 0)
    assert sorted(outcome.log.decode().splitlines()[2:]) == ["child was asked", "stray was asked"]


@pytest.mark.parametrize("then", [0, signal.SIGSTOP], ids=["deaf", "stopped"])
def test_who_does_not_end_at_its_timeout_is_killed_after_the_grace(then: int, hours: list[float]) -> None:
    order = python_order(DEAF.format(then=int(then)), timeout_seconds=1800.0, grace_seconds=0.05)
    outcome = run_chunk(order, printed=when_ready(lambda: hours.append(1.0)))
    assert (outcome.ended_by, outcome.exit_code) == (EndedBy.TIMEOUT, -signal.SIGKILL)


def test_a_second_cancel_takes_the_grace_away() -> None:
    cancel = Cancel()
    asked = threading.Event()

    def ask() -> None:
        cancel.request(signal.SIGTERM)
        asked.set()

    def insist() -> None:
        asked.wait(60)
        cancel.kill()

    thread = threading.Thread(target=insist)
    thread.start()
    outcome = run_chunk(python_order(DEAF.format(then=0), grace_seconds=600), cancel=cancel, printed=when_ready(ask))
    thread.join()
    cancel.close()
    assert (outcome.ended_by, outcome.exit_code) == (EndedBy.CANCELLED, -signal.SIGKILL)


def test_a_leak_below_python_is_ended_at_the_budget() -> None:
    code = """
        import ctypes, signal
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        for _ in range(12):
            ctypes.memset(libc.malloc(8 << 20), 1, 8 << 20)
        signal.pause()
    """
    outcome = run_chunk(python_order(code, budget_bytes=64 << 20))
    assert outcome.ended_by is EndedBy.BUDGET
    assert max(look.pss_bytes for look in outcome.looks) == outcome.peak_pss_bytes > 64 << 20
    assert outcome.peak_rss_bytes > 64 << 20


def test_what_a_chunk_leaves_is_ended_and_makes_its_end_no_timeout(hours: list[float]) -> None:
    # Both strays hold the log open; one does not heed SIGTERM, and says so when the chunk's own process is gone.
    code = """
        import os, signal, time
        parent = os.getpid()
        for name in ("heeds", "deaf"):
            if os.fork() == 0:
                os.setsid()
                if name == "deaf":
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    while os.getppid() == parent:
                        time.sleep(0.001)
                    os.write(1, b"ready")
                while True:
                    signal.pause()
        os._exit(3)
    """
    with closing(Keeper()) as keeper:
        order = python_order(code, timeout_seconds=1800.0)
        outcome = run_chunk(order, keeper, printed=when_ready(lambda: hours.append(1.0)))
        assert (outcome.exit_code, outcome.ended_by, outcome.num_left_behind) == (3, EndedBy.ITSELF, 2)
        assert not psutil.Process(keeper.pid).children()


def test_signals_that_terminals_and_schedulers_send_are_nothing_to_a_keeper() -> None:
    with closing(Keeper()) as keeper:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            os.kill(keeper.pid, number)
        assert run_chunk(command_order("true"), keeper).exit_code == 0
        assert psutil.Process(keeper.pid).name() == "millpond-keeper"


def test_what_a_keeper_keeps_open_is_closed_with_it_and_is_none_of_its_commands() -> None:
    read, write = os.pipe()
    with closing(Keeper(keep=[write])) as keeper:
        os.close(write)
        outcome = run_chunk(command_order("ls", "/proc/self/fd"), keeper)
        assert outcome.log.split() == [b"0", b"1", b"2", b"3"]  # the last is the listing's own
        assert not select.select([read], [], [], 0)[0]
    assert os.read(read, 1) == b""
    os.close(read)


def test_an_environment_may_be_longer_than_a_socket_holds() -> None:
    environment = {f"LONG_{number}": "x" * 100_000 for number in range(10)}
    outcome = run_chunk(command_order("sh", "-c", 'printf "$LONG_7" | wc -c', environment=environment))
    assert outcome.log.split() == [b"100000"]
