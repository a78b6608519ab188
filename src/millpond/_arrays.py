"""numpy's files, read by several threads at once."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T")

_TRIES = 10


def load_arrays(path: str | PathLike[str]) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file."""

    def load() -> dict[str, NDArray[Any]]:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    return _until_parsed(load)


def map_array(path: str | PathLike[str]) -> NDArray[Any]:
    """Map an .npy file, read-only; a plain array over the map, without the costs of np.memmap's methods."""
    try:
        return _until_parsed(lambda: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)))
    except ValueError:  # nothing cannot be mapped
        return _until_parsed(lambda: np.asarray(np.load(path, allow_pickle=False)))


def _until_parsed(load: Callable[[], _T]) -> _T:
    # numpy has headers parsed by `ast`, and CPython up to 3.11.7 raises SystemError ("AST constructor recursion depth
    # mismatch") where garbage is collected amid that and another thread parses meanwhile: gh-106905.
    for _ in range(_TRIES - 1):
        try:
            return load()
        except SystemError:
            continue
    return load()
