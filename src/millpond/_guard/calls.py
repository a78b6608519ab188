"""How a call travels: the function by its name where it has one, its arguments and its result by pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from millpond._guard.functions import Reference, name_of, reference_of, resolve
from millpond._guard.parcels import Parcel, pack, unpack

Function = tuple[str, str, int] | bytes
"""A function as it travels: by name (the fields of a Reference), or pickled by value."""

_PLAIN_TYPES = frozenset((str, int, float, bool, type(None)))

_FUNCTION_REMEDY = "define it at the top of a module, or leave out of it what it refers to"
_ARGUMENT_REMEDY = "hand over what it is made from (a path, bytes, an array), and make it in the function"
_RESULT_REMEDY = (
    "return arrays, numbers, texts, lists, dicts (of a generator: list(...)), not what lives in its process"
)


def pack_function(function: Callable[..., Any]) -> Function:
    """A function, for its way to a worker.

    Raises:
        TypeError: It is not callable, or can neither be named nor pickled.
    """
    if not callable(function):
        raise TypeError(f"a guard calls functions, not {function!r}")
    reference = reference_of(function)
    if reference is not None:
        return reference.module, reference.qualname, reference.wrappers
    try:
        return pack(function, by_value=True).send()
    except Exception as error:
        raise _cannot_travel(f"the function {name_of(function)}", function, error, _FUNCTION_REMEDY) from error


def unpack_function(function: Function) -> Callable[..., Any]:
    """In the worker: the function.

    Raises:
        ImportError: The worker cannot import it.
    """
    found: Callable[..., Any] = unpack(function) if isinstance(function, bytes) else resolve(Reference(*function))
    return found


def pack_call(function: Callable[..., Any], packed: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parcel:
    """A call as a parcel; `packed` is the function for its way.

    Raises:
        TypeError: An argument cannot be pickled; it names the function, the argument and its type.
    """
    try:
        if not kwargs and _PLAIN_TYPES.issuperset(map(type, args)):
            # Nothing of it need travel by value, and nothing of it has buffers: 1 us for 8.
            return Parcel([pickle.dumps((packed, args, kwargs), 5)], [])
        return pack((packed, args, kwargs), by_value=True)
    except Exception as error:
        found = _first_that_cannot(args, kwargs)
        if found is None:  # all of them do: it was an interrupt
            raise
        which, value = found
        raise _cannot_travel(f"{which} of {name_of(function)}", value, error, _ARGUMENT_REMEDY) from error


def pack_result(result: object, function: Callable[..., Any]) -> Parcel:
    """In the worker: a result as a parcel.

    Raises:
        TypeError: It cannot be pickled; it names the function and the type.
    """
    try:
        # Fast, and safe here: the main module is our own, so nothing of the user's is found by name in it.
        return pack(result, by_value=False)
    except Exception:  # noqa: BLE001 - pickling runs anybody's code
        return _pack_result_by_value(result, function)


def _pack_result_by_value(result: object, function: Callable[..., Any]) -> Parcel:
    try:
        return pack(result, by_value=True)
    except Exception as error:
        raise _cannot_travel(f"the result of {name_of(function)}", result, error, _RESULT_REMEDY) from error


def _first_that_cannot(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, object] | None:
    named = [(f"argument {place}", value) for place, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for which, value in named:
        try:
            pack(value, by_value=True)
        except Exception:  # noqa: BLE001 - pickling runs anybody's code
            return which, value
    return None


def _cannot_travel(what: str, value: object, error: Exception, remedy: str) -> TypeError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return TypeError(f"{what} (of type {kind}) cannot travel between processes ({error}): {remedy}")
