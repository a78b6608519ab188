"""Workers that hang: their stack is told, they are killed and replaced."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import millpond._workers.supervisor as supervisor_module
from millpond._workers.supervisor import Completed, Failed
from millpond._workers.verdicts import ProcessLimits, TaskLimits
from millpond._workers.worker import Worker
from millpond._workers.worker_set import MOST_LOST
from millpond.errors import DeadlineExceeded, DecodeTimeout, WorkerDied
from worker_tasks import NeverReady, collect, error_of, results, workers, zygote_pid

LIMIT = 0.15


@pytest.mark.parametrize("use_pidfd", [True, False], ids=["pidfd", "report"])
def test_a_hang_in_c_with_the_gil_held_is_ended_and_its_stack_told(use_pidfd: bool) -> None:
    with workers(1, limits=TaskLimits(stall_timeout_seconds=LIMIT), use_pidfd=use_pidfd) as supervisor:
        results(supervisor, ("echo", 0))
        error = error_of(supervisor, ("backtrack",))
    assert isinstance(error, DecodeTimeout)
    assert isinstance(error, TimeoutError)
    assert error.limit_seconds == LIMIT <= error.elapsed_seconds
    assert "in match" in error.stack
    assert "_workers/child.py" not in error.stack  # how the worker came to call it is of no interest
    assert "in match" in error.__notes__[0]


def test_a_stopped_worker_goes_on_at_once() -> None:
    with workers(1, limits=TaskLimits(30.0)) as supervisor:
        assert results(supervisor, ("stop",), ("echo", 1)) == [None, 1]
        assert supervisor.statistics().restarts == 0


def test_a_worker_that_stays_stopped_is_a_hung_one() -> None:
    with workers(1, limits=TaskLimits(stall_timeout_seconds=LIMIT)) as supervisor:
        results(supervisor, ("echo", 0))
        zygote = zygote_pid(supervisor)
        os.kill(zygote, signal.SIGSTOP)  # it continues nobody, until the supervisor sends it SIGCONT at a worker's end
        assert results(supervisor, ("stop",)) == [None]
        assert supervisor.statistics().restarts == 1


def test_an_answer_that_waits_for_the_supervisor_is_no_hang() -> None:
    with workers(1, limits=TaskLimits(1.0)) as supervisor:
        results(supervisor, ("echo", 0))
        (worker,) = supervisor._set.workers
        supervisor.submit(1, ("zeros", 8 << 20))
        select.select([worker.channel], [], [])  # it has begun to send
        time.sleep(1.1)  # past the limit: the supervisor's thread has something else to do
        (done,) = collect(supervisor, 1)
        assert isinstance(done, Completed)
        assert supervisor.statistics().restarts == 0


def test_neither_is_a_task_that_was_not_sent_to_its_end() -> None:
    with workers(1, limits=TaskLimits(1.0)) as supervisor:
        results(supervisor, ("echo", 0))
        (worker,) = supervisor._set.workers
        assert worker.pid is not None
        stopped = zygote_pid(supervisor), worker.pid  # the zygote would have its worker go on
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        supervisor.submit(1, ("echo", bytes(1 << 20)))
        assert worker.wants_to_write
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        time.sleep(1.1)
        (done,) = collect(supervisor, 1)
        assert isinstance(done, Completed)
        assert supervisor.statistics().restarts == 0


def test_a_hang_that_does_not_come_again_costs_nothing_but_time(tmp_path: Path) -> None:
    with workers(2, limits=TaskLimits(stall_timeout_seconds=LIMIT)) as supervisor:
        assert results(supervisor, ("once", str(tmp_path / "flag"), "hold_gil")) == ["recovered"]
        assert supervisor.statistics().restarts == 1


def test_a_slow_task_that_makes_progress_is_not_hung() -> None:
    with workers(1, limits=TaskLimits(stall_timeout_seconds=0.5)) as supervisor:
        assert results(supervisor, ("steady", 14, 0.05)) == [14]
        assert supervisor.statistics().restarts == 0


def test_a_task_that_makes_progress_for_ever_meets_the_total_limit() -> None:
    with workers(1, limits=TaskLimits(0.3, 0.1)) as supervisor:
        error = error_of(supervisor, ("spin",))
    assert isinstance(error, DecodeTimeout)
    assert error.limit_seconds == 0.3
    assert error.progress_count > 0
    assert "did not end" in str(error)


def test_time_counts_from_when_a_task_is_its_worker_s_first() -> None:
    with workers(1, limits=TaskLimits(0.5), tasks_in_flight_per_worker=4) as supervisor:
        assert results(supervisor, *[("steady", 1, 0.2)] * 4) == [1] * 4
        assert supervisor.statistics().restarts == 0


def test_an_answer_that_came_while_nobody_looked_counts() -> None:
    with workers(1, limits=TaskLimits(0.1)) as supervisor:
        supervisor.wait(0.001)
        results(supervisor, ("echo", 0))
        supervisor.submit(1, ("echo", 1))
        time.sleep(0.2)  # the driver is late: what it finds first is that the limit has passed
        (answer,) = supervisor.wait(30)
        assert (answer.task_id, supervisor.statistics().restarts) == (1, 0)


def test_a_driver_that_was_held_up_gives_its_workers_time_to_show_progress(tmp_path: Path) -> None:
    """A machine that stood still has held up both: a stall that nobody has watched proves nothing."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with workers(1, limits=TaskLimits(stall_timeout_seconds=2.0)) as supervisor:
        results(supervisor, ("echo", 0))
        supervisor.submit(1, ("read", fifo))
        time.sleep(3.0)  # nobody waits, and the limit passes
        writer = threading.Timer(0.2, Path(fifo).write_text, ["done"])
        writer.start()
        (answer,) = collect(supervisor, 1)
        writer.join()
        assert isinstance(answer, Completed)
        assert (answer.result, supervisor.statistics().restarts) == ("done", 0)


