"""Arrays over mapped files (`np.memmap`): workers map the file again, and nothing of it is copied."""

from __future__ import annotations

import mmap
import os
import sys
from typing import Any

import numpy as np

_MAPS = "/proc/self/maps"


def reduce_mapped(array: Any) -> Any:
    """For pickle: an array that lies in a mapped file, in one piece; None for any other, and where it is not certain.

    Not certain is a file that was replaced under its name since, and a mapping whose changes are private.
    """
    mapped = array
    while type(mapped) is np.ndarray:
        mapped = mapped.base
    if not isinstance(mapped, np.memmap) or not array.size or array.dtype.hasobject:
        return None
    is_rows, is_columns = array.flags.c_contiguous, array.flags.f_contiguous
    source = getattr(mapped, "_mmap", None)
    if not (is_rows or is_columns) or source is None or mapped.mode not in ("r", "r+", "w+"):
        return None
    address: int = array.__array_interface__["data"][0]
    identity, path = _file_at(address), mapped.filename
    if identity is None or path is None or _identity_of(path) != identity:
        return None
    start: int = np.frombuffer(source, np.uint8).__array_interface__["data"][0]
    offset = mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY + address - start
    mode = "r" if mapped.mode == "r" else "r+"
    layout = array.dtype, array.shape, "C" if is_rows else "F"
    return _map, (os.fspath(path), identity, mode, offset, *layout, type(array), array.flags.writeable)


def _map(
    path: str,
    identity: tuple[int, int],
    mode: Any,
    offset: int,
    dtype: Any,
    shape: tuple[int, ...],
    order: Any,
    kind: type,
    is_writeable: bool,
) -> Any:
    mapped: Any = np.memmap(path, dtype, mode, offset, shape, order)
    if _identity_of(path) != identity:
        raise FileNotFoundError(f"{path} was replaced by another file while it was sent to a worker")
    array = mapped if kind is np.memmap else mapped.view(kind)
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
