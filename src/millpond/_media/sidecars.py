"""Files that spare the next run some work: numpy and JSON, no pickle, replaced in one step, worthless once lost.

A sidecar belongs to one version of one file: its name carries a digest of the file's own name (an absolute path, or a
URL without secrets), the kind, and what tells the version: size, and modification time or entity tag. So a file that
changed is simply not found, and looking one up costs an open, and a stat where the file is local.

Sidecars lie in 4,096 folders: who writes one looks through its folder for those of former versions, and of clips there
may be a million.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from millpond._arrays import load_arrays
from millpond._locks import Claim, lock_soon, unlock, wait_until
from millpond._values import FileIdentity, no_progress
from millpond.errors import ObjectMissing

_T = TypeVar("_T")
_logger = logging.getLogger("millpond")
_told: set[tuple[Path, str]] = set()

_FACTS = "facts.json"
_LOADED = ".npz"
_WRITING = ".writing-"
_WRITING_SECONDS = 3600.0
"""A file that is being written for longer was left by a process that was killed: it takes milliseconds."""

_USED_SECONDS = 30 * 86400.0
"""Of a file that is mapped by its name, not loaded, the former version is kept for so long after a process last found
it: in a run that goes on, a worker that follows another maps it anew."""

_LOCK_SECONDS = 2.0
"""Adding to a sidecar takes a millisecond. A process that was stopped amid it does not keep others from going on."""

_CLAIMS = "claims"
_MAKE_SECONDS = 30.0
"""Making a sidecar takes milliseconds to some seconds. A process that was stopped amid it is waited for no longer."""


@dataclass(frozen=True)
class Sidecar:
    """What was kept: arrays by name, and facts that are plain JSON."""

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of one file.

    Attributes:
        name: An absolute path, or a URL without secrets.
        identity: Of this version.
    """

    name: str
    identity: FileIdentity


def version_of(path: str | os.PathLike[str]) -> FileVersion:
    """The present version of a local file.

    Raises:
        ObjectMissing: No file at `path`.
    """
    return FileVersion(os.path.abspath(path), file_identity(path))


