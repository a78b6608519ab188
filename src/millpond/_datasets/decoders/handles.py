"""Open files that are closed when nobody uses them any more.

A descriptor that was closed while another thread reads would be worse than an error: its number may be that of another
file by then, whose bytes may decode. So whoever decodes counts as a user, as a lease does, and `close` waits for the
last one to end.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from millpond._media.media_path import MediaPath
from millpond._media.read_position import ReadPosition
from millpond._media.sidecars import file_identity
from millpond._media.video_file import FileBytes
from millpond._values import ByteRange, FileIdentity
from millpond.errors import ClosedError, ObjectMissing


class Handle:
    """What an open decoder reads through, and how many use it now. Any thread.

    Args:
        contents: Gives the bytes, to several threads at once; open, and owned from now on.
        path: What errors call it.
        identity: Of the version that is open.
        is_local: `path` names a file of this machine.
        nbytes: About how much memory `contents` holds.
    """

    def __init__(
        self, contents: FileBytes, path: MediaPath, identity: FileIdentity, *, is_local: bool, nbytes: int = 0
    ) -> None:
        self.contents = contents
        self.path = path
        self.identity = identity
        self.nbytes = nbytes
        self.closed = False
        """Whether its descriptor was given back."""
        self._is_local = is_local
        self._lock = threading.RLock()  # a finalizer that runs amid a call may close it
        self._uses = 0
        self._is_ending = False
        self._others: list[Callable[[], object]] = []
        _alive.add(self)

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        is_closed = getattr(self, "closed", True)  # one whose making was interrupted has nothing
        if not _is_finalizing() and not is_closed:  # modules that are cleared close nothing: the process ends anyway
            self._give_back()

    def __repr__(self) -> str:
        return f"Handle({self.path}, {'closed' if self.closed else 'open'})"

    def __reduce__(self) -> Any:
        raise TypeError(f"the decoder of {self.path} is open in this process: send its path, or the cache, to another")

    def begin_use(self) -> None:
        """Count one more user.

        Raises:
            ClosedError: It is closed.
        """
        with self._lock:
            if self.closed:
                raise ClosedError(
                    f"the decoder of {self.path} is closed: its cache has evicted or cleared it, or this process was "
                    "forked; hold a lease for as long as it is needed: with cache.lease(path) as decoder",
                    path=self.path.label,
                )
            self._uses += 1

    def end_use(self) -> None:
        """Count one less; the last one closes it, if `close` was called."""
        with self._lock:
            self._uses -= 1
            if self._is_ending and not self._uses and not self.closed:
                self._give_back()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """A use for as long as the block."""
        self.begin_use()
        try:
            yield
        finally:
            self.end_use()

    def close(self) -> None:
        """Give the descriptor back: at once, or when the last use ends. Idempotent."""
        with self._lock:
            self._is_ending = True
            if not self._uses and not self.closed:
                self._give_back()

    def also_close(self, close: Callable[[], object]) -> None:
        """Call this, too, when the descriptor is given back."""
        self._others.append(close)

    def drop(self) -> None:
        """Give the descriptor back in a forked child, whatever the parent's threads were doing with it."""
        self._lock = threading.RLock()  # one of them may have held it
        if self.closed:
            return
        self.closed = True
        if not self._uses:  # what one of them was amid is left alone
            for close in self._others:
                close()
        self.contents.close()

    def _give_back(self) -> None:
        self.closed = True
        for close in self._others:
            close()
        self.contents.close()

    def is_stale(self) -> bool:
        """Whether another file lies at the path now; one that is gone can still be read."""
        if not self._is_local:
            return False
        try:
            return file_identity(self.path.path) != self.identity
        except (ObjectMissing, OSError):
            return False


_alive: weakref.WeakSet[Handle] = weakref.WeakSet()
_inherited: list[Handle] = []
"""Of the parent, in a forked child: never freed, since a thread of the parent may have been amid a call."""


def _drop_after_fork() -> None:
    _inherited.extend(_alive)
    for handle in _inherited:
        handle.drop()


os.register_at_fork(after_in_child=_drop_after_fork)


class ContentsFile(ReadPosition, io.RawIOBase):
    """A file object over contents, for decoders that read one. One thread at a time.

    Args:
        contents: The bytes.
        size_bytes: How many there are.
    """

    def __init__(self, contents: FileBytes, size_bytes: int) -> None:
        self._contents = contents
        self._size = size_bytes

    def read(self, size: int = -1) -> bytes:
        """All that was asked for, up to the end of the file."""
        stop = self._size if size < 0 else min(self._position + size, self._size)
        wanted = ByteRange(self._position, max(stop, self._position))
        data = self._contents.read(wanted) if len(wanted) else b""
        self._position += len(data)
        return data
