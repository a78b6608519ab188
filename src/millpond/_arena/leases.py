"""Leases: memory lent to the user for as long as any array or tensor over it lives.

A `Lease` is an object that is no ndarray. `np.asarray` of it makes an array whose base is that object, and every view,
slice and tensor of that array keeps it alive: numpy collapses chains of bases only down to the first non-ndarray. A
finalizer on an array or a tensor would fire while views of it live on: that is silent corruption.

Fields of a batch are arrays of their own over parts of the lease, so that a tensor made of one has a storage of just
that field: `torch.save(x[:1])` writes the field, not the slot.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Lease:
    """A piece of memory that is lent; its end is the end of the last view.

    Args:
        keep: What must not go before the views do: the mapping, or the heap memory itself.
        address: Of the first byte.
        size_bytes: Of the piece.
        release: Called once, without arguments, when the last view is gone, in the process that took the lease: a
            forked child that collects its copy must not give the parent's slot away. From any thread, also amid a
            garbage collection, so it may neither block nor take a lock.
    """

    __slots__ = ("__array_interface__", "_keep", "_pid", "_release")

    def __init__(self, keep: object, address: int, size_bytes: int, release: Callable[[], None]) -> None:
        self._keep = keep
        self._release = release
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": (size_bytes,),
            "typestr": "|u1",
            "strides": None,
        }
        self._pid = os.getpid()  # at last: one whose making was interrupted has lent nothing

    def bytes(self) -> NDArray[np.uint8]:
        """All of it, uint8 (size_bytes,); the lease lives on in its views."""
        return np.asarray(self)

    def __del__(self) -> None:
        if getattr(self, "_pid", None) == os.getpid():
            self._release()


def field_of(whole: NDArray[np.uint8], offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A C-contiguous field `offset` bytes into leased memory."""
    return np.ndarray(shape, dtype, whole, offset)
