"""`with_timeout`, `call_with_timeout`, and the guard that a process has of its own."""

from __future__ import annotations

import ast
import os
import re
import threading
from typing import Any

import pytest

import guard_tasks
import millpond
from millpond import Guard, settings, with_timeout
from millpond._guard import timeouts
from millpond._guard.default_timeout import default_timeout_seconds
from millpond._guard.timeouts import call_with_timeout
from programs import forked


@pytest.fixture(autouse=True)
def no_timeout_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLPOND_DECODE_TIMEOUT", raising=False)


def test_a_decorated_function_runs_in_a_worker_that_stays() -> None:
    pids = {guard_tasks.limited_pid() for _ in range(3)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_without_a_number_the_environment_decides_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert guard_tasks.limited_by_environment() == os.getpid()
    monkeypatch.setenv("MILLPOND_DECODE_TIMEOUT", "20")
    assert guard_tasks.limited_by_environment() != os.getpid()
    monkeypatch.setenv("MILLPOND_DECODE_TIMEOUT", "0")
    assert guard_tasks.limited_by_environment() == os.getpid()
    monkeypatch.setenv("MILLPOND_DECODE_TIMEOUT", "soon")
    with pytest.raises(
        ValueError, match="MILLPOND_DECODE_TIMEOUT must be a number of seconds, or 0 for none, not 'soon'"
    ):
        guard_tasks.limited_by_environment()


def test_the_environment_is_not_read_as_long_as_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_DECODE_TIMEOUT", "12.5")
    assert default_timeout_seconds() == 12.5
    monkeypatch.setattr(settings, "Settings", None)
    assert default_timeout_seconds() == 12.5
    monkeypatch.delenv("MILLPOND_DECODE_TIMEOUT")
    assert default_timeout_seconds() == 0


def test_unset_nothing_is_started() -> None:
    assert guard_tasks.limited_by_environment() == os.getpid()
    assert call_with_timeout(os.getpid, timeout=None) == os.getpid()
    assert call_with_timeout(os.getpid, timeout=0) == os.getpid()
    assert timeouts._default is None


def test_a_decorated_function_keeps_name_and_docstring_and_can_be_called_without_a_limit() -> None:
    assert guard_tasks.factorial.__name__ == "factorial"
    assert guard_tasks.factorial.__doc__ == "With the pids of all levels of the recursion."
    assert guard_tasks.limited_pid.__wrapped__() == os.getpid()  # type: ignore[attr-defined]


def test_closures_lambdas_and_methods_can_be_decorated() -> None:
    here = os.getpid()

    @with_timeout(20)
    def local(number: int) -> tuple[int, bool]:
        return number * 2, os.getpid() != here

    assert local(21) == (42, True)
    assert with_timeout(20)(lambda: os.getpid() != here)()
    path, pid = guard_tasks.Reader("clip.mp4").read()
    assert (path, pid != here) == ("clip.mp4", True)


def test_the_limit_is_the_decorator_s() -> None:
    @with_timeout(0.2)
    def hang() -> None:
        guard_tasks.hang_in_c()

    with pytest.raises(millpond.DecodeTimeout, match=r"hang\(\) did not end in \d+\.\d s \(limit 0\.2 s\)") as caught:
        hang()
    assert caught.value.limit_seconds == 0.2


def test_an_item_names_what_was_worked_on() -> None:
    with pytest.raises(TimeoutError, match=r"re\.match\(clip 7 of the manifest\) did not end"):
        call_with_timeout(re.match, r"(a+)+$", "a" * 60 + "b", timeout=0.2, item="clip 7 of the manifest")


@pytest.mark.parametrize(
    ("seconds", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("5", TypeError), (True, TypeError)]
)
def test_a_limit_that_is_none_is_told_at_once(seconds: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="a timeout"):
        with_timeout(seconds)
    with pytest.raises(kind, match="a timeout"):
        call_with_timeout(os.getpid, timeout=seconds)


def test_generator_functions_and_coroutine_functions_are_refused() -> None:
    with pytest.raises(TypeError, match=r"guard_tasks\.lines does its work after the call"):
        with_timeout(5)(guard_tasks.lines)

    async def later() -> None: ...

    with pytest.raises(TypeError, match="after the call"):
        with_timeout(later)


# ---- in workers


def test_a_guard_runs_the_function_inside_of_the_decorator_itself() -> None:
    with Guard(1, timeout=20) as guard:
        assert guard.call(guard_tasks.limited_pid) == guard.call(os.getpid)
        assert guard.call(guard_tasks.doubled_limited_pid) == 2 * guard.call(os.getpid)
        assert set(guard.map(lambda _: guard_tasks.limited_pid.__wrapped__(), [1])) == {guard.call(os.getpid)}  # type: ignore[attr-defined]
    assert timeouts._default is None


def test_a_function_that_calls_itself_stays_in_its_worker() -> None:
    product, pids = guard_tasks.factorial(5)
    assert product == 120
    assert len(pids) == 1

    @with_timeout(20)
    def local(number: int) -> set[int]:
        return {os.getpid()} | (local(number - 1) if number else set())

    assert len(local(3)) == 1


def test_in_a_worker_only_a_limit_of_its_own_starts_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_DECODE_TIMEOUT", "20")
    worker, by_environment, of_its_own = call_with_timeout(guard_tasks.nested, timeout=30)
    assert worker == by_environment != os.getpid()
    assert of_its_own not in (worker, os.getpid())


# ---- the default guard


def test_all_threads_share_it_and_it_grows_as_they_want() -> None:
    guards = []
    threads = [threading.Thread(target=lambda: guards.append(timeouts.default_guard())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(guard) for guard in guards}) == 1
    assert guards[0].statistics().workers == ()


def test_shutdown_ends_it_and_the_next_call_makes_another() -> None:
    before = guard_tasks.limited_pid()
    millpond.shutdown()
    assert not os.path.exists(f"/proc/{before}")
    assert guard_tasks.limited_pid() not in (before, os.getpid())


def test_a_forked_child_makes_its_own() -> None:
    before = guard_tasks.limited_pid()

    def work() -> bytes:
        pids = guard_tasks.limited_pid(), os.getpid()
        millpond.shutdown()
        return repr(pids).encode()

    with forked(work) as result:
        assert set(ast.literal_eval(result().decode())).isdisjoint({before, os.getpid()})
    assert guard_tasks.limited_pid() == before