def file_identity(path: str | os.PathLike[str]) -> FileIdentity:
    """Ask the file system which version of a file this is.

    Raises:
        ObjectMissing: No file at `path`.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ObjectMissing(f"no file at {os.fspath(path)!r}", path=os.fspath(path)) from None
    return FileIdentity(status.st_size, status.st_mtime_ns)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary file to fill: the block's end puts it in the place of `target`, an error drops it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_WRITING, suffix=target.suffix, dir=target.parent)
    os.close(descriptor)
    try:
        yield Path(name)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


class SidecarStore:
    """A folder of sidecars. May be used by many processes at once: the last writer wins, readers see whole files.

    Args:
        folder: Where they lie; None takes the folder that `millpond.settings` names. Made on the first write.
        salt: What tells files apart that have one name, since a part of it is secret; see `query_digest`.
    """

    def __init__(self, folder: Path | None = None, salt: str = "") -> None:
        if folder is None:
            from millpond.settings import Settings  # pydantic takes 0.1 s and 10 MB: only who needs it pays

            folder = Settings().cache_dir / "sidecars"
        self.folder, self.salt = Path(folder), salt

    def warn_once(self, what: str, error: OSError) -> None:
        """Say that this folder cannot be written, once per process: there may be thousands of files.

        Args:
            what: Cannot be kept, in the plural.
            error: Why. Its text is told, not itself: whoever keeps the record would keep its frames.
        """
        if (self.folder, what) not in _told:
            _told.add((self.folder, what))
            _logger.warning(
                "cannot keep %s in %s (%s): they are made anew each time; give cache_dir= or MILLPOND_CACHE_DIR "
                "a folder that can be written",
                what,
                self.folder,
                str(error),
            )

    def path_of(self, version: FileVersion, kind: str, suffix: str) -> Path:
        """Name the sidecar file of a version, whether it exists or not."""
        identity = version.identity
        told = f"{identity.mtime_ns:x}" if not identity.etag else f"etag-{_digest(identity.etag)}"
        folder, stem = self._stem(version.name, kind)
        return folder / f"{stem}.{identity.size_bytes:x}-{told}{suffix}"

    def find(self, version: FileVersion, kind: str, suffix: str) -> Path | None:
        """The sidecar file of a version, to be mapped; None if there is none."""
        found = self.path_of(version, kind, suffix)
        with contextlib.suppress(OSError):
            os.utime(found)  # it is in use: see `_drop_older`
        return found if found.is_file() else None

    @contextlib.contextmanager
    def write(self, version: FileVersion, kind: str, suffix: str) -> Iterator[Path]:
        """Give a temporary file to fill: the block's end puts it in the sidecar's place, an error drops it."""
        target = self.path_of(version, kind, suffix)
        with replacing(target) as temporary:
            yield temporary
        self._drop_older(version, kind, target)

    @contextlib.contextmanager
    def alone(self, version: FileVersion) -> Iterator[None]:
        """Add to what is kept of a file: nobody else who asks for this does so meanwhile, and nothing is written over.

        Where the file system has no locks, or whoever holds this one was stopped, it is not waited for.
        """
        folder, _ = self._stem(version.name, "")
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # who writes there says so
                folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                if lock_soon(descriptor, _LOCK_SECONDS):
                    stack.callback(unlock, descriptor)
            yield

    def once(
        self,
        version: FileVersion,
        kind: str,
        find: Callable[[], _T | None],
        make: Callable[[], _T],
        progress: Callable[[], None] = no_progress,
    ) -> _T:
        """What is kept, or else is made: of all threads and processes that share the folder, by one.

        Args:
            version, kind: Of the sidecar.
            find: Gives what was kept, None where nothing was.
            make: Makes it, and keeps it. Where it cannot be kept, everybody makes it, one after the other.
            progress: Called while another one is waited for.
        """
        found = find()
        if found is not None:
            return found
        with self.making(self.path_of(version, kind, "").name, progress):
            found = find()  # another one may have made it just now
            return make() if found is None else found

    @contextlib.contextmanager
    def making(self, name: str, progress: Callable[[], None] = no_progress) -> Iterator[None]:
        """Be the only one who makes something, unless whoever makes it does not get it done for long.

        Args:
            name: What it is known by.
            progress: Called while another one is waited for.
        """
        claim = Claim(self.folder / _CLAIMS)
        number = int(_digest(name + self.salt)[:15], 16)
        try:
            wait_until(lambda: bool(claim.take(range(number, number + 1))), _MAKE_SECONDS, progress)
            yield
        finally:
            claim.release()

    def versions(self, name: str, kind: str) -> list[Path]:
        """What `save` has made for any version of a file; `name` as in `FileVersion`."""
        folder, stem = self._stem(name, kind)
        return list(folder.glob(f"{stem}.*.npz"))

    def load(self, version: FileVersion, kind: str) -> Sidecar | None:
        """Read what was kept for a version; None if nothing was, or it does not read."""
        found = self.path_of(version, kind, _LOADED)
        try:
            arrays = load_arrays(found)
            facts = json.loads(arrays.pop(_FACTS).tobytes())
        except Exception:  # noqa: BLE001 - numpy and zipfile raise a dozen kinds over torn bytes
            return None  # gone or torn: it is made again
        return Sidecar(arrays, facts)

    def save(
        self, version: FileVersion, kind: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> None:
        """Keep arrays and JSON facts for a version."""
        text = np.frombuffer(json.dumps(dict(facts)).encode(), np.uint8)
        with self.write(version, kind, _LOADED) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **{_FACTS: text}, **dict(arrays))

    def _drop_older(self, version: FileVersion, kind: str, keep: Path) -> None:
        """Drop what was kept of former versions, and what a process left that was killed while it wrote."""
        folder, stem = self._stem(version.name, kind)
        now = time.time()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(_WRITING):
                    spared_seconds = _WRITING_SECONDS
                elif name.startswith(f"{stem}.") and name.endswith(keep.suffix) and name != keep.name:
                    spared_seconds = 0.0 if keep.suffix == _LOADED else _USED_SECONDS
                else:
                    continue
                with contextlib.suppress(OSError):  # another process was first
                    if not spared_seconds or entry.stat().st_mtime < now - spared_seconds:
                        os.unlink(entry)

    def _stem(self, name: str, kind: str) -> tuple[Path, str]:
        digest = _digest(name + self.salt)
        return self.folder / digest[:3], f"{digest[3:]}.{kind}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]
