"""One chunk: what its process finds, what comes back of it, who ends it; the engine of this machine."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from chunk_orders import command_order, python_order
from millpond._sweep import chunk_run
from millpond._sweep.cancel import Cancel
from millpond._sweep.chunk_run import run_chunk
from millpond._sweep.engines import Engine
from millpond._sweep.engines.local import LocalEngine
from millpond._sweep.keeper import Keeper
from millpond._sweep.looks import Looks
from millpond._sweep.orders import EndedBy, Look
from millpond.errors import ClosedError

# Says what it is given, as its metrics.
REPORTER = """
    import os, sys
    jobs, metrics, chunk = sys.argv[1:]
    assert (jobs, metrics) == (os.environ["MILLPOND_JOBS"], os.environ["MILLPOND_METRICS"])
    assert open(jobs).read() == '["a", "b"]'
    print("chunk", chunk, os.environ["MILLPOND_CHUNK"], os.environ["OF_THE_ORDER"], os.getcwd())
    open(metrics, "w").write("{}")
"""
# Ends when it is told to, through a pipe with a name.
WAITS = "open({gate!r}).read()"


def told(gate: Path) -> None:
    """Let a process go on that waits at the gate."""
    with open(gate, "w"):
        pass


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def test_a_command_gets_its_files_and_what_it_leaves_comes_back(tmp_path: Path) -> None:
    order = python_order(
        REPORTER,
        *("{jobs}", "{metrics}", "{chunk}"),
        number=7,
        environment={"OF_THE_ORDER": "x"},
        directory=str(tmp_path),
    )
    outcome = run_chunk(order)
    assert (outcome.number, outcome.exit_code, outcome.ended_by) == (7, 0, EndedBy.ITSELF)
    assert outcome.metrics == b"{}"
    assert outcome.log == f"chunk 7 7 x {tmp_path}\n".encode()
    assert outcome.duration_seconds > 0
    assert outcome.peak_rss_bytes > 1 << 20
    assert not [name for name in os.listdir(tempfile.gettempdir()) if "chunk" in name]


def test_a_folder_and_a_log_of_the_order_s_own_stay(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "1.log"
    printed: list[bytes] = []
    for _ in range(2):
        order = python_order("print(1)", work_folder=str(tmp_path / "work"), log_path=str(log))
        assert run_chunk(order, printed=printed.append).log == b""
    assert log.read_bytes() == b"1\n1\n"
    assert printed == [b"1\n", b"1\n"]
    assert (tmp_path / "work" / "jobs.json").exists()


def test_a_directory_that_is_not_there_is_that_of_the_sweep() -> None:
    order = python_order("import os; print(os.getcwd())", directory="/of/another/machine")
    assert run_chunk(order).log.decode().strip() == os.getcwd()


def test_a_directory_that_was_removed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    outcome = run_chunk(command_order("true", directory=str(gone)))
    assert outcome.exit_code is None
    assert outcome.problem == f"cannot start 'true' in '{gone}': No such file or directory"


def test_a_process_has_no_input_and_no_signal_settings_of_ours() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        outcome = run_chunk(command_order("sh", "-c", "cat; grep -E 'Sig(Blk|Ign)' /proc/self/status"))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    own_of_the_c_library = 0b11 << 31  # 32 and 33: nobody else can set them
    assert [int(line.split()[1], 16) & ~own_of_the_c_library for line in outcome.log.splitlines()] == [0, 0]


@pytest.mark.parametrize(
    ("program", "remedy"),
    [("no-such-program", "none of this name on the PATH"), ("/etc/passwd", "chmod"), ("{folder}/script", "#!")],
)
def test_a_program_that_cannot_be_started_is_a_problem_with_a_remedy(program: str, remedy: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("print(1)\n")
    (tmp_path / "script").chmod(0o755)
    program = program.replace("{folder}", str(tmp_path))
    outcome = run_chunk(command_order(program))
    assert (outcome.exit_code, outcome.ended_by) == (None, EndedBy.ITSELF)
    assert repr(program) in outcome.problem
    assert remedy in outcome.problem


def test_files_that_cannot_be_written_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = run_chunk(command_order("true", work_folder=str(tmp_path / "file" / "work")))
    assert outcome.exit_code is None
    assert "cannot write the files of chunk 1" in outcome.problem


def test_one_keeper_runs_one_chunk_after_the_other() -> None:
    with closing(Keeper()) as keeper:
        codes = [run_chunk(python_order(f"raise SystemExit({code})"), keeper).exit_code for code in (0, 5, 0)]
        assert codes == [0, 5, 0]
        assert keeper.is_alive


def test_a_process_that_tells_of_its_jobs_is_looked_at_with_them(gate: Path) -> None:
    code = f"""
        import json, os
        path = json.loads(os.environ["MILLPOND_SWEEP_CHILD"])["progress_path"]
        with open(path, "a") as file:
            for event, job in [("begun", "a"), ("over", "a"), ("begun", "b")]:
                file.write(json.dumps({{"event": event, "job": job, "time": 1.0}}) + "\\n")
        {WAITS.format(gate=str(gate))}
    """

    def looked(look: Look) -> None:
        if look.current == "b" and not seen:
            seen.append(look)
            told(gate)

    seen: list[Look] = []
    outcome = run_chunk(python_order(code), looked=looked)
    assert seen[0].num_reported == 1
    assert seen[0].pss_bytes > 1 << 20
    assert outcome.progress.count(b"\n") == 3
    assert outcome.peak_pss_bytes == max(look.pss_bytes for look in outcome.looks)


def test_each_sign_of_progress_gives_the_whole_timeout_again(gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
        import json, os
        path = json.loads(os.environ["MILLPOND_SWEEP_CHILD"])["progress_path"]
        for job in "ab":
            with open(path, "a") as file:
                file.write(json.dumps({{"event": "begun", "job": job, "time": 1.0}}) + "\\n")
            {WAITS.format(gate=str(gate))}
    """
    jumps = [0.0]
    monkeypatch.setattr(
        chunk_run, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + sum(jumps), time=time.time)
    )

    def looked(look: Look) -> None:
        if look.current == "ab"[len(jumps) - 1 : len(jumps)]:
            jumps.append(700.0)  # of 1000: the second time they are 1400 since the start
            told(gate)

    outcome = run_chunk(python_order(code, timeout_seconds=1000), looked=looked)
    assert (outcome.exit_code, outcome.ended_by, len(jumps)) == (0, EndedBy.ITSELF, 3)


