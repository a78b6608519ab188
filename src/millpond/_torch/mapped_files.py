"""Arrays over mapped files (`np.memmap`): workers map the file again, and nothing of it is copied."""

from __future__ import annotations

import mmap
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

_MAPS = "/proc/self/maps"


@dataclass(eq=False, slots=True)
class _Mapping:
    """A mapping that arrays lie in. The pickler knows it by identity, so it is pickled, and mapped again, once.

    `identity` is the file's, if the path is known to lead to it; `address` is where the mapping starts.
    """

    source: mmap.mmap
    path: str
    mode: str
    offset: int
    address: int
    identity: tuple[int, int] | None

    def __reduce__(self) -> Any:
        return _map, (self.path, self.identity, self.mode, self.offset, len(self.source))


class MappedFiles:
    """The mappings that were met while one value is pickled: each is looked up once, for any number of arrays."""

    def __init__(self) -> None:
        self._known: dict[int, _Mapping] = {}

    def reduce(self, array: Any) -> Any:
        """For pickle: an array that lies in a mapped file, in one piece; None for others and where that is not sure.

        It is not where the file was replaced under its name since, and where changes of the mapping are private.
        """
        mapped = array
        while type(mapped) is np.ndarray:
            mapped = mapped.base
        if not isinstance(mapped, np.memmap) or not array.size or array.dtype.hasobject:
            return None
        is_rows, is_columns = array.flags.c_contiguous, array.flags.f_contiguous
        source = getattr(mapped, "_mmap", None)
        if not (is_rows or is_columns) or source is None or mapped.filename is None:
            return None
        mapping = self._known.get(id(source)) or self._look_up(source, mapped)
        if mapping.identity is None:
            return None
        start: int = array.__array_interface__["data"][0] - mapping.address
        layout = array.dtype, array.shape, "C" if is_rows else "F"
        return _view, (mapping, start, start + array.nbytes, *layout, type(array), array.flags.writeable)

    def _look_up(self, source: mmap.mmap, mapped: Any) -> _Mapping:
        address: int = np.frombuffer(source, np.uint8).__array_interface__["data"][0]
        offset = mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY
        identity = _file_at(address) if mapped.mode in ("r", "r+", "w+") else None
        if identity != _identity_of(mapped.filename):
            identity = None
        mode, path = "r" if mapped.mode == "r" else "r+", os.fspath(mapped.filename)
        found = self._known[id(source)] = _Mapping(source, path, mode, offset, address, identity)
        return found


def _map(path: str, identity: tuple[int, int], mode: Any, offset: int, size_bytes: int) -> Any:
    mapped: Any = np.memmap(path, np.uint8, mode, offset, (size_bytes,))
    if _identity_of(path) != identity:
        raise FileNotFoundError(f"{path} was replaced by another file while it was sent to a worker")
    return mapped


def _view(
    mapped: Any,
    start: int,
    stop: int,
    dtype: Any,
    shape: tuple[int, ...],
    order: Any,
    kind: type,
    is_writeable: bool,
) -> Any:
    array = mapped[start:stop].view(dtype).reshape(shape, order=order)
    if kind is not np.memmap:
        array = array.view(kind)
    if not is_writeable:
        array.flags.writeable = False
    return array


def _identity_of(path: Any) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:  # it has that name no more
        return None
    return found.st_dev, found.st_ino


def _file_at(address: int) -> tuple[int, int] | None:
    """Device and inode of the file that is mapped there."""
    if sys.platform != "linux":
        return None
    with open(_MAPS) as maps:
        for line in maps:
            addresses, _, _, device, inode, *_ = line.split(maxsplit=5)
            start, stop = (int(end, 16) for end in addresses.split("-"))
            if start <= address < stop:
                major, minor = (int(number, 16) for number in device.split(":"))
                return os.makedev(major, minor), int(inode)
    return None
