"""Start methods: what may be asked for, what is meant by it, what is refused and in which words."""

from __future__ import annotations

import multiprocessing
import pickle
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
