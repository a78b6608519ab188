"""The store of sidecars that a user names, or a temporary one where that cannot be written."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from millpond._media.sidecars import SidecarStore
from millpond._urls import redacted, scheme_of
from millpond.errors import DataError

_logger = logging.getLogger("millpond")

T = TypeVar("T")

BESIDE_FOLDER = ".millpond"
"""Where sidecars go with `cache_dir="beside"`, in the dataset's folder."""


def store_in(cache_dir: str | os.PathLike[str] | None, folder: Path, salt: str = "") -> SidecarStore:
    """The store that a user names.

    Args:
        cache_dir: A folder; "beside" takes `BESIDE_FOLDER` in the dataset's; None takes MILLPOND_CACHE_DIR.
        folder: The dataset's.
        salt: See `SidecarStore`.
    """
    if cache_dir == "beside":
        return SidecarStore(folder / BESIDE_FOLDER)
    return SidecarStore(None if cache_dir is None else absolute(cache_dir), salt)


def absolute(folder: str | os.PathLike[str]) -> Path:
    """A folder that a user names, also after a chdir; "~" is the home folder.

    Raises:
        ValueError: It is a URL.
    """
    if scheme_of(os.fspath(folder)) is not None:
        raise ValueError(f"cache_dir must be a folder of this machine, not {redacted(os.fspath(folder))!r}")
    return Path(os.path.abspath(os.path.expanduser(folder)))


class WritableStore:
    """Where files go that workers map: they must be on a disk, whatever the disk.

    Args:
        store: Where they are kept. Where that cannot be written they go to a temporary folder, for as long as this
            object lives.
        what: What is kept, in the plural, for the warning.
    """

    def __init__(self, store: SidecarStore, what: str) -> None:
        self._store = store
        self._what = what
        self._fallback: Path | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._store, self._what)  # what is in a temporary folder stays with who made it

    def write(self, make: Callable[[SidecarStore], T]) -> T:
        """Have something made in the store; in the temporary one if the first cannot be written. Any thread.

        Args:
            make: Raises an OSError that is no DataError only where the store is to blame.
        """
        with self._lock:
            store = self._store
        try:
            return make(store)
        except OSError as error:
            if isinstance(error, DataError):
                raise
            return make(self._fall_back(error))

    def _fall_back(self, error: OSError) -> SidecarStore:
        with self._lock:
            if self._fallback is None:
                _logger.warning(
                    "cannot keep %s in %s (%s): they are converted anew by every run, into a temporary folder; set "
                    "MILLPOND_CACHE_DIR to a folder that can be written",
                    self._what,
                    self._store.folder,
                    str(error),  # a handler may keep the record, and with an error all frames that it passed
                )
                self._fallback = Path(tempfile.mkdtemp(prefix="millpond-columns-"))
                weakref.finalize(self, _remove_own, self._fallback, os.getpid())
                self._store = SidecarStore(self._fallback, self._store.salt)
            return self._store


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child runs finalizers too
        shutil.rmtree(folder, ignore_errors=True)


def crc_of_file(path: Path) -> int:
    """CRC-32 of a file: one that a crash tore, or a disk changed, is made again. 1 GB takes half a second."""
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc
