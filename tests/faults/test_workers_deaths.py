"""Workers that die: named, replaced, and their tasks given again. With and without pidfds."""

from __future__ import annotations

import os
import pickle
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from millpond._workers.messages import encode
from millpond._workers.supervisor import Completed, Failed, Supervisor
from millpond._workers.zygote import live_zygotes
from millpond.errors import MillpondError, WorkerDied
from worker_tasks import CannotAttach, DiesAtStart, answers, collect, error_of, obey, results, workers, zygote_pid


@pytest.fixture(params=[True, False], ids=["pidfd", "report"])
def use_pidfd(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(
    ("verb", "exit_code", "signal_name"),
    [("kill", -9, "SIGKILL"), ("segfault", -11, "SIGSEGV"), ("exit", 7, None)],
)
def test_a_deadly_task_is_given_up_and_named(
    verb: str, exit_code: int, signal_name: str | None, use_pidfd: bool
) -> None:
    with workers(2, use_pidfd=use_pidfd) as supervisor:
        found = answers(supervisor, ("echo", 1), (verb,), ("echo", 2), ("echo", 3))
        assert supervisor.statistics().restarts == 2
    assert [answer.result for answer in found if isinstance(answer, Completed)] == [1, 2, 3]
    failed = found[1]
    assert isinstance(failed, Failed)
    error = pickle.loads(pickle.dumps(failed.error))
    assert isinstance(error, WorkerDied)
    assert (error.exit_code, error.signal_name, error.task) == (exit_code, signal_name, 1)
    assert f"(pid {error.pid})" in str(error)


def test_the_stack_of_a_segfault_is_told() -> None:
    with workers(1) as supervisor:
        error = error_of(supervisor, ("segfault",))
    assert "worker_tasks.py" in error.__notes__[0]


@pytest.mark.parametrize("verb", ["kill", "segfault", "exit"])
def test_a_task_that_a_worker_died_of_once_is_done_by_another(verb: str, tmp_path: Path, use_pidfd: bool) -> None:
    with workers(1, use_pidfd=use_pidfd) as supervisor:
        assert results(supervisor, ("once", str(tmp_path / "flag"), verb)) == ["recovered"]
        assert supervisor.statistics().restarts == 1


def test_tasks_that_waited_behind_a_deadly_one_are_not_blamed() -> None:
    with workers(1, tasks_in_flight_per_worker=4) as supervisor:
        found = answers(supervisor, ("kill",), ("kill",), ("echo", 1), ("kill",))
    assert [isinstance(answer, Failed) for answer in found] == [True, True, False, True]


def test_answers_that_a_worker_sent_before_it_died_count(tmp_path: Path) -> None:
    with workers(1, tasks_in_flight_per_worker=8) as supervisor:
        data = os.urandom(100_000)
        found = answers(supervisor, *[("echo", data)] * 3, ("once", str(tmp_path / "flag"), "kill"), ("echo", 1))
        assert all(isinstance(answer, Completed) for answer in found)
        assert supervisor.statistics().restarts == 1


def kill_who_asks(fifo: str, kills: int) -> None:
    for _ in range(kills):
        with open(fifo) as file:
            os.kill(int(file.read()), signal.SIGKILL)


@pytest.mark.parametrize(("kills", "poison"), [(3, False), (4, True)])
def test_a_task_hit_at_another_count_each_time_is_given_up_only_after_four(
    kills: int, poison: bool, tmp_path: Path
) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    killer = threading.Thread(target=kill_who_asks, args=(fifo, kills))
    killer.start()
    with workers(1) as supervisor:
        (answer,) = answers(supervisor, ("hold", fifo, kills))
    killer.join()
    assert isinstance(answer, Failed) is poison


def test_idle_workers_that_are_killed_cost_no_task(use_pidfd: bool) -> None:
    with workers(2, use_pidfd=use_pidfd) as supervisor:
        pids = {*results(supervisor, *[("pid",)] * 8)}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        after = {*results(supervisor, *[("pid",)] * 8)}
        assert supervisor.statistics().restarts == len(pids)
    assert not pids & after


def test_workers_come_back_when_the_zygote_is_killed(use_pidfd: bool) -> None:
    with workers(2, use_pidfd=use_pidfd) as supervisor:
        results(supervisor, ("echo", 0))
        os.kill(zygote_pid(supervisor), signal.SIGKILL)
        assert results(supervisor, *(("echo", number) for number in range(50))) == list(range(50))


def test_under_random_kills_every_task_is_answered_once() -> None:
    chance = random.Random(5)
    left = [*range(200)]
    with workers(3) as supervisor:
        seen: list[Completed | Failed] = []
        while len(seen) < 200:
            while left and supervisor.capacity:
                task_id = left.pop()
                supervisor.submit(task_id, ("echo", task_id))
            seen += supervisor.wait(30)
            if chance.random() < 0.15:
                pid = chance.choice(supervisor.statistics().workers).pid
                if pid is not None:
                    with suppress(ProcessLookupError):  # it is dead already
                        os.kill(pid, signal.SIGKILL)
    assert sorted(answer.task_id for answer in seen) == [*range(200)]
    assert all(isinstance(answer, Completed) and answer.result == answer.task_id for answer in seen)


def test_closing_before_the_zygote_has_forked_leaves_nothing() -> None:
    began = time.monotonic()
    with workers(2, preload=("numpy", "decimal")):
        pass
    assert time.monotonic() - began < 3


def test_the_restart_budget_ends_it() -> None:
    with workers(1, max_restarts=1) as supervisor:
        for task_id in range(3):
            supervisor.submit(task_id, ("kill",))
        with pytest.raises(WorkerDied, match=r"replaced 2 times .*\(limit 1\).*SIGKILL"):
            collect(supervisor, 3)


def test_a_handler_that_cannot_be_attached_raises_its_error() -> None:
    with workers(2, handler=CannotAttach()) as supervisor, pytest.raises(LookupError, match="nothing to attach to"):
        supervisor.wait(30)


def test_workers_that_die_at_their_start_are_an_error_not_a_loop() -> None:
    with (
        workers(1, handler=DiesAtStart()) as supervisor,
        pytest.raises(WorkerDied, match=r"3 workers in a row died before their first task.*exited with code 9"),
    ):
        supervisor.wait(30)


def test_a_preload_set_that_cannot_be_imported_is_an_error_that_names_it() -> None:
    with workers(1, preload=("no_such_module",)) as supervisor:
        with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
            supervisor.wait(30)
        assert any("importing no_such_module" in note for note in caught.value.__notes__)


def test_a_process_that_a_handler_started_dies_with_its_worker(tmp_path: Path) -> None:
    def start_and_die(payload: object, progress: object) -> None:
        import subprocess

        sleeper = subprocess.Popen(["sleep", "1000"])
        (tmp_path / "pid").write_text(str(sleeper.pid))
        os.kill(os.getpid(), signal.SIGKILL)

    with workers(1, handler=start_and_die) as supervisor:
        error_of(supervisor, None)
    sleeper = int((tmp_path / "pid").read_text())
    assert not os.path.exists(f"/proc/{sleeper}") or "Z" in Path(f"/proc/{sleeper}/stat").read_text().split()[2]


def test_many_kills_leave_descriptors_and_processes_flat() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with workers(2, max_restarts=1000) as supervisor:
        results(supervisor, ("echo", 0))
        during = len(os.listdir("/proc/self/fd"))
        for _ in range(25):
            assert isinstance(error_of(supervisor, ("kill",)), MillpondError)
        results(supervisor, *[("pid",)] * 4)
        assert len(os.listdir("/proc/self/fd")) <= during
    assert len(os.listdir("/proc/self/fd")) <= before + len(live_zygotes())


def test_a_supervisor_that_fails_to_open_leaves_nothing() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        Supervisor(encode(obey), num_workers=2, descriptors=[987])