def test_an_error_of_a_callback_ends_the_chunk_and_its_keeper() -> None:
    def looked(look: Look) -> None:
        raise KeyboardInterrupt

    keeper = Keeper()
    with pytest.raises(KeyboardInterrupt):
        run_chunk(command_order("sh", "-c", "setsid sleep 60 & sleep 60"), keeper, looked=looked)
    assert not keeper.is_alive


def test_a_chunk_that_was_cancelled_before_does_not_begin() -> None:
    cancel = Cancel()
    cancel.request(signal.SIGINT)
    outcome = run_chunk(command_order("no-such-program"), cancel=cancel)
    assert (outcome.exit_code, outcome.ended_by, outcome.problem) == (None, EndedBy.CANCELLED, "")
    cancel.close()


def test_of_many_looks_the_greatest_are_kept() -> None:
    looks = Looks()
    for number in range(5000):
        looks.add(Look(float(number), 10**9 if number == 3333 else number))
    assert 500 <= len(looks.kept) <= 1001
    assert looks.peak_pss_bytes == 10**9
    assert 3333.0 in {look.elapsed_seconds for look in looks.kept}
    assert [look.elapsed_seconds for look in looks.kept] == sorted(look.elapsed_seconds for look in looks.kept)


def test_the_local_engine_runs_as_many_at_a_time_as_it_may(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "first")
    os.mkfifo(tmp_path / "second")
    # Each waits for the other one to be there.
    ways = [("first", "r", "second", "w"), ("first", "w", "second", "r")]
    code = "import sys; a, b, c, d = sys.argv[1:]; open(a, b); open(c, d)"
    orders = [python_order(code, *way, number=number, directory=str(tmp_path)) for number, way in enumerate(ways)]
    lines: list[tuple[int, bytes]] = []
    engine: Engine = LocalEngine(2, printed=lambda number, output: lines.append((number, output)))
    outcomes = [future.result() for future in engine.submit([*orders, python_order("print('last')", number=2)])]
    engine.close()
    assert [outcome.exit_code for outcome in outcomes] == [0, 0, 0]
    assert engine.capacity == 2
    assert lines == [(2, b"last\n")]


def test_a_cancelled_engine_ends_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    begun = threading.Event()
    engine = LocalEngine(1, printed=lambda number, output: begun.set())
    # Says what it was sent; it ends well.
    code = """
        import os, signal, sys
        signal.signal(signal.SIGINT, lambda *_: sys.exit(os.write(1, b"heard\\n") - 2))
        os.write(1, b"begun\\n")
        signal.pause()
    """
    futures = engine.submit([python_order(code, number=number) for number in (1, 2)])
    begun.wait(60)
    engine.cancel(signal.SIGINT)
    outcomes = [future.result() for future in [*futures, *engine.submit([python_order(code, number=3)])]]
    assert [outcome.exit_code for outcome in outcomes] == [4, None, None]
    assert {outcome.ended_by for outcome in outcomes} == {EndedBy.CANCELLED}
    assert outcomes[0].log == b"begun\nheard\n"
    assert not engine.handles()
    engine.close()


def test_a_closed_engine_takes_no_orders_and_has_ended_what_ran() -> None:
    begun = threading.Event()
    engine = LocalEngine(1, printed=lambda number, output: begun.set())
    (future,) = engine.submit([command_order("sh", "-c", "trap '' TERM; setsid sleep 60 & echo begun; sleep 60")])
    begun.wait(60)
    engine.close()
    engine.close()
    assert future.result().exit_code == -signal.SIGKILL
    with pytest.raises(ClosedError):
        engine.submit([])


def test_variables_tell_a_child_of_its_chunk() -> None:
    code = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k[:2] in ('MI', 'PY')}))"
    found = json.loads(run_chunk(python_order(code, budget_bytes=5 << 30, jobs_key="tasks")).log)
    child = json.loads(found["MILLPOND_SWEEP_CHILD"])
    assert (child["budget_bytes"], child["jobs_key"], child["name_key"]) == (5 << 30, "tasks", "name")
    assert found["PYTHONUNBUFFERED"] == "1"
