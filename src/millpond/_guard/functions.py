"""Functions by name: how one that can be imported is told from one that must travel by value.

A function that a decorator has wrapped (ours, or anybody's that sets `__wrapped__`) is found by the name of its wrapper
and the number of wrappers to go through.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import cloudpickle

_MAX_WRAPPERS = 32
_MAIN_OF_CHILD = "__mp_main__"  # what multiprocessing calls the main module in the children that it spawns
_IMPORT_REMEDY = (
    "make it importable (sys.path, PYTHONPATH), or have its module travel by value with "
    "cloudpickle.register_pickle_by_value(module)"
)


class Reference(NamedTuple):
    """A function by name.

    Attributes:
        module: That it is imported from.
        qualname: In the module.
        wrappers: To go through by `__wrapped__`.
    """

    module: str
    qualname: str
    wrappers: int


def name_of(function: object) -> str:
    """A function's name for messages."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    return name if module in (None, "builtins", "__main__", _MAIN_OF_CHILD) else f"{module}.{name}"


running: list[Callable[..., Any]] = []
"""In a guard's worker: the function of the call, under whose limit everything here is now."""


def is_running(function: Callable[..., Any]) -> bool:
    """Whether this process is a worker that was given this very function, maybe with wrappers around it."""
    return bool(running) and is_within(function, running[-1])


def is_within(function: Callable[..., Any], outer: Callable[..., Any]) -> bool:
    """Whether `outer` is this very function, or wraps it."""
    found: Any = outer
    for _ in range(_MAX_WRAPPERS):
        if found is None or found is function:
            break
        found = getattr(found, "__wrapped__", None)
    return found is function


def reference_of(function: object) -> Reference | None:
    """The name by which a worker finds exactly this function; None if it must travel by value."""
    module_name, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str):
        return None
    module = sys.modules.get(module_name)
    if not isinstance(module, ModuleType) or not _can_be_imported(module_name, module):
        return None
    found: Any = module
    for name in qualname.split("."):
        found = getattr(found, name, None)
    for wrappers in range(_MAX_WRAPPERS):
        if found is function:
            return Reference(module_name, qualname, wrappers)
        found = getattr(found, "__wrapped__", None)
        if found is None:
            break
    return None


def resolve(reference: Reference) -> Any:
    """In the worker: the function.

    Raises:
        ImportError: It cannot be imported here.
    """
    module_name, qualname, wrappers = reference
    try:
        found: Any = sys.modules.get(module_name) or _import(module_name)
        for name in qualname.split("."):
            found = getattr(found, name)
        for _ in range(wrappers):
            found = found.__wrapped__
    except (ImportError, AttributeError) as error:
        message = f"the worker cannot import {module_name}.{qualname} ({error}): {_IMPORT_REMEDY}"
        raise ImportError(message, name=module_name) from error
    return found


def _import(module_name: str) -> ModuleType:
    __import__(module_name)
    return sys.modules[module_name]


def _can_be_imported(name: str, module: ModuleType) -> bool:
    """Whether a worker finds the module by its name, as far as can be told from here."""
    if name == "__main__":
        return False
    by_value = cloudpickle.list_registry_pickle_by_value()
    if by_value and any(name == known or name.startswith(f"{known}.") for known in by_value):
        return False
    if name != _MAIN_OF_CHILD and getattr(module, "__spec__", None) is not None:
        return True
    _send_by_value(module)  # it was made by hand
    return False


def send_main_by_value() -> None:
    """Have the main module of a child of multiprocessing travel by value: no worker can import it by its name there."""
    main = sys.modules.get(_MAIN_OF_CHILD)
    if isinstance(main, ModuleType) and main.__name__ == _MAIN_OF_CHILD:  # in the parent it is the main module itself
        _send_by_value(main)


def _send_by_value(module: ModuleType) -> None:
    if sys.modules.get(module.__name__) is module:
        cloudpickle.register_pickle_by_value(module)
