"""Who starts workers, and what happens to them when that process goes: each case is a program of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from pathlib import Path

import psutil
import pytest

from programs import ENDINGS, left_by, outlive, run_python, start_python

PROGRAM = textwrap.dedent(
    """
    import os
    from millpond._workers.messages import encode
    from millpond._workers.supervisor import Supervisor

    print("this is main", flush=True)

    class Doubled:
        def __init__(self, value):
            self.value = value

    def handler(payload, progress):
        import sys
        print("main in worker:", getattr(sys.modules["__main__"], "handler", None))
        return Doubled(payload * 2)

    with Supervisor(encode(handler), num_workers=2) as supervisor:
        supervisor.submit(1, 21)
        (answer,) = supervisor.wait(30)
        assert isinstance(answer.result, Doubled), answer
        print("answer", answer.result.value, flush=True)
    """
)


def check(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "this is main\nanswer 42\n"
    assert ran.stderr == "main in worker: None\n"


def test_a_script_needs_no_import_guard(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PROGRAM)
    check(run_python(["train.py"], directory=tmp_path))


def test_a_program_on_the_command_line(tmp_path: Path) -> None:
    check(run_python(["-c", PROGRAM], directory=tmp_path))


def test_a_program_on_standard_input(tmp_path: Path) -> None:
    check(run_python(["-"], given=PROGRAM, directory=tmp_path))


def test_a_daemonic_process_of_multiprocessing(tmp_path: Path) -> None:
    indented = textwrap.indent(PROGRAM, "    ")
    (tmp_path / "train.py").write_text(
        f"import multiprocessing, sys\ndef main():\n{indented}\n"
        'if __name__ == "__main__":\n'
        '    process = multiprocessing.get_context("fork").Process(target=main, daemon=True)\n'
        "    process.start()\n    process.join()\n    sys.exit(process.exitcode)\n"
    )
    ran = run_python(["train.py"], directory=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "this is main\nanswer 42\n"), ran.stderr


def test_a_closed_standard_input_is_no_hindrance(tmp_path: Path) -> None:
    check(run_python(["-c", "import os\nos.close(0)\n" + PROGRAM], directory=tmp_path))


PARENT = textwrap.dedent(
    """
    import os, sys, threading, time
    from worker_tasks import obey
    from millpond._workers.messages import encode
    from millpond._workers.supervisor import Supervisor

    supervisor = Supervisor(encode(obey), num_workers=2, use_pidfd=sys.argv[1] == "pidfd")
    for task in range(8):
        supervisor.submit(task, ("pid",))
    seen = 0
    while seen < 8:
        seen += len(supervisor.wait(30))
    supervisor.submit(9, ("hold_gil",))
    statistics = supervisor.statistics()
    sibling = os.fork()
    if sibling == 0:  # it keeps copies of every socket
        time.sleep(20)
        os._exit(0)
    print(sibling, statistics.zygote_pid, *(worker.pid for worker in statistics.workers), flush=True)
    {ending}
    """
)


def start_parent(ending: str, use_pidfd: str) -> tuple[subprocess.Popen[str], list[psutil.Process], psutil.Process]:
    """A process with two workers, one of which hangs, and a forked sibling; its zygote and workers; the sibling."""
    code = PARENT.format(ending=ending)
    parent = start_python(code, use_pidfd, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    sibling, *ours = [psutil.Process(int(word)) for word in parent.stdout.readline().split()]
    return parent, ours, sibling


@pytest.mark.parametrize("use_pidfd", ["pidfd", "report"])
@pytest.mark.parametrize(("ending", "number"), ENDINGS)
def test_nothing_outlives_the_parent_by_2_s(ending: str, number: signal.Signals | None, use_pidfd: str) -> None:
    parent, ours, sibling = start_parent(ending, use_pidfd)
    assert len(ours) == 3
    assert not left_by(parent, ours, sibling, number)


def test_ctrl_c_in_the_terminal_reaches_no_worker() -> None:
    parent, ours, sibling = start_parent("time.sleep(60)", "pidfd")
    with parent:
        groups = {os.getpgid(process.pid) for process in ours}
        sessions = {os.getsid(process.pid) for process in ours}
        assert os.getpgid(parent.pid) not in groups
        assert os.getsid(parent.pid) not in sessions
        parent.kill()
        sibling.kill()
        assert not outlive(ours, 2)
