"""Properties that are computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

_T = TypeVar("_T")


class computed_once(Generic[_T]):  # noqa: N801 - a decorator, as functools.cached_property
    """As `functools.cached_property` is from Python 3.12 on: without a lock.

    That of 3.11 is one for all objects of a class. A child that is forked while another thread of the parent holds it
    would wait for it for ever. Two threads may compute a value at once; the second one stays.

    Args:
        compute: The method.
    """

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> computed_once[_T]: ...

    @overload
    def __get__(self, owner: object, kind: type | None = None) -> _T: ...

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        value = vars(owner)[self._name] = self._compute(owner)  # found there from now on, before this is asked
        return value


def without_computed(owner: object) -> dict[str, Any]:
    """The attributes of an object, but for what `computed_once` left there: those of another that computes its own."""
    kind = type(owner)
    return {
        name: value
        for name, value in list(vars(owner).items())
        if not isinstance(getattr(kind, name, None), computed_once)
    }
