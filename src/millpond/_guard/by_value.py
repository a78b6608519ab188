"""A pickler for processes that never import the user's `__main__`: what comes from there travels by value."""

from __future__ import annotations

import pickle
import typing
from collections import ChainMap
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import FunctionType
from typing import Any

import cloudpickle

from millpond._guard.functions import reference_of, resolve
from millpond._guard.reducers import Reducer, reducers

_NO_REDUCERS: Mapping[type, Reducer] = {}
_PLAIN_REDUCE: Any = object.__reduce__


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    """Has what comes from `__main__`, and what has no name to be imported by, travel by value.

    Args:
        file: With a method `write`.
        buffer_callback: See `pickle.Pickler`.
        first, last: Reducers that come before all others, and after them.
    """

    def __init__(
        self,
        file: Any,
        buffer_callback: Callable[[Any], Any],
        *,
        first: Mapping[type, Reducer] = _NO_REDUCERS,
        last: Mapping[type, Reducer] = _NO_REDUCERS,
    ) -> None:
        tables = first, _OWN, reducers(), cloudpickle.Pickler.dispatch_table, last
        self.dispatch_table = ChainMap(*tables)  # type: ignore[arg-type] # nobody writes to it
        super().__init__(file, 5, buffer_callback)

    def reducer_override(self, obj: Any) -> Any:
        """For pickle: a function inside of a decorator has a name all the same."""
        kind = type(obj)
        if kind is FunctionType:
            reference = reference_of(obj)
            if reference is not None and reference.wrappers:
                return resolve, (reference,)
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented and kind.__module__ == "__main__" and kind.__reduce__ is not _PLAIN_REDUCE:
            return _by_value(obj)
        return reduced


def _by_value(obj: Any) -> Any:
    """What an object of a class from `__main__` says of itself, if that is no name in there."""
    reduced = obj.__reduce_ex__(5)
    if isinstance(reduced, str):
        raise pickle.PicklingError(
            f"it is pickled as {reduced!r} of the main module, which workers do not import: define it in a module"
        )
    return reduced


def _reduce_cached(function: Any) -> Any:
    """A function behind `functools.lru_cache`, which pickles by its name alone. It arrives with an empty cache."""
    if reference_of(function) is not None:
        return function.__reduce__()
    # In two steps: the function within may refer to the one around it.
    return _make_cached, (function.cache_parameters(),), function.__dict__, None, None, _fill_cached


def _make_cached(parameters: dict[str, Any]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return cached.__wrapped__(*args, **kwargs)

    cached = lru_cache(**parameters)(call)
    return cached


def _fill_cached(cached: Any, state: dict[str, Any]) -> None:
    cached.__dict__.update(state)


def _reduce_new_type(kind: Any) -> Any:
    if reference_of(kind) is not None:
        return kind.__reduce__()
    return typing.NewType, (kind.__name__, kind.__supertype__)


_OWN: Mapping[type, Reducer] = {type(lru_cache(len)): _reduce_cached, typing.NewType: _reduce_new_type}
