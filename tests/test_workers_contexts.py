"""Workers by each start method of multiprocessing do what those of a zygote do. Each with and without pidfds."""

from __future__ import annotations

import errno
import multiprocessing
import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from millpond._workers.context_starter import ContextStarter
from millpond._workers.recycling import Recycling
from millpond._workers.supervisor import Supervisor
from millpond._workers.verdicts import TaskLimits
from millpond._workers.zygote import shutdown
from millpond.errors import ClosedError, DeadlineExceeded, DecodeTimeout, WorkerDied
from programs import run_python
from worker_tasks import DiesAtStart, NeverReady, Reader, answers, error_of, results, workers

METHODS = multiprocessing.get_all_start_methods()
Started = Callable[..., AbstractContextManager[Supervisor]]


def by(method: str, **options: Any) -> AbstractContextManager[Supervisor]:
    """A supervisor whose workers are started so."""
    return workers(
        options.pop("num_workers", 1), starter=ContextStarter(multiprocessing.get_context(method)), **options
    )


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def started(method: str) -> Started:
    return partial(by, method)


@pytest.fixture(params=[True, False], ids=["pidfd", "sentinel"])
def either(method: str, request: pytest.FixtureRequest) -> Started:
    """With pidfds, and as on platforms that have none."""
    starter = ContextStarter(multiprocessing.get_context(method), use_pidfd=request.param)

    def workers_of_it(num_workers: int = 1, **options: Any) -> AbstractContextManager[Supervisor]:
        return workers(num_workers, starter=starter, use_pidfd=request.param, **options)

    return workers_of_it


def test_every_task_is_answered_once(either: Started) -> None:
    with either(2) as supervisor:
        assert results(supervisor, *(("echo", number) for number in range(50))) == list(range(50))
        statistics = supervisor.statistics()
    assert (statistics.tasks_completed, statistics.restarts, statistics.zygote_pid) == (50, 0, None)


def test_an_exception_comes_as_itself(started: Started) -> None:
    with started() as supervisor:
        error = error_of(supervisor, ("raise", "value"))
    assert isinstance(error, ValueError)
    assert "worker_tasks.py" in error.__notes__[-1]


def test_a_worker_that_is_killed_is_replaced_and_its_task_done_again(either: Started) -> None:
    with either(2) as supervisor:
        results(supervisor, ("echo", 0))
        for worker in supervisor.statistics().workers:
            os.kill(worker.pid or 0, signal.SIGKILL)
        assert results(supervisor, *[("echo", 1)] * 4) == [1] * 4


@pytest.mark.parametrize(
    ("verb", "words"),
    [("kill", "was killed by SIGKILL"), ("segfault", "was killed by SIGSEGV"), ("exit", "exited with code 7")],
)
def test_how_a_worker_died_is_told(started: Started, verb: str, words: str) -> None:
    with started(max_attempts=1) as supervisor:
        error = error_of(supervisor, (verb,))
    assert isinstance(error, WorkerDied)
    assert words in str(error)