def test_a_driver_that_was_held_up_for_long_gives_its_workers_no_more_than_their_limit() -> None:
    with workers(1, limits=TaskLimits(stall_timeout_seconds=0.2)) as supervisor:
        results(supervisor, ("echo", 0))
        supervisor.submit(1, ("hold_gil",))
        time.sleep(1.5)  # nobody waits
        assert supervisor.wait(0.0) == []
        (worker,) = supervisor._set.workers
        assert worker.hang is None
        assert worker.due_at_seconds <= time.monotonic() + 0.2
        (answer,) = collect(supervisor, 1)
        assert isinstance(answer, Failed)


def test_an_idle_worker_is_never_hung() -> None:
    with workers(1, limits=TaskLimits(stall_timeout_seconds=0.02)) as supervisor:
        results(supervisor, ("echo", 0))
        assert supervisor.wait(0.1) == []
        assert supervisor.statistics().restarts == 0


def test_a_worker_that_does_not_start_is_an_error_that_says_what_the_zygote_did() -> None:
    with workers(1, handler=NeverReady(), start_timeout_seconds=0.3) as supervisor:
        with pytest.raises(DeadlineExceeded, match=r"not ready \d\.\d s .*limit 0\.3 s.*the zygote was ") as caught:
            supervisor.wait(30)
        assert caught.value.doing


def test_closing_ends_hung_and_stopped_workers() -> None:
    with workers(2) as supervisor:
        pids = sorted({*results(supervisor, *[("pid",)] * 8)})
        supervisor.submit(1, ("hold_gil",))
        supervisor.submit(2, ("hold_gil",))
        os.kill(pids[0], signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.fixture
def unkillable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Workers that no signal reaches, as in state D; their pids, which are killed at the end."""
    pids: list[int] = []
    signal_worker = Worker._signal

    def note(worker: Worker, number: int) -> None:
        if worker.pid is not None and not worker.hang:
            signal_worker(worker, number)  # one that did not hang dies as ever
        elif worker.pid is not None:
            pids.append(worker.pid)

    monkeypatch.setattr(Worker, "_signal", note)
    monkeypatch.setattr(supervisor_module, "ProcessLimits", partial(ProcessLimits, dump_seconds=0.05, reap_seconds=0.1))
    yield pids
    for pid in {*pids}:
        os.kill(pid, signal.SIGKILL)


def test_a_worker_that_sigkill_does_not_end_is_replaced_and_its_task_done_by_another(
    unkillable: list[int], tmp_path: Path
) -> None:
    with workers(1, limits=TaskLimits(stall_timeout_seconds=LIMIT)) as supervisor:
        assert results(supervisor, ("once", str(tmp_path / "flag"), "hold_gil"), ("echo", 1)) == ["recovered", 1]
        (worker,) = supervisor.statistics().workers
        assert worker.pid not in unkillable
        assert worker.index > 0  # its place is given to nobody


def test_the_error_of_a_task_says_that_its_worker_could_not_be_ended(unkillable: list[int]) -> None:
    with workers(1, limits=TaskLimits(stall_timeout_seconds=LIMIT), max_attempts=1) as supervisor:
        error = error_of(supervisor, ("hold_gil",))
        assert isinstance(error, DecodeTimeout)
        assert "the kernel does not let go" in str(error)


def test_when_one_after_the_other_cannot_be_ended_it_is_an_error(unkillable: list[int]) -> None:
    with workers(4, limits=TaskLimits(stall_timeout_seconds=LIMIT), max_attempts=1) as supervisor:
        for task_id in range(MOST_LOST + 1):
            supervisor.submit(task_id, ("hold_gil",))
        with pytest.raises(WorkerDied, match=r"9 workers, the last .* still run .* storage that does not answer"):
            collect(supervisor, MOST_LOST + 2)
