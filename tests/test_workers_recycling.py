"""Workers that have had their time are followed by new ones, without a gap; workers that are started when wanted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from millpond._workers.recycling import Recycling
from millpond._workers.supervisor import Completed
from millpond._workers.verdicts import TaskLimits
from worker_tasks import answers, collect, obey, results, workers, zygote_pid


def test_a_worker_is_followed_after_so_many_tasks_and_none_is_lost() -> None:
    with workers(2, recycling=Recycling(max_tasks=10)) as supervisor:
        pids = results(supervisor, *[("slow_pid", 0.01)] * 100)
        statistics = supervisor.statistics()
    assert (statistics.restarts, statistics.tasks_completed) == (0, 100)
    assert statistics.recycles >= 3
    assert len({*pids}) >= 5


def test_a_worker_is_followed_when_it_has_too_much_memory_of_its_own() -> None:
    with workers(1, recycling=Recycling(max_anon_bytes=120 << 20), tasks_in_flight_per_worker=1) as supervisor:
        pids = results(supervisor, *[("leak", 30 << 20)] * 16)
    assert pids[0] == pids[1]  # 60 MiB are not too much
    assert len({*pids}) >= 2


def test_while_a_worker_is_recycled_as_many_as_wanted_take_tasks() -> None:
    with workers(2, recycling=Recycling(max_tasks=3)) as supervisor:
        supervisor.wait_until_ready()
        left = [("slow_pid", 0.005)] * 60
        serving = []
        while left:
            while left and supervisor.capacity:
                supervisor.submit(len(left), left.pop())
            supervisor.wait(30)
            states = [worker.state for worker in supervisor.statistics().workers]
            serving.append(sum(state in ("idle", "busy") for state in states))
            assert len(states) <= 3
    assert min(serving) >= 2


def test_a_successor_that_is_killed_leaves_its_predecessor_at_work() -> None:
    with workers(1, recycling=Recycling(max_tasks=2), tasks_in_flight_per_worker=1) as supervisor:
        first = results(supervisor, ("pid",), ("pid",))[0]
        (successor,) = [worker for worker in supervisor.statistics().workers if worker.pid != first]
        while successor.pid is None:
            supervisor.wait(0.01)
            (successor,) = [worker for worker in supervisor.statistics().workers if worker.index == successor.index]
        os.kill(successor.pid, signal.SIGKILL)
        pids = results(supervisor, *[("slow_pid", 0.01)] * 40)
        assert len({*pids}) >= 2


def test_a_task_that_hangs_in_a_worker_that_is_leaving_is_done_by_its_successor(tmp_path: Path) -> None:
    with workers(
        1, recycling=Recycling(max_tasks=1), limits=TaskLimits(stall_timeout_seconds=0.2), tasks_in_flight_per_worker=2
    ) as supervisor:
        flag = str(tmp_path / "flag")
        assert results(supervisor, ("echo", 1), ("once", flag, "hold_gil"), ("echo", 2)) == [1, "recovered", 2]


def test_on_demand_workers_start_when_tasks_wait(tmp_path: Path) -> None:
    with workers(3, on_demand=True) as supervisor:
        assert supervisor.statistics().workers == ()
        results(supervisor, *[("pid",)])
        assert len(supervisor.statistics().workers) == 1
        results(supervisor, *[("meet", str(tmp_path), 3)] * 3)
        assert len(supervisor.statistics().workers) == 3


def test_an_on_demand_worker_that_dies_is_replaced_before_the_next_task() -> None:
    with workers(2, on_demand=True, max_attempts=1) as supervisor:
        answers(supervisor, ("kill",))
        supervisor.wait_until_ready()
        assert [worker.state for worker in supervisor.statistics().workers] == ["idle"]


@pytest.mark.parametrize(("max_attempts", "survives"), [(4, True), (1, False)])
def test_a_task_may_end_so_many_workers(max_attempts: int, survives: bool, tmp_path: Path) -> None:
    with workers(1, max_attempts=max_attempts) as supervisor:
        (answer,) = answers(supervisor, ("die_at_first", str(tmp_path), 1, ("echo", 5)))
        assert isinstance(answer, Completed) is survives


def test_the_last_attempt_runs_while_no_other_task_does(tmp_path: Path) -> None:
    deaths, running = tmp_path / "deaths", tmp_path / "running"
    deaths.mkdir()
    running.mkdir()
    count = ("count_running", str(running), 0.05)
    with workers(3) as supervisor:
        supervisor.submit(0, ("die_at_first", str(deaths), 3, count))
        for task_id in range(1, 40):
            supervisor.submit(task_id, count)
        found = collect(supervisor, 40)
    seen = [answer.result for answer in found if isinstance(answer, Completed)]
    assert len(seen) == 40
    assert seen[0] == 1
    assert max(seen) > 1


def test_completed_tasks_make_up_for_restarts(tmp_path: Path) -> None:
    with workers(1, max_restarts=2) as supervisor:
        for number in range(6):
            folder = tmp_path / str(number)
            folder.mkdir()
            assert results(supervisor, ("echo", 0), ("die_at_first", str(folder), 1, ("echo", number))) == [0, number]
        assert supervisor.statistics().restarts == 6


def test_a_limit_of_its_own_counts_for_a_task() -> None:
    with workers(1, limits=TaskLimits(0.2), max_attempts=1) as supervisor:
        supervisor.submit(0, ("steady", 10, 0.05), limits=TaskLimits(30.0))
        (answer,) = supervisor.wait(30)
        assert isinstance(answer, Completed)


def test_a_stopped_zygote_does_not_hold_up_the_end() -> None:
    with workers(2, handler=obey) as supervisor:
        results(supervisor, ("echo", 0))
        os.kill(zygote_pid(supervisor), signal.SIGSTOP)
        os.kill(supervisor.statistics().workers[0].pid or 0, signal.SIGKILL)
        assert results(supervisor, *[("echo", 1)] * 20) == [1] * 20
        os.kill(zygote_pid(supervisor), signal.SIGSTOP)
