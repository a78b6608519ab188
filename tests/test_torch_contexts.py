"""Start methods: what may be asked for, what is meant by it, what is refused and in which words."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond._torch.contexts import (  # noqa: E402 - it imports torch
    ZygoteContext,
    resolve_context,
    start_methods,
    starter_for,
)
from millpond._workers.context_starter import ContextStarter  # noqa: E402
from millpond.torch import DataLoader  # noqa: E402
from programs import run_python  # noqa: E402

METHODS = multiprocessing.get_all_start_methods()


def method(given: Any = None, variable: str | None = None) -> str:
    context = resolve_context(given, 2, variable)
    assert context is not None
    return str(context.get_start_method())


def torch_says(given: Any, num_workers: int) -> str:
    with pytest.raises((ValueError, TypeError)) as caught:
        torch.utils.data.DataLoader([1], num_workers=num_workers, multiprocessing_context=given)
    return str(caught.value)


def test_the_default_is_the_zygote() -> None:
    assert method() == "zygote"
    assert start_methods() == ["zygote", *METHODS]


@pytest.mark.parametrize("name", ["zygote", *METHODS])
def test_an_argument_beats_the_variable_and_that_the_default(name: str) -> None:
    assert method(name, "spawn") == name
    assert method(None, name) == name
    assert method(resolve_context(name, 1, None), "spawn") == name


def test_an_empty_variable_is_torch_s_choice_which_stays_open() -> None:
    context = resolve_context(None, 2, "")
    assert context is multiprocessing.context._default_context
    assert context.get_start_method(allow_none=True) == multiprocessing.get_start_method(allow_none=True)


@pytest.mark.parametrize("variable", [None, "", "spawn", "no such thing"])
def test_without_workers_there_is_no_context(variable: str | None) -> None:
    assert resolve_context(None, 0, variable) is None


def test_an_unknown_variable_is_refused_by_name_with_what_is_supported() -> None:
    with pytest.raises(ValueError, match=r"MILLPOND_MP_CONTEXT .*'zygote', 'fork'.*is 'thread'"):
        resolve_context(None, 2, "thread")


def test_an_unknown_name_is_refused_in_torch_s_words() -> None:
    with pytest.raises(ValueError, match="valid start method") as caught:
        resolve_context("thread", 2, None)
    assert str(caught.value).replace("'zygote', ", "") == torch_says("thread", 2)


@pytest.mark.parametrize("given", [7, object])
def test_what_is_no_context_is_refused_in_torch_s_words(given: Any) -> None:
    with pytest.raises(TypeError) as caught:
        resolve_context(given, 2, None)
    assert str(caught.value) == torch_says(given, 2)


def test_a_context_without_workers_is_refused_in_torch_s_words() -> None:
    with pytest.raises(ValueError, match="num_workers=0") as caught:
        resolve_context("zygote", 0, None)
    assert str(caught.value) == torch_says("spawn", 0)


def test_a_zygote_context_is_a_context_like_any_other() -> None:
    context = pickle.loads(pickle.dumps(ZygoteContext()))
    assert context.get_context() is context
    assert context.get_start_method() == "zygote"
    event = context.Event()
    process = context.Process(target=event.set)
    process.start()
    assert event.wait(60)
    process.join(60)
    assert process.exitcode == 0
    process.close()


def test_only_other_contexts_need_a_starter() -> None:
    assert starter_for(ZygoteContext()) is None
    assert all(isinstance(starter_for(multiprocessing.get_context(name)), ContextStarter) for name in METHODS)


class HowStarted:
    """Samples that tell how their worker was started, and holds something else."""

    def __init__(self, held: Any = None) -> None:
        self.held = held

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[int, int, str | None, Any]:
        return index, os.getpid(), multiprocessing.get_start_method(allow_none=True), self.held


def collated(samples: list[Any]) -> list[Any]:
    return samples


@pytest.mark.parametrize("name", METHODS)
def test_the_variable_decides_how_workers_of_a_loader_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_MP_CONTEXT", name)
    with DataLoader(HowStarted(), num_workers=1, collate_fn=collated) as loader:
        assert loader.multiprocessing_context is not None
        assert loader.multiprocessing_context.get_start_method() == name
        found = [sample for batch in loader for sample in batch]
    assert [(index, method) for index, _, method, _ in found] == [(index, name) for index in range(4)]
    assert os.getpid() not in {pid for _, pid, _, _ in found}


def test_forked_workers_have_what_cannot_be_sent() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"dataset.held \(of type _thread.lock\)"):
        iter(DataLoader(HowStarted(lock), num_workers=1))
    dataset = Guarded(lock)
    with DataLoader(dataset, num_workers=1, collate_fn=collated, multiprocessing_context="fork") as loader:
        assert list(loader) == [[True]]


class Guarded(HowStarted):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        with self.held:
            return True


def test_what_was_changed_in_a_dataset_is_seen_by_the_next_epoch_s_workers() -> None:
    dataset = HowStarted("first")
    with DataLoader(dataset, num_workers=1, collate_fn=collated) as loader:
        assert {sample[3] for batch in loader for sample in batch} == {"first"}
        dataset.held = "second"
        assert {sample[3] for batch in loader for sample in batch} == {"second"}


OF_A_JOB = """
import multiprocessing, sys
from dataclasses import dataclass

@dataclass
class Point:
    x: int

class Points:
    def __len__(self): return 4
    def __getitem__(self, index): return Point(index)

def own(samples): return [sample.x for sample in samples], samples[0]

def job():
    from millpond.torch import DataLoader  # here: it imports torch, and this module is imported by three processes
    for numbers, first in DataLoader(Points(), 2, num_workers=1, collate_fn=own):
        assert type(first) is Point
        print(numbers, flush=True)

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=job, daemon=True)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("name", METHODS)
def test_a_process_of_a_job_may_have_a_dataset_of_its_main_module(name: str, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(OF_A_JOB)
    done = run_python([str(script), name], directory=tmp_path)
    assert (done.stdout.split("\n")[:2], done.returncode) == (["[0, 1]", "[2, 3]"], 0), done.stderr
