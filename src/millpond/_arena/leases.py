"""Leases: memory lent to the user for as long as any array or tensor over it lives.

A `Lease` is an object that is no ndarray. `np.asarray` of it makes an array whose base is that object, and every view,
slice and tensor of that array keeps it alive: numpy collapses chains of bases only down to the first non-ndarray. A
finalizer on an array or a tensor would fire while views of it live on: that is silent corruption.

Fields of a batch are arrays of their own over parts of the lease, so that a tensor made of one has a storage of just
that field: `torch.save(x[:1])` writes the field, not the slot.

A lease ends amid the user's own code, wherever the last array goes, and without a line of Python: an interrupt that
came in a `__del__` would be dropped with a message, training would go on, and what was lent would be lost. Its end is
a weak reference that a deque takes; the owner looks there when it next needs something. Arrays do not show the garbage
collector what they hold, so leases end by counting alone: no finalizer of a cycle can still reach what has ended.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from operator import methodcaller
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Lent = TypeVar("Lent", bound=Hashable)


class Waker(Protocol):
    """Wakes who waits for the end of a lease.

    Attributes:
        give: Written in C, so that no interrupt can come in it; called without arguments, in any thread.
    """

    give: Callable[[], object]


class Lease:
    """A piece of memory that is lent; made by `Leases.lend`.

    Args:
        keep: What must not go before the views do: the mapping, or the heap memory itself.
        address: Of the first byte.
        size_bytes: Of the piece.
    """

    __slots__ = ("__array_interface__", "__weakref__", "_keep")

    def __init__(self, keep: object, address: int, size_bytes: int) -> None:
        self._keep = keep
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": (size_bytes,),
            "typestr": "|u1",
            "strides": None,
        }


class _End(weakref.ref[Lease]):
    """Goes where ended leases go.

    Attributes:
        lent: What was lent.
        wake: Kept, as a weak reference that is gone tells nothing.
    """

    __slots__ = ("lent", "wake")

    lent: Any
    wake: _Wake | None


class _Wake(weakref.ref[Lease]):
    """Wakes the owner; holds the waker also while it is called, whatever the owner does meanwhile."""

    __slots__ = ("give", "waker")

    give: Callable[[], object]
    waker: Waker


class Leases(Generic[Lent]):
    """The leases that one owner gave.

    They do not keep the owner alive, nor anything of it but `keep`: the garbage collector does not look into arrays, so
    an exception that holds a batch, held by what the lease holds, would be a cycle that nobody finds. When this object
    is gone, ends of leases tell nobody. In a forked child they are told to the child's copy of it alone.

    Args:
        waker: Given after the end of each lease; None: the owner looks by itself.
    """

    def __init__(self, waker: Waker | None = None) -> None:
        self._waker = waker
        self._ends: dict[Lent, _End] = {}  # of leases whose end was not taken
        self._ended: deque[weakref.ref[Lease]] = deque()

    def lend(self, lent: Lent, keep: object, address: int, size_bytes: int) -> NDArray[np.uint8]:
        """All of a piece of memory, uint8 (size_bytes,); the lease ends with the last view.

        Args:
            lent: What `ended` gives when it has ended; not lent before, or its end was taken.
            keep: What must not go before the views do: the mapping, or the heap memory itself.
            address: Of the first byte.
            size_bytes: Of the piece.
        """
        lease = Lease(keep, address, size_bytes)
        wake = None
        if self._waker is not None:
            # Before the other: of several references to one object the last one made is told first (docs of `weakref`).
            wake = _Wake(lease, methodcaller("give"))
            wake.waker, wake.give = self._waker, self._waker.give
        end = _End(lease, self._ended.append)
        end.lent, end.wake = lent, wake
        self._ends[lent] = end
        return np.asarray(lease)

    def held(self) -> list[Lent]:
        """What is lent now. Any thread."""
        return [lent for lent, end in list(self._ends.items()) if end() is not None]

    def lent(self) -> set[Lent]:
        """What is lent now, or was and has ended since `ended` was asked."""
        return set(self._ends)

    @property
    def num_ended(self) -> int:
        """Leases that have ended since `ended` was asked."""
        return len(self._ended)

    def ended(self) -> Iterator[Lent]:
        """Take what was lent in leases that have ended, each once. One thread at a time."""
        while self._ended:
            end = self._ended.popleft()
            assert isinstance(end, _End)
            self._ends.pop(end.lent, None)
            yield end.lent

    def close(self) -> None:
        """Ends of leases tell nobody any more. Idempotent."""
        self._ends.clear()
        self._waker = None


def field_of(whole: NDArray[np.uint8], offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A C-contiguous field `offset` bytes into leased memory."""
    return np.ndarray(shape, dtype, whole, offset)
