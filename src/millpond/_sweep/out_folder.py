"""The folder that a sweep fills: one sweep at a time, every file whole at any moment.

::

    metrics.json  summary.json  report.html     written when the sweep ends, in one step each
    ledger.sqlite                               see `ledger.py`
    logs/chunk-0003.log                         what a chunk printed
    work/chunk-0003/                            its files; gone when what they hold is in the ledger
    lock                                        there while a sweep runs

The lock is one of the open file: whoever inherits its descriptor holds it, too. So the processes below a sweep that was
killed keep the next one waiting until they are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from datetime import datetime
from pathlib import Path

from millpond._locks import lock_soon
from millpond._whole_files import write_whole
from millpond.errors import UsageError


def claim_default_path(now: datetime, parent: Path) -> Path:
    """Make `sweep-20260131-235959` in `parent`; with -2, -3, ... behind it where another sweep was faster."""
    name = f"sweep-{now:%Y%m%d-%H%M%S}"
    path, tries = parent / name, 1
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            tries += 1
            path = parent / f"{name}-{tries}"
        except OSError:
            return path  # whoever opens it says what is wrong
        else:
            return path


class OutFolder:
    """A folder of one sweep; nothing is made or held before `open`.

    Args:
        path: Of the folder. It may be there already, and may hold other things.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self.metrics_path = self.path / "metrics.json"
        self.summary_path = self.path / "summary.json"
        self.report_path = self.path / "report.html"
        self.ledger_path = self.path / "ledger.sqlite"
        self._logs, self._work, self._lock_path = self.path / "logs", self.path / "work", self.path / "lock"
        self._lock: int | None = None

    @property
    def holds_sweep(self) -> bool:
        """Whether a sweep has begun in it."""
        return self.ledger_path.exists()

    @property
    def lock_descriptor(self) -> int:
        """To be inherited by processes that must be gone before another sweep goes on here; not inheritable by itself.

        Raises:
            UsageError: The folder is not open.
        """
        if self._lock is None:
            raise UsageError(f"the folder {str(self.path)!r} is not open", path=str(self.path))
        return self._lock

    def open(self, *, resume: bool, patience_seconds: float = 0.0) -> None:
        """Take the folder for a sweep, and make what is missing of it.

        Args:
            resume: Whether it may hold one already; `holds_sweep` then says whether it does.
            patience_seconds: How long to wait for a former sweep's processes to be gone.

        Raises:
            UsageError: It holds a sweep that is not to be resumed, another sweep runs there, it is a file, cannot be
                written, or its file system has no locks.
        """
        self._refuse_sweep(resume=resume)
        try:
            self._lock = self._locked(patience_seconds)
            self._refuse_sweep(resume=resume)  # it may have begun, and ended, a moment ago
            self._logs.mkdir(exist_ok=True)
            self._work.mkdir(exist_ok=True)
        except OSError as error:
            self.close()
            raise UsageError(
                f"cannot sweep into {str(self.path)!r} ({error}): give --out a folder that can be written, on a file "
                "system with locks",
                path=str(self.path),
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others in, and leave no empty folders; more than once is no error.

        To be called when the processes that inherited the descriptor are gone: they do not keep anybody out from here.
        """
        lock, self._lock = self._lock, None
        if lock is None:
            return
        for folder in (self._work, self._logs):
            with contextlib.suppress(OSError):  # it is in use
                folder.rmdir()
        if _is_at(lock, self._lock_path):  # not if the folder was removed, and is another sweep's now
            self._lock_path.unlink()
        os.close(lock)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def __enter__(self) -> OutFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def log_path(self, number: int) -> Path:
        """Of a chunk's log."""
        return self._logs / f"{_stem(number)}.log"

    def work_folder(self, number: int) -> Path:
        """Where a chunk's files are; whoever runs the chunk makes it, and whoever reads its results removes it."""
        return self._work / _stem(number)

    def clear_work(self) -> None:
        """Remove what chunks of a sweep that was killed have left; to be called when they are recovered."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(exist_ok=True)

    def write(self, path: Path, content: str | bytes) -> None:
        """Write one of the files in one step: a reader sees the former one or this one, also after a power cut.

        Halves of surrogate pairs, which UTF-8 does not have, are written as escapes.

        Raises:
            UsageError: It cannot be written: the disk is full, ...
        """
        try:
            write_whole(path, content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        except OSError as error:
            raise UsageError(
                f"cannot write {str(path)!r} ({error}); the ledger holds what is done: make room on its disk, or make "
                "it writable, and go on with --resume",
                path=str(path),
            ) from error

    def _refuse_sweep(self, *, resume: bool) -> None:
        if self.holds_sweep and not resume:
            raise UsageError(
                f"{str(self.path)!r} holds a sweep already: go on with it by resume=True, or give another out=",
                path=str(self.path),
            )

    def _locked(self, patience_seconds: float) -> int:
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = _above_standard(os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
            try:
                if not lock_soon(descriptor, patience_seconds):
                    raise self._taken(descriptor, patience_seconds)
                if _is_at(descriptor, self._lock_path):
                    _write_holder(descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # who held it has removed it, and maybe the folder: another may have made a new one

    def _taken(self, descriptor: int, patience_seconds: float) -> UsageError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
        return UsageError(
            f"another sweep runs in {str(self.path)!r} ({holder}), or processes of it are not gone after "
            f"{patience_seconds:g} s: wait for it, end it, or give another --out",
            path=str(self.path),
            holder=holder,
        )


def _stem(number: int) -> str:
    return f"chunk-{number:04d}"


def _above_standard(descriptor: int) -> int:
    """The same file, not as 0 to 2: who inherits those has something else there (they are free where closed: `<&-`)."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
