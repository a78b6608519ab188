"""What becomes of workers by multiprocessing's start methods when their process goes: each case is a program."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import textwrap

import psutil
import pytest

from programs import ENDINGS, left_by, outlive, program, start_python

METHODS = multiprocessing.get_all_start_methods()
PARENT = textwrap.dedent(
    """
    import ctypes, multiprocessing, os, sys, threading, time
    from worker_tasks import obey
    from millpond._workers.context_starter import ContextStarter
    from millpond._workers.messages import encode
    from millpond._workers.supervisor import Supervisor

    def start():
        global supervisor
        starter = ContextStarter(multiprocessing.get_context(sys.argv[1]))
        supervisor = Supervisor(encode(obey), num_workers=2, starter=starter)

    {starting}
    for task in range(8):
        supervisor.submit(task, ("pid",))
    seen = 0
    while seen < 8:
        seen += len(supervisor.wait(60))
    supervisor.wait_until_ready()
    supervisor.submit(9, ("{busy_with}",))
    statistics = supervisor.statistics()
    sibling = {fork}()
    if sibling == 0:  # it keeps copies of whatever nobody closes in it
        time.sleep(30)
        os._exit(0)
    print(sibling, *(worker.pid for worker in statistics.workers), flush=True)
    {ending}
    """
)
FORK, FORK_UNSEEN = "os.fork", "ctypes.PyDLL(None).fork"


def start_parent(
    method: str, ending: str, *, starting: str = "start()", busy_with: str = "hold_gil", fork: str = FORK
) -> tuple[subprocess.Popen[str], list[psutil.Process], psutil.Process]:
    """A process with two workers, one of which is busy, and a forked sibling of those; its workers; the sibling."""
    code = PARENT.format(ending=ending, starting=starting, busy_with=busy_with, fork=fork)
    parent = start_python(code, method, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    sibling, *ours = [psutil.Process(int(word)) for word in parent.stdout.readline().split()]
    assert len(ours) == 2
    return parent, ours, sibling


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("ending", "number"), ENDINGS)
def test_nothing_outlives_the_parent_by_2_s(ending: str, number: signal.Signals | None, method: str) -> None:
    parent, ours, sibling = start_parent(method, ending)
    assert not left_by(parent, ours, sibling, number)


@pytest.mark.parametrize("method", METHODS)
def test_a_sibling_with_copies_of_everything_keeps_no_worker_alive(method: str) -> None:
    parent, ours, sibling = start_parent(method, "time.sleep(60)", busy_with="pid", fork=FORK_UNSEEN)
    with parent:
        parent.kill()
        alive = outlive(ours, 2)
        sibling.kill()
    assert not alive


@pytest.mark.parametrize("method", METHODS)
def test_the_thread_that_starts_workers_may_end_before_them(method: str) -> None:
    starting = "thread = threading.Thread(target=start); thread.start(); thread.join()"
    parent, ours, sibling = start_parent(method, "sys.stdin.read()", starting=starting, busy_with="pid")
    with parent:
        assert [process for process in ours if process.is_running()] == ours
        parent.kill()
        alive = outlive(ours, 2)
        sibling.kill()
    assert not alive


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_in_the_terminal_reaches_no_worker(method: str) -> None:
    parent, ours, sibling = start_parent(method, "time.sleep(60)")
    with parent:
        own_group = psutil.os.getpgid(parent.pid)
        groups = {psutil.os.getpgid(process.pid) for process in ours}
        parent.kill()
        sibling.kill()
        assert not outlive(ours, 2)
    assert own_group not in groups


@pytest.mark.parametrize("method", METHODS)
def test_a_program_that_does_not_close_leaves_nothing(method: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("short") / "own"  # the fork server's address lies in it, and may not be long
    code = PARENT.format(ending="os.kill(sibling, 9)", starting="start()", busy_with="stop", fork=FORK)
    with program(code, folder, method) as running:
        running.line()
        assert running.ended()[0] == 0
        assert running.left(5) == []
