"""Finds what in a dataset cannot be sent to workers, and says where it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

_MOST_SECONDS = 5.0
_MOST_STEPS = 30
_CONTAINERS = (list, tuple, set, frozenset)
_REMEDY = (
    "make it in __getitem__ or in worker_init_fn, or leave it out by __getstate__; or use "
    'multiprocessing_context="fork", whose workers are copies of this process'
)
_FORK_REMEDY = (
    'make it by multiprocessing.get_context("forkserver"), whose objects can be sent; or use '
    'multiprocessing_context="fork", whose workers are copies of this process'
)


def unsendable(parts: dict[str, Any], error: Exception, can_be_sent: Callable[[Any], bool]) -> TypeError:
    """The error for a value that does not pickle.

    Args:
        parts: The value, by the names that users know its parts by.
        error: Of pickling it.
        can_be_sent: Whether something pickles by itself.
    """
    path, culprit = _find(parts, can_be_sent)
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    remedy = _FORK_REMEDY if "created in a fork context" in str(error) else _REMEDY
    text = str(error).rstrip(".") or type(error).__name__
    return TypeError(f"{path} (of type {name}) cannot be sent to DataLoader workers: {text}. Remedy: {remedy}")


def _find(parts: dict[str, Any], can_be_sent: Callable[[Any], bool]) -> tuple[str, Any]:
    """The innermost thing that cannot be sent, and the way to it, as far as it is found in time."""
    deadline = time.monotonic() + _MOST_SECONDS
    path, culprit = "the dataset", next(iter(parts.values()), None)
    inner: Iterator[tuple[str, Any]] = iter(parts.items())
    for _ in range(_MOST_STEPS):
        for step, found in inner:
            if time.monotonic() > deadline:
                return path, culprit
            if not can_be_sent(found):
                path = step if culprit is None or not step.startswith((".", "[", " ")) else path + step
                culprit = found
                break
        else:
            break
        inner = _inside(culprit)
    return path, culprit


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """What a pickle of this would hold, each with the step to it."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, _CONTAINERS):
        yield from ((f"[{place}]", item) for place, item in enumerate(value))
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, FunctionType):
        yield from _inside_function(value)
    elif isinstance(value, (MethodType, BuiltinFunctionType)):
        yield ".__self__", value.__self__
    elif isinstance(value, type):
        yield from ((f".{name}", item) for name, item in vars(value).items() if isinstance(item, FunctionType))
        yield from ((f".{name}", item) for name, item in vars(value).items() if not isinstance(item, FunctionType))
    else:
        yield from _inside_object(value)


def _inside_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" -> {name}", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" -> {name}", function.__globals__[name]
    yield from ((f" -> default {place}", item) for place, item in enumerate(function.__defaults__ or ()))


def _inside_object(value: Any) -> Iterator[tuple[str, Any]]:
    try:
        reduced = value.__reduce_ex__(5)
    except Exception:  # noqa: BLE001 - this is the one, or its own method raises
        return
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, *_ = (*reduced, None)
    for states in state if isinstance(state, tuple) else (state,):
        if isinstance(states, dict):
            yield from ((f".{name}", item) for name, item in states.items())
    yield from ((f" -> argument {place}", item) for place, item in enumerate(arguments))
    yield " -> type", type(value)