def test_how_a_worker_died_is_told_without_pidfds(either: Started) -> None:
    with either(max_attempts=1) as supervisor:
        assert "exited with code 7" in str(error_of(supervisor, ("exit",)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_somebody_else_reaps_is_dead_all_the_same(method: str) -> None:
    ignored = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with by(method, max_attempts=1) as supervisor:
            assert "exited with code 255" in str(error_of(supervisor, ("kill",)))  # nobody knows
            assert results(supervisor, ("echo", 1)) == [1]
    finally:
        signal.signal(signal.SIGCHLD, ignored)


def test_a_hang_in_c_with_the_gil_held_is_ended_and_its_stack_told(either: Started) -> None:
    with either(max_attempts=1, limits=TaskLimits(stall_timeout_seconds=0.15)) as supervisor:
        error = error_of(supervisor, ("hold_gil",))
    assert isinstance(error, DecodeTimeout)
    assert "worker_tasks.py" in error.stack


def test_a_stopped_worker_is_a_hung_one(started: Started) -> None:
    with started(max_attempts=1, limits=TaskLimits(stall_timeout_seconds=0.15)) as supervisor:
        answers(supervisor, ("stop",))  # when it goes on, in order to write its stack, its answer may be quicker
        assert results(supervisor, ("echo", 1)) == [1]
        assert supervisor.statistics().restarts == 1


def test_a_worker_is_recycled(started: Started) -> None:
    deadline = time.monotonic() + 60
    pids: set[int] = set()
    with started(recycling=Recycling(max_tasks=3)) as supervisor:
        while not supervisor.statistics().recycles:
            assert time.monotonic() < deadline, supervisor.statistics()
            pids |= {*results(supervisor, *[("slow_pid", 0.02)] * 5)}
        assert supervisor.statistics().restarts == 0
    assert len(pids) >= 2


def test_a_handler_gets_descriptors_and_is_closed_in_the_end(started: Started) -> None:
    with tempfile.TemporaryFile() as source:
        source.write(b"shared bytes")
        source.flush()
        read, write = os.pipe()
        with started(num_workers=2, handler=Reader(), descriptors=[source.fileno(), write]) as supervisor:
            supervisor.wait_until_ready()
            assert {data for _, data in results(supervisor, *[None] * 8)} == {b"shared bytes"}
    os.close(write)
    assert os.read(read, 100) == b"closed closed "
    os.close(read)


def test_what_it_is_handed_is_not_handed_on(started: Started) -> None:
    def children_s(payload: object, progress: object) -> str:
        import subprocess

        listing = ["/bin/sh", "-c", "exec ls -l /proc/self/fd"]
        return subprocess.run(listing, capture_output=True, text=True, check=True, close_fds=False).stdout

    with started(handler=children_s) as supervisor:
        assert "memfd:millpond" not in results(supervisor, None)[0]


def test_a_lambda_travels_by_value(started: Started) -> None:
    with started(handler=lambda payload, progress: payload * 2) as supervisor:
        assert results(supervisor, 21) == [42]


def test_workers_ignore_ctrl_c(started: Started) -> None:
    with started() as supervisor:
        assert results(supervisor, ("interrupt",), ("echo", 1)) == [None, 1]


def test_what_it_prints_goes_where_multiprocessing_s_output_goes(capfd: pytest.CaptureFixture[str]) -> None:
    with by("spawn") as supervisor:
        results(supervisor, ("print", "hello from below"))
    assert capfd.readouterr().out == "hello from below\n"


def test_what_a_worker_started_ends_with_it(started: Started, tmp_path: Path) -> None:
    def sleeper(payload: object, progress: object) -> int:
        import subprocess

        return subprocess.Popen(["sleep", "100"]).pid

    with started(handler=sleeper) as supervisor:
        (pid,) = results(supervisor, None)
        descriptor = os.pidfd_open(pid)
        os.kill(supervisor.statistics().workers[0].pid or 0, signal.SIGKILL)
        results(supervisor, None)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(20_000)
    os.close(descriptor)


def test_a_worker_that_dies_at_its_start_is_an_error(started: Started) -> None:
    with (
        started(handler=DiesAtStart()) as supervisor,
        pytest.raises(WorkerDied, match=r"3 workers in a row .*exited with code 9"),
    ):
        supervisor.wait(60)


def test_a_worker_that_does_not_start_is_an_error_that_names_the_method(method: str) -> None:
    with (
        by(method, handler=NeverReady(), start_timeout_seconds=0.3) as supervisor,
        pytest.raises(DeadlineExceeded, match=rf"not ready .*multiprocessing \('{method}'\)"),
    ):
        supervisor.wait(60)


def test_after_shutdown_a_supervisor_says_so_and_a_new_one_works(method: str) -> None:
    with by(method) as supervisor:
        results(supervisor, ("echo", 0))
        shutdown()
        with pytest.raises(ClosedError, match="shutdown"):
            supervisor.wait(60)
    with by(method) as another:
        assert results(another, ("echo", 5)) == [5]


def test_closed_at_once_it_leaves_nothing(started: Started) -> None:
    for _ in range(3):
        with started(num_workers=2):
            pass


@pytest.mark.parametrize("failing", ["_start", "_sentinel_of"])
def test_without_room_for_a_second_worker_the_first_is_not_left(
    method: str, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    does, calls = getattr(ContextStarter, failing), []

    def fails_at_second(starter: ContextStarter, argument: Any) -> Any:
        calls.append(argument)
        if len(calls) == 2:
            raise OSError(errno.EMFILE, "no descriptor left")
        return does(starter, argument)

    monkeypatch.setattr(ContextStarter, failing, fails_at_second)
    with pytest.raises(OSError, match="no descriptor left"), by(method, num_workers=2):
        pass


def test_a_stopped_fork_server_goes_on_when_a_worker_ended() -> None:
    from multiprocessing import forkserver

    with by("forkserver", max_attempts=1) as supervisor:
        results(supervisor, ("echo", 0))
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGSTOP)  # type: ignore[attr-defined]
        assert "exited with code 7" in str(error_of(supervisor, ("exit",)))
        assert results(supervisor, ("echo", 1)) == [1]


def test_a_fork_has_what_this_process_has_and_holds_no_lock_of_its_threads() -> None:
    lock = threading.Lock()
    with lock, by("fork", handler=_InHand(lock)) as supervisor:
        assert results(supervisor, None) == [True]


class _InHand:
    """Knows whether an object that cannot be pickled is here."""

    def __init__(self, lock: Any) -> None:
        _in_hand[0] = lock

    def __call__(self, payload: object, progress: object) -> bool:
        import test_workers_contexts

        return bool(test_workers_contexts._in_hand[0].locked())


_in_hand: dict[int, Any] = {}


def test_several_threads_may_start_forks_at_once() -> None:
    def work() -> None:
        with by("fork", num_workers=2) as supervisor:
            found.append(results(supervisor, *[("echo", 1)] * 10))

    found: list[Any] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[1] * 10] * 4


def test_a_daemonic_process_is_told_by_multiprocessing_that_it_may_have_none(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import multiprocessing\nfrom millpond._workers.context_starter import ContextStarter\n"
        "from millpond._workers.supervisor import Supervisor\n"
        "def main():\n    starter = ContextStarter(multiprocessing.get_context('fork'))\n"
        "    try:\n        Supervisor(b'', num_workers=1, starter=starter)\n"
        "    except AssertionError as error:\n        print(error, flush=True)\n"
        "process = multiprocessing.get_context('fork').Process(target=main, daemon=True)\n"
        "process.start()\nprocess.join()\n"
    )
    ran = run_python(["train.py"], directory=tmp_path)
    assert ran.stdout == "daemonic processes are not allowed to have children\n", ran.stderr


@pytest.mark.parametrize("method", [method for method in METHODS if method != "forkserver"])
def test_a_forked_child_leaves_its_parent_s_workers_alone(method: str) -> None:
    # (multiprocessing's fork server cannot be used in a forked child of the process that started it)
    with by(method) as supervisor:
        results(supervisor, ("echo", 0))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with by(method) as own:
                    code = 0 if results(own, ("echo", 3)) == [3] else 2
                shutdown()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert results(supervisor, ("echo", 1)) == [1]


def test_unanswered_tasks_are_no_reason_to_stay(method: str) -> None:
    with by(method, num_workers=2) as supervisor:
        results(supervisor, ("echo", 0))
        supervisor.submit(1, ("hold_gil",))
        supervisor.submit(2, ("spin",))
