"""What was found out about the clips of a manifest, kept for the next run by the versions of their files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._arrays import load_arrays
from millpond._datasets.clip_headers import RowFacts
from millpond._datasets.clip_media import is_local
from millpond._datasets.clip_reader import ClipSource
from millpond._media.sidecars import SidecarStore, replacing
from millpond.errors import MillpondError

_VERSION = 1
"""Goes up when the meaning of the facts changes."""

_NO_KEY = -1
_UNKNOWN = np.full(len(RowFacts().to_row()), -1, np.int64)


def key_of_row(source: ClipSource, sample: int) -> int:
    """A number for the versions of the files of a row; -1 where there is a URL, or a file is not there."""
    values = source.table.values(sample)
    parts: list[Any] = []
    for medium in source.media.columns:
        try:
            path = source.media.source(medium, values, source.folder)
            if not is_local(path):
                return _NO_KEY
            status = os.stat(path)
        except (MillpondError, OSError, ValueError):
            return _NO_KEY
        parts += [os.path.abspath(path), status.st_size, status.st_mtime_ns]
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "big") >> 1


class KeptFacts:
    """What earlier runs found, by the versions of the files."""

    def __init__(self, store: SidecarStore, name: str) -> None:
        self._path = store.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.survey{_VERSION}.npz"
        self._facts: dict[int, NDArray[np.int64]] = {}
        try:
            arrays = load_arrays(self._path)
            self._facts = dict(zip(arrays["keys"].tolist(), arrays["facts"], strict=True))
        except Exception:  # noqa: BLE001 - numpy and zipfile raise a dozen kinds over torn bytes
            self._facts = {}  # gone or torn: it is made again

    def find(self, key: int) -> NDArray[np.int64]:
        """The facts of a row, -1 where they are not known."""
        return self._facts.get(key, _UNKNOWN)

    def can_learn(self, keys: Sequence[int]) -> bool:
        """Whether there are rows that are not known, and that could be kept."""
        return any(key != _NO_KEY and key not in self._facts for key in keys)

    def keep(self, facts: list[tuple[int, NDArray[np.int64]]], *, is_new: bool) -> None:
        """Replace what was kept."""
        known = [(key, row) for key, row in facts if key != _NO_KEY]
        if not is_new or not known:
            return
        with contextlib.suppress(OSError):  # the store cannot be written, which was said already
            with replacing(self._path) as temporary:
                np.savez(temporary, keys=np.asarray([k for k, _ in known]), facts=np.stack([row for _, row in known]))
