"""Which signals a sweep takes for its own, and for how long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from millpond._interrupts import told_of


def test_a_signal_is_told_and_its_handler_comes_back() -> None:
    heard: list[int] = []
    before = signal.getsignal(signal.SIGHUP)
    with told_of((signal.SIGHUP,), heard.append):
        os.kill(os.getpid(), signal.SIGHUP)
    assert (heard, signal.getsignal(signal.SIGHUP)) == ([signal.SIGHUP], before)


def test_signals_that_are_ignored_or_handled_by_others_are_left_to_them() -> None:
    heard: list[int] = []
    others: list[int] = []
    before = [signal.signal(signal.SIGHUP, signal.SIG_IGN)]
    before.append(signal.signal(signal.SIGTERM, lambda number, frame: others.append(number)))
    try:
        with told_of((signal.SIGHUP, signal.SIGTERM), heard.append):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert (heard, others) == ([], [signal.SIGTERM])


def test_in_another_thread_handlers_stay_as_they_are() -> None:
    handlers: list[object] = []

    def look() -> None:
        with told_of((signal.SIGHUP,), lambda number: None):
            handlers.append(signal.getsignal(signal.SIGHUP))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGHUP)]


def test_ctrl_c_of_a_terminal_reaches_what_runs_in_its_foreground_whatever_its_input_is() -> None:
    asks = "from millpond._interrupts import is_in_foreground; print(is_in_foreground())"
    code = """
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
print(os.read(terminal, 1000).decode())
os.waitpid(pid, 0)
"""
    for arguments, answer in ((("-c", asks), "False"), (("-c", code, asks), "True")):
        command = [sys.executable, *arguments]
        ended = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=False)
        assert ended.stdout.split() == [answer], ended.stderr
