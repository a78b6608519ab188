"""What a supervisor does while nothing goes wrong, and with the handler's own errors. Each with and without pidfds."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from millpond._workers.messages import encode
from millpond._workers.supervisor import Completed, Supervisor
from millpond._workers.zygote import Zygote, live_zygotes, shutdown
from millpond.errors import ClosedError, RemoteError, UsageError
from worker_tasks import Reader, answers, collect, error_of, obey, results, workers


@pytest.fixture(params=[True, False], ids=["pidfd", "report"])
def use_pidfd(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_every_task_is_answered_once(use_pidfd: bool) -> None:
    with workers(3, use_pidfd=use_pidfd) as supervisor:
        assert results(supervisor, *(("echo", number) for number in range(200))) == list(range(200))
        statistics = supervisor.statistics()
    assert (statistics.tasks_submitted, statistics.tasks_completed, statistics.restarts) == (200, 200, 0)


def test_large_payloads_and_results_pass_both_ways_at_once() -> None:
    data = os.urandom(10_000_000)
    with workers(1) as supervisor:
        assert results(supervisor, *[("echo", data)] * 4) == [data] * 4


def test_tasks_go_to_different_workers_first(tmp_path: Path) -> None:
    with workers(3) as supervisor:
        assert len(set(results(supervisor, *[("meet", str(tmp_path), 3)] * 3))) == 3


def test_capacity_is_what_keeps_all_workers_busy() -> None:
    with workers(2, tasks_in_flight_per_worker=3) as supervisor:
        assert supervisor.capacity == 6
        for task_id in range(7):
            supervisor.submit(task_id, ("echo", 1))
        assert supervisor.capacity == 0
        collect(supervisor, 7)
        assert supervisor.capacity == 6


def test_a_handler_from_main_travels_by_value_and_so_does_its_result() -> None:
    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    def double(payload: Local, _: Any) -> Local:
        return Local(payload.value * 2)

    with workers(1, handler=double) as supervisor:
        (result,) = results(supervisor, Local(21))
    assert isinstance(result, Local)
    assert result.value == 42


def test_a_handler_gets_descriptors_and_is_closed_in_the_end(use_pidfd: bool) -> None:
    with tempfile.TemporaryFile() as source:
        source.write(b"shared bytes")
        source.flush()
        read, write = os.pipe()
        with workers(2, handler=Reader(), descriptors=[source.fileno(), write], use_pidfd=use_pidfd) as supervisor:
            found = results(supervisor, *[None] * 8)
    assert {data for _, data in found} == {b"shared bytes"}
    assert {index for index, _ in found} <= {0, 1}
    os.close(write)
    assert os.read(read, 100) == b"closed closed "
    os.close(read)


def test_an_exception_comes_as_itself_with_the_worker_s_traceback() -> None:
    with workers(1) as supervisor:
        error = error_of(supervisor, ("raise", "value"))
    assert isinstance(error, ValueError)
    assert str(error) == "a bad value"
    assert "worker_tasks.py" in error.__notes__[-1]


@pytest.mark.parametrize("kind", ["loud", "unpicklable", "exit"])
def test_an_exception_that_cannot_travel_comes_as_remote_error(kind: str) -> None:
    with workers(1) as supervisor:
        assert isinstance(error_of(supervisor, ("raise", kind)), RemoteError)
        assert results(supervisor, ("echo", 1)) == [1]


def test_a_result_that_cannot_travel_fails_its_task_alone() -> None:
    with workers(1) as supervisor:
        assert isinstance(error_of(supervisor, ("unpicklable_result",)), TypeError)
        assert supervisor.statistics().restarts == 0


def test_a_result_that_does_not_unpickle_fails_its_task_alone() -> None:
    class Spiteful:
        def __setstate__(self, state: object) -> None:
            raise KeyError("no")

        def __getstate__(self) -> int:
            return 1

    with workers(1, handler=lambda payload, progress: Spiteful()) as supervisor:
        error = error_of(supervisor, None)
    assert isinstance(error, KeyError)
    assert "result of task 0" in error.__notes__[0]


def test_wake_ends_a_wait_from_any_thread() -> None:
    with workers(1) as supervisor:
        results(supervisor, ("echo", 0))
        thread = threading.Thread(target=supervisor.wake)
        thread.start()
        assert supervisor.wait(30) == []
        thread.join()


def test_a_wake_before_the_wait_is_not_lost() -> None:
    with workers(1) as supervisor:
        results(supervisor, ("echo", 0))
        supervisor.wake()
        began = time.monotonic()
        assert supervisor.wait(30) == []
        assert time.monotonic() - began < 10


def test_ready_workers_are_idle_and_answers_wait_meanwhile() -> None:
    with workers(2) as supervisor:
        supervisor.submit(7, ("echo", "kept"))
        supervisor.wait_until_ready()
        assert "starting" not in {worker.state for worker in supervisor.statistics().workers}
        assert collect(supervisor, 1) == [Completed(7, "kept")]


def test_wait_returns_when_its_time_is_up() -> None:
    with workers(1) as supervisor:
        assert supervisor.wait(0.01) == []


def test_waking_after_close_is_harmless() -> None:
    with workers(1) as supervisor:
        pass
    supervisor.wake()
    supervisor.close()
    with pytest.raises(ClosedError, match="closed"):
        supervisor.wait(0)


def test_closing_with_unanswered_tasks_is_quick() -> None:
    with workers(2) as supervisor:
        results(supervisor, ("echo", 0))
        for task_id in range(20):
            supervisor.submit(task_id, ("steady", 1000, 0.01))
        began = time.monotonic()
    assert time.monotonic() - began < 3


def test_workers_get_surroundings_of_the_moment_they_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with workers(1) as supervisor:  # the zygote is warm from here on
        results(supervisor, ("echo", 0))
    monkeypatch.setenv("MILLPOND_TEST_WORD", "later")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("/nowhere/at/all")
    with workers(1) as supervisor:
        ((directory, word, path),) = results(supervisor, ("surroundings", "MILLPOND_TEST_WORD"))
    assert (directory, word, path[0]) == (str(tmp_path), "later", "/nowhere/at/all")


def test_workers_import_neither_torch_nor_pandas_nor_pytest() -> None:
    with workers(1, preload=("numpy", "av")) as supervisor:
        (modules,) = results(supervisor, ("modules",))
    assert "av" in modules
    assert not {"torch", "pandas", "pytest"} & set(modules)


def test_a_worker_holds_no_descriptor_but_its_own(use_pidfd: bool) -> None:
    with workers(3, use_pidfd=use_pidfd) as supervisor:
        (held,) = results(supervisor, ("descriptors",))
    # 0 to 2; socket, dump file, cells, the map's copy of the cells; the listing itself
    assert len(held) == 8


def test_workers_ignore_ctrl_c() -> None:
    with workers(1) as supervisor:
        assert results(supervisor, ("interrupt",), ("echo", 1)) == [None, 1]
        assert supervisor.statistics().restarts == 0


def test_what_a_worker_prints_comes_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with workers(1) as supervisor:
        results(supervisor, ("print", "hello from below"))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "hello from below\n")


def test_after_shutdown_a_supervisor_says_so_and_a_new_one_works() -> None:
    with workers(1) as supervisor:
        results(supervisor, ("echo", 0))
        shutdown()
        with pytest.raises(ClosedError, match="shutdown"):
            supervisor.wait(30)
    with workers(1) as another:
        assert results(another, ("echo", 5)) == [5]


def test_who_finds_workers_dead_while_they_are_shut_down_starts_no_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    resume = Zygote.resume
    with workers(1) as supervisor:
        results(supervisor, ("echo", 0))

        def look_amid_it(zygote: Zygote) -> None:
            if zygote is not supervisor._spawner.starter:
                return  # that of another preload set, left by a test before
            monkeypatch.setattr(Zygote, "resume", resume)
            with pytest.raises(ClosedError, match="shutdown"):
                supervisor.wait(30)

        monkeypatch.setattr(Zygote, "resume", look_amid_it)
        shutdown()
        assert not live_zygotes()


def test_a_supervisor_in_a_forked_child_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    with workers(1) as supervisor:
        results(supervisor, ("echo", 0))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                supervisor.wait(0)
            except UsageError as error:
                supervisor.wake()
                supervisor.close()
                code = 0 if "make a new loader after the fork" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert results(supervisor, ("echo", 1)) == [1]  # the child's close did no harm here


def test_a_forked_child_can_have_workers_of_its_own() -> None:
    with workers(1) as supervisor:
        results(supervisor, ("echo", 0))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with workers(1) as own:
                    code = 0 if results(own, ("echo", 3)) == [3] else 2
                shutdown()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"num_workers": 1, "tasks_in_flight_per_worker": 0}])
def test_misuse_is_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|must be positive"):
        Supervisor(encode(obey), **options)


def test_a_failed_task_does_not_hold_up_the_others() -> None:
    with workers(2) as supervisor:
        found = answers(supervisor, ("echo", 1), ("raise", "value"), ("echo", 2))
    assert [isinstance(answer, Completed) for answer in found] == [True, False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_has_a_name_of_its_own() -> None:
    with workers(1) as supervisor:
        (pid,) = results(supervisor, ("pid",))
        with open(f"/proc/{pid}/comm") as file:
            assert file.read() == "millpond-w0\n"


def test_workers_of_a_realtime_process_are_ordinary_ones() -> None:
    if not hasattr(os, "sched_setscheduler"):
        pytest.skip("this platform has no realtime processes")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("only root may be a realtime process here")
    try:
        with workers(1, preload=("fractions",)) as supervisor:  # a zygote of its own, started by this thread as it is
            assert results(supervisor, ("scheduling",)) == [os.SCHED_OTHER]
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
