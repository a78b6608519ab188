"""Leases: a slot lent to the user for as long as any array or tensor of it lives.

Each field of a batch is one `LeasedArray`, an object that is no ndarray. `np.asarray` of it makes an array whose base
is that object; every view, slice and tensor made from that array keeps the object alive, since numpy collapses chains
of
bases only down to the first non-ndarray. A finalizer on an array or a tensor would fire while views of it live on.

The lease ends when its last field is collected, in the process that took it: a forked child that collects its copy must
not give the parent's slot away.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Lease:
    """Counts the fields of one batch that the user still holds.

    Args:
        release: Called once, without arguments, when the last field is gone; from any thread, also amid a garbage
            collection, so it may neither block nor take a lock.
    """

    __slots__ = ("_drops", "_fields", "_pid", "_release")

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._fields = 0
        self._drops = itertools.count(1)  # one C call a drop: threads that drop at once get different numbers
        self._pid = os.getpid()

    def lend(self, keep: object, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array over `address`, C-contiguous, whose last view ends this lease's hold on that field.

        Args:
            keep: What must not go before the array does: the mapping.
            address: Of the first byte.
            shape: Of the array.
            dtype: Of the array.
        """
        self._fields += 1
        return np.asarray(LeasedArray(self, keep, address, shape, dtype))

    def _drop(self) -> None:
        if next(self._drops) == self._fields and os.getpid() == self._pid:
            self._release()


class LeasedArray:
    """The base of one field's arrays; its end is the end of the field's lease."""

    __slots__ = ("__array_interface__", "_keep", "_lease")

    def __init__(self, lease: Lease, keep: object, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._lease = lease
        self._keep = keep
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": shape,
            "typestr": dtype.str,
            "strides": None,
        }

    def __del__(self) -> None:
        self._lease._drop()
