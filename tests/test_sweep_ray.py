"""Chunks as tasks of Ray: one small Ray, in a program of its own, that runs, loses, cancels and closes."""

from __future__ import annotations

import json
import socket
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from millpond._sweep.engines import ray as ray_engine
from millpond.errors import UsageError
from programs import program

SWEEP = """
    import json, os, signal, sys, threading
    from pathlib import Path
    from millpond._sweep.engines.ray import RayEngine
    from sweep_chunks import HANGS, KILLS_ITS_WORKER, REPORTS, order_of, wait_until_it_hangs

    def told(outcome):
        return {
            "ended_by": outcome.ended_by, "exit_code": outcome.exit_code, "problem": outcome.problem,
            "metrics": json.loads(outcome.metrics or b"null"), "log": outcome.log.decode(),
        }

    def handler(number, frame): ...

    signal.signal(signal.SIGTERM, handler)
    folder = Path(sys.argv[1])
    engine = RayEngine(parallel=1)
    found = {"capacity": engine.capacity, "niceness": os.nice(0)}
    done = engine.submit([order_of(folder, number, REPORTS) for number in (1, 2)])
    found["done"] = [told(future.result()) for future in done]
    (dead,) = engine.submit([order_of(folder, 3, KILLS_ITS_WORKER)])
    found["dead"] = told(dead.result())
    guest = RayEngine(parallel=1)  # in a program that is connected to Ray already
    stopped = guest.submit([order_of(folder, 4, HANGS), order_of(folder, 5, REPORTS)])
    wait_until_it_hangs(folder, 4)
    guest.cancel(signal.SIGINT)
    stopped += guest.submit([order_of(folder, 6, REPORTS)])
    found["cancelled"] = [told(future.result()) for future in stopped]
    guest.close()
    for number, closing in ((7, RayEngine(parallel=1)), (8, engine)):
        (killed,) = closing.submit([order_of(folder, number, HANGS)])
        wait_until_it_hangs(folder, number)
        closing.close()
        closing.close()
        found[f"killed {number}"] = told(killed.result())
    found["has_folder"] = os.path.exists(engine._folder)
    found["threads"] = [thread.name for thread in threading.enumerate()]
    found["is_our_handler"] = signal.getsignal(signal.SIGTERM) is handler
    (folder / "found.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def found(folder: Path) -> Any:
    """What the program saw, and what it left."""
    home = {"HOME": str(folder / "home"), "RAY_ADDRESS": ""}
    with program(textwrap.dedent(SWEEP), folder / "temporary", str(folder), environment=home) as sweep:
        _, errors = sweep.process.communicate(timeout=250)  # 10 s, and more where others are at work
        assert sweep.process.returncode == 0, errors
        return {**json.loads((folder / "found.json").read_text()), "left": sweep.left(5)}


def test_chunks_come_back_with_metrics_each_from_a_fresh_worker(found: Any) -> None:
    assert [(end["ended_by"], end["exit_code"]) for end in found["done"]] == [("itself", 0)] * 2
    assert len({end["metrics"][f"job {number}"]["worker"] for number, end in enumerate(found["done"], 1)}) == 2
    assert found["capacity"] == 1


def test_its_processes_can_be_interrupted_and_have_the_priority_of_the_sweep(found: Any) -> None:
    seen = found["done"][0]["metrics"]["job 1"]
    assert (seen["blocked"], seen["niceness"]) == ([], found["niceness"])


def test_output_is_written_where_the_order_says(found: Any, folder: Path) -> None:
    for number in (1, 2, 3, 4):
        assert (folder / f"{number}.log").read_text() == f"at job {number}\n"
    assert {end["log"] for end in found["done"]} == {""}


def test_a_chunk_whose_worker_is_killed_is_lost_with_the_reason_and_keeps_what_it_reported(found: Any) -> None:
    assert (found["dead"]["ended_by"], found["dead"]["exit_code"]) == ("lost", None)
    assert found["dead"]["problem"].startswith("its Ray worker was killed, possibly out of memory")
    assert found["dead"]["metrics"] == {"job 3": {"steps": 1}}


def test_cancelled_chunks_keep_what_they_reported(found: Any) -> None:
    assert {end["ended_by"] for end in found["cancelled"]} == {"cancelled"}
    assert [end["metrics"] for end in found["cancelled"]] == [{"job 4": {"steps": 1}}, None, None]


def test_closed_engines_kill_their_chunks_and_those_of_a_program_that_uses_ray_leave_it_running(found: Any) -> None:
    assert (found["killed 7"]["ended_by"], found["killed 8"]["ended_by"]) == ("cancelled", "cancelled")


def test_a_closed_ray_leaves_no_process_thread_file_or_handler(found: Any) -> None:
    assert found["left"] == []
    assert found["threads"] == ["MainThread"]
    assert (found["has_folder"], found["is_our_handler"]) == (False, True)


def test_a_folder_whose_sockets_would_have_too_long_addresses_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = Path(ray_engine._new_folder())
    folder.rmdir()
    assert len(str(folder)) <= ray_engine._MOST_CHARACTERS < len(str(tmp_path / folder.name))


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("RayTaskError", "ray::run_in_worker()\nModuleNotFoundError: No module named 'millpond'", "has no millpond"),
        ("RuntimeError", "The remote function failed to import on the worker. This may be", "install the one of this"),
        ("OutOfMemoryError", "Task was killed due to the node running low on memory", "nearly out of memory: Task was"),
        ("NodeDiedError", "Task failed due to the node dying", "its Ray node died: Task failed"),
        ("OwnerDiedError", "x" * 1000, r"no outcome \(OwnerDiedError\): x+…$"),
    ],
)
def test_reasons_of_ray_are_put_in_words(kind: str, text: str, words: str) -> None:
    error = type(kind, (Exception,), {})(text)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(ray_engine.reason_in_words(error))


def test_what_this_machine_never_has_is_refused() -> None:
    with pytest.raises(UsageError, match="a chunk is to have 1 GPU, and Ray finds 0 on this machine: ask for less"):
        ray_engine._check_resources({"CPU": 2.0}, {"CPU": 1.0, "GPU": 1.0}, is_local=True)
    ray_engine._check_resources({"CPU": 2.0}, {"CPU": 4.0}, is_local=False)  # a cluster may grow


def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(
        ConnectionError, match=f"no Ray cluster answers at '{address}': start one there with 'ray start"
    ):
        ray_engine.RayEngine(address)


def test_a_missing_ray_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'millpond\[ray\]'"):
        ray_engine.RayEngine()
