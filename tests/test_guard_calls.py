"""What a guard calls, with what, and what comes back."""

from __future__ import annotations

import functools
import os
import pickle
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

import guard_tasks
import millpond
from guard_tasks import echo
from millpond import Guard
from worker_tasks import LoudError


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard(1, timeout=20) as guard:
        yield guard


def test_a_function_runs_in_a_process_that_is_used_again(guard: Guard) -> None:
    pids = {guard.call(os.getpid) for _ in range(5)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_arguments_go_by_place_and_by_name(guard: Guard) -> None:
    assert guard.call(echo, 1, "two", timeout=3, function="four") == ((1, "two"), {"timeout": 3, "function": "four"})


def test_what_has_no_name_travels_by_value(guard: Guard) -> None:
    factor = 3
    assert guard.call(lambda number: number * factor, 14) == 42
    factor = 4
    assert guard.call(functools.partial(echo, "partial")) == "partial"


def test_a_closure_is_taken_as_it_is_at_each_call(guard: Guard) -> None:
    counts: list[int] = []

    def count() -> int:
        counts.append(1)
        return len(counts)

    assert [guard.call(count) for _ in range(3)] == [1, 1, 1]
    counts.append(1)
    assert guard.call(count) == 2


def test_methods_classes_and_builtins_can_be_called(guard: Guard) -> None:
    assert guard.call("clip.mp4".upper) == "CLIP.MP4"
    assert guard.call(len, [1, 2]) == 2
    assert guard.call(Path, "a", "b") == Path("a/b")
    path, pid = guard.call(guard_tasks.Reader("clip.mp4").read)
    assert (path, pid) == ("clip.mp4", guard.call(os.getpid))


def test_a_decorator_of_anybody_is_called_with_what_it_wraps(guard: Guard) -> None:
    assert guard.call(guard_tasks.seven) == 14
    assert guard.call(guard_tasks.seven.__wrapped__) == 7  # type: ignore[attr-defined]


def test_classes_that_have_no_module_to_import_travel_both_ways(guard: Guard) -> None:
    class Clip:
        def __init__(self, frames: int) -> None:
            self.frames = frames

    result = guard.call(lambda clip: Clip(clip.frames * 2), Clip(21))
    assert isinstance(result, Clip)
    assert result.frames == 42


def test_a_module_that_was_made_by_hand_travels_by_value(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_by_hand")
    exec("def double(number): return helper(number)\ndef helper(number): return 2 * number", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    assert guard.call(module.double, 21) == 42
    cloudpickle.unregister_pickle_by_value(module)


def test_no_function_and_no_arguments_are_lost_on_large_ones(guard: Guard) -> None:
    array = np.arange(3_000_000)
    held = array.tobytes()
    assert np.array_equal(guard.call(echo, array), array)
    assert guard.call(echo, held) == held
    assert guard.call(lambda: held[-8:]) == held[-8:]  # it holds 24 MB


def test_arguments_can_be_kept_and_changed_by_the_worker(guard: Guard) -> None:
    array = np.zeros(100_000)

    def keep(value: Any) -> float:
        kept = sys.__dict__.setdefault("kept", [])
        kept.append(value)
        value += 1
        return float(sum(each.sum() for each in kept))

    assert [guard.call(keep, array) for _ in range(3)] == [1e5, 2e5, 3e5]
    assert array.sum() == 0


# ---- surroundings


def test_directory_environment_and_import_path_go_along(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = guard.call(guard_tasks.seen, "GUARD_TEST")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("GUARD_TEST", "here")
        patch.syspath_prepend("GUARD_TEST")
        assert guard.call(guard_tasks.seen, "GUARD_TEST") == (str(tmp_path), "here", True)
    assert guard.call(guard_tasks.seen, "GUARD_TEST") == before == (os.getcwd(), None, False)


# ---- errors


def test_an_error_comes_back_as_itself_with_the_worker_s_traceback(guard: Guard) -> None:
    with pytest.raises(ValueError, match=r"^a bad value\n") as caught:
        guard.call(guard_tasks.fail, "value")
    assert "guard_tasks.py" in caught.value.__notes__[0]
    assert "in fail" in caught.value.__notes__[0]


def test_an_error_class_without_a_module_comes_back_as_itself(guard: Guard) -> None:
    class BadClip(ValueError):
        pass

    def fail() -> None:
        raise BadClip("torn")

    with pytest.raises(BadClip, match="torn"):
        guard.call(fail)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("loud", "LoudError"), ("unpicklable", "Unpicklable"), ("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt")],
)
def test_an_error_that_cannot_travel_or_would_end_the_caller_is_told(guard: Guard, kind: str, name: str) -> None:
    with pytest.raises(millpond.RemoteError, match=name) as caught:
        guard.call(guard_tasks.fail, kind)
    assert caught.value.type_name == name
    assert "in fail" in caught.value.traceback_text
    assert guard.call(echo, 1) == 1


@pytest.mark.parametrize(("make", "kind"), [(lambda: guard_tasks.lines(3), "generator"), (threading.Lock, "lock")])
def test_an_argument_that_cannot_travel_is_named(guard: Guard, make: Callable[[], Any], kind: str) -> None:
    with pytest.raises(
        TypeError, match=rf"argument 1 of guard_tasks.echo \(of type .*{kind}\) cannot travel .*hand over"
    ):
        guard.call(echo, 0, make())
    with pytest.raises(TypeError, match=rf"argument 'clip' of guard_tasks.echo \(of type .*{kind}\)"):
        guard.call(echo, clip=make())


def test_an_open_file_cannot_travel(guard: Guard, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(TypeError, match=r"argument 0 .*BufferedWriter"):
        guard.call(echo, file)


def test_a_result_that_cannot_travel_is_named(guard: Guard) -> None:
    with pytest.raises(
        TypeError, match=r"the result of guard_tasks.lines \(of type generator\) cannot .*list\(\.\.\.\)"
    ):
        guard.call(guard_tasks.lines, 3)
    with pytest.raises(TypeError, match=r"the result of .*lock"):
        guard.call(lambda: {"frames": [threading.Lock()]})


def test_a_function_that_cannot_travel_is_named(guard: Guard) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"the function .*<lambda> .* cannot travel .*lock.*: define it"):
        guard.call(lambda locked=lock: None)
    with pytest.raises(TypeError, match="a guard calls functions, not 'decode'"):
        guard.call("decode")  # type: ignore[arg-type]


def test_a_module_that_the_worker_cannot_import_is_named(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def decode(): ...")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        import only_here  # type: ignore[import-not-found]
    with pytest.raises(ImportError, match=r"cannot import only_here\.decode .*: make it importable .*register_pickle"):
        guard.call(only_here.decode)
    sys.modules.pop("only_here")


def test_a_result_that_does_not_unpickle_raises_what_it_raises(guard: Guard) -> None:
    with pytest.raises(TypeError, match="takes 1 positional") as caught:
        guard.call(lambda: LoudError(reason="noise"))
    assert "while the result of" in caught.value.__notes__[-1]


# ---- use


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_limit_must_be_positive(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be positive"):
        Guard(1, timeout)


@pytest.mark.parametrize("arguments", [{"num_workers": 0}, {"num_workers": 1.5}, {"max_tasks_per_worker": 0}])
def test_misuse_is_told_at_construction(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="whole number of at least 1"):
        Guard(**arguments)
    with pytest.raises(TypeError, match="write \\('av',\\)"):
        Guard(preload="av")


def test_after_close_calls_are_refused_and_results_stay() -> None:
    guard = Guard(1)
    held = guard.call(guard_tasks.filled, 100_000)
    guard.close()
    guard.close()
    with pytest.raises(millpond.ClosedError, match="this guard is closed"):
        guard.call(echo, 1)
    assert held.sum() == 150_000


def test_a_guard_itself_cannot_travel(guard: Guard) -> None:
    with pytest.raises(TypeError, match=r"a guard cannot travel to another process.*with_timeout"):
        pickle.dumps(guard)
    with pytest.raises(TypeError, match=r"argument 0 .*of type .*Guard.* make one there"):
        guard.call(echo, guard)


def test_without_a_number_of_workers_they_start_when_they_are_wanted() -> None:
    with Guard() as guard:
        assert guard.statistics().workers == ()
        assert guard.call(echo, 1) == 1
        assert len(guard.statistics().workers) == 1


def test_a_guard_that_nobody_closes_ends_with_its_last_reference() -> None:
    guard = Guard(1)
    pid = guard.call(os.getpid)
    del guard
    assert not os.path.exists(f"/proc/{pid}")


def test_workers_are_recycled_after_so_many_calls() -> None:
    with Guard(1, max_tasks_per_worker=3) as guard:
        pids: set[int] = set()
        deadline = time.monotonic() + 20
        while len(pids) < 4 and time.monotonic() < deadline:
            pids.add(guard.call(os.getpid))
        statistics = guard.statistics()
    assert len(pids) == 4
    assert statistics.recycles >= 2  # the last may not have been reaped yet
    assert statistics.restarts == 0


def test_preloaded_modules_are_in_every_worker() -> None:
    with Guard(1, preload=("colorsys",)) as guard:
        assert guard.call(lambda: "colorsys" in sys.modules)


def test_a_preload_that_fails_is_told_to_the_caller() -> None:
    with (
        Guard(1, preload=("no_such_module_here",)) as guard,
        pytest.raises(ModuleNotFoundError, match="no_such_module"),
    ):
        guard.call(echo, 1)


def test_shutdown_ends_guards_and_they_say_so() -> None:
    with Guard(1) as guard:
        guard.call(echo, 1)
        millpond.shutdown()
        for _ in range(2):
            with pytest.raises(millpond.ClosedError, match=r"shutdown\(\)"):
                guard.call(echo, 1)
    with Guard(1) as guard:
        assert guard.call(echo, 2) == 2
