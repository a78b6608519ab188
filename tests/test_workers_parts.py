"""The small parts: cells, descriptors, limits, and what is said of ends."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from millpond._workers.cells import Cells, cells_bytes
from millpond._workers.descriptors import anonymous_file, receive_descriptors, send_descriptors
from millpond._workers.lifecycle import Attempt, Cause
from millpond._workers.recycling import Recycling
from millpond._workers.verdicts import End, Hang, ProcessLimits, TaskLimits, task_failed
from millpond.errors import DecodeTimeout, WorkerDied


@pytest.mark.parametrize("use_memfd", [True, False])
def test_an_anonymous_file_is_zeroed_and_has_no_name(use_memfd: bool) -> None:
    descriptor = anonymous_file("millpond-test", 100, use_memfd=use_memfd)
    assert os.pread(descriptor, 200, 0) == bytes(100)
    assert os.fstat(descriptor).st_nlink == 0
    os.close(descriptor)


def test_descriptors_travel_and_are_closed_on_exec() -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    with ours, theirs:
        send_descriptors(ours, b"x", [write])
        os.close(write)
        data, (received,) = receive_descriptors(theirs, 10)
    os.write(received, b"through")
    assert (data, os.read(read, 10), os.get_inheritable(received)) == (b"x", b"through", False)
    os.close(read)
    os.close(received)


@pytest.fixture
def cells() -> Iterator[Cells]:
    descriptor = anonymous_file("millpond-test", cells_bytes(3))
    cells = Cells(descriptor, 3)
    os.close(descriptor)
    yield cells
    cells.close()


def test_the_supervisor_reads_what_a_worker_records(cells: Cells) -> None:
    begin, progress = cells.recorder(1)
    before = time.monotonic()
    begin(17)
    progress()
    progress()
    seen = cells.read(1)
    assert (seen.serial, seen.count) == (17, 2)
    assert before - 1e-6 <= seen.at_seconds <= time.monotonic()
    assert cells.read(0).serial == cells.read(2).serial == 0


def test_a_new_task_counts_from_zero(cells: Cells) -> None:
    begin, progress = cells.recorder(0)
    begin(1)
    progress()
    begin(2)
    assert cells.read(0).count == 0


def test_clearing_a_row_forgets_its_former_worker(cells: Cells) -> None:
    begin, _ = cells.recorder(2)
    begin(5)
    cells.ask_to_stop(2)
    assert cells.is_stopped(2)
    cells.clear(2)
    assert (cells.read(2).serial, cells.is_stopped(2)) == (0, False)


@pytest.mark.parametrize(
    ("since", "progress_at", "now", "cause"),
    [
        (0, 0, 1.9, None),
        (0, 0, 2.0, Cause.STALLED),
        (0, 8.5, 9.9, None),
        (0, 9.5, 10.0, Cause.TIMED_OUT),
        (5, 1.0, 6.9, None),  # progress of the task before does not count, nor does it harm
    ],
)
def test_limits_judge(since: float, progress_at: float, now: float, cause: Cause | None) -> None:
    hang = TaskLimits(10.0, 2.0).judge(since, progress_at, now)
    assert (hang.cause if hang else None) is cause


def test_a_stall_that_nobody_watched_is_doubtful_and_a_limit_of_time_is_not() -> None:
    assert Hang(Cause.STALLED, 2.0, 3.0).is_doubtful(0.21)
    assert not Hang(Cause.STALLED, 2.0, 2.1).is_doubtful(0.1)
    assert not Hang(Cause.TIMED_OUT, 2.0, 3.0).is_doubtful(1.0)


def test_without_a_stall_limit_only_the_total_counts() -> None:
    limits = TaskLimits(10.0, None)
    assert limits.judge(0, 0, 9.9) is None
    assert limits.due_at(1.0, 5.0, 6.0) == 11.0


def test_time_may_count_from_when_a_task_was_unpacked() -> None:
    limits = TaskLimits(2.0, begin_timeout_seconds=30.0)
    assert limits.judge(0, 0, 29, has_begun=False) is None
    assert limits.judge(0, 0, 30, has_begun=False) is not None
    assert limits.judge(0, 10, 11.9) is None
    assert limits.judge(0, 10, 12.0) is not None
    assert limits.due_at(0, 0, 0, has_begun=False) == 2.0  # it may have begun at once
    assert limits.due_at(0, 0, 29, has_begun=False) == 30.0
    assert limits.due_at(0, 10, 11) == 12.0


@pytest.mark.parametrize("bad", [{"timeout_seconds": 0}, {"stall_timeout_seconds": -1.0}])
def test_limits_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        TaskLimits(**bad)


def test_a_start_limit_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="start_seconds"):
        ProcessLimits(0)


@pytest.mark.parametrize(
    ("recycling", "due"),
    [
        (Recycling(), False),
        (Recycling(max_tasks=10), True),
        (Recycling(max_tasks=11), False),
        (Recycling(max_anon_bytes=500), True),
        (Recycling(max_tasks=11, max_anon_bytes=501), False),
    ],
)
def test_recycling_is_due_after_so_many_tasks_or_bytes(recycling: Recycling, due: bool) -> None:
    assert recycling.is_due(tasks=10, anon_bytes=500) is due
    assert recycling.is_wanted is (recycling != Recycling())


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "(Killed), possibly out of memory"),
        (1, "(Killed), possibly out of memory: the cgroup counts 1 new oom_kill"),
        (0, "(Killed), not for want of memory: the cgroup counts no new oom_kill"),
    ],
)
def test_a_killed_worker_s_end_says_whether_memory_was_short(count: int | None, words: str) -> None:
    assert End(0, 5, signal.SIGKILL, None, "", oom_kills=count).in_words() == f"was killed by SIGKILL {words}"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (signal.SIGKILL, "was killed by SIGKILL (Killed), possibly out of memory"),
        (signal.SIGSEGV, "was killed by SIGSEGV (Segmentation fault)"),
        (signal.SIGRTMIN + 5, "was killed by signal 39"),
        (7 << 8, "exited with code 7"),
        (None, "ended with the zygote"),
    ],
)
def test_an_end_in_words(status: int | None, words: str) -> None:
    assert words in End(0, 42, status, None, "").in_words()


def test_a_worker_that_could_not_be_forked_in_words() -> None:
    end = End(0, None, None, None, "", errno.ENOMEM)
    assert end.in_words() == "could not be forked (Cannot allocate memory)"


def test_the_error_of_a_hang_says_limit_elapsed_and_where() -> None:
    end = End(3, 917, int(signal.SIGRTMIN) + 3, Hang(Cause.STALLED, 5.0, 5.04), "File x.py, line 3 in decode")
    error = pickle.loads(pickle.dumps(task_failed(8, [Attempt(Cause.STALLED, 2)] * 2, end)))
    assert isinstance(error, DecodeTimeout)
    assert "task 8 made no progress for 5.0 s (limit 5.0 s; attempt 2" in str(error)
    assert (error.limit_seconds, error.elapsed_seconds, error.pid, error.progress_count) == (5.0, 5.04, 917, 2)
    assert "line 3 in decode" in error.__notes__[0]


def test_a_worker_that_did_not_get_to_write_its_stack_leaves_that_of_an_earlier_attempt() -> None:
    attempts = [Attempt(Cause.STALLED, 2, "File x.py, line 3 in decode"), Attempt(Cause.STALLED, 2)]
    error = task_failed(8, attempts, End(3, 917, int(signal.SIGKILL), Hang(Cause.STALLED, 5.0, 5.04), ""))
    assert error.stack == "File x.py, line 3 in decode"
    assert "line 3 in decode" in error.__notes__[0]


def test_the_error_of_a_death_names_pid_signal_and_task() -> None:
    error = task_failed(8, [Attempt(Cause.DIED, 0)] * 2, End(3, 917, int(signal.SIGSEGV), None, ""))
    assert isinstance(error, WorkerDied)
    assert (error.pid, error.exit_code, error.signal_name, error.task) == (917, -11, "SIGSEGV", 8)
