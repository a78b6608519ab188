"""What a chunk's process finds in the folder that was made for it, and what it leaves there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from millpond._sweep.command import fill_command
from millpond._sweep.orders import METRICS_FILE, PROGRESS_FILE, ChunkOrder
from millpond._sweep.progress import ChildSettings
from millpond._sweep.variables import CHILD_VARIABLE, CHUNK_VARIABLE, JOBS_VARIABLE, METRICS_VARIABLE

_LOG_FILE = "output.log"
LOG_LIMIT_BYTES = 16 << 20
"""Of a log that travels in an outcome; its end is what matters."""


class WorkFolder:
    """A chunk's folder while it runs; in a `with` statement a temporary one is removed.

    Args:
        order: Whose files are written into it.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, order: ChunkOrder) -> None:
        self._order = order
        self.is_temporary = order.work_folder is None
        self.path = os.path.abspath(order.work_folder or tempfile.mkdtemp(prefix="millpond-chunk-"))
        self.log_path = os.path.abspath(order.log_path or os.path.join(self.path, _LOG_FILE))
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    def _fill(self) -> None:
        for folder in (self.path, os.path.dirname(self.log_path)):
            os.makedirs(folder, exist_ok=True)
        for name, data in self._order.files.items():
            Path(self.path, name).write_bytes(data)

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove it if it is temporary; idempotent."""
        if self.is_temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def progress_path(self) -> str:
        """What a child that cooperates appends to."""
        return os.path.join(self.path, PROGRESS_FILE)

    @property
    def _jobs_path(self) -> str:
        return os.path.join(self.path, self._order.jobs_file)

    @property
    def _metrics_path(self) -> str:
        return os.path.join(self.path, METRICS_FILE)

    def command(self) -> list[str]:
        """The order's, filled in."""
        order = self._order
        return fill_command(order.command, jobs=self._jobs_path, metrics=self._metrics_path, chunk=order.number)

    def environment(self) -> dict[str, str]:
        """This process's and the order's, and what tells the child of its chunk."""
        order = self._order
        child = ChildSettings(self.progress_path, order.jobs_key, order.name_key, order.budget_bytes)
        return {
            "PYTHONUNBUFFERED": "1",  # what a child printed last must not be lost when it is killed
            **os.environ,
            **order.environment,
            JOBS_VARIABLE: self._jobs_path,
            METRICS_VARIABLE: self._metrics_path,
            CHUNK_VARIABLE: str(order.number),
            CHILD_VARIABLE: child.to_json(),
        }

    def directory(self) -> str:
        """Where the command runs; where that is not on this machine, this process's own."""
        wanted = self._order.directory
        if not os.path.isdir(wanted):
            with contextlib.suppress(FileNotFoundError):  # it was removed: the chunk cannot be started, and says so
                return os.getcwd()
        return os.path.abspath(wanted)

    def metrics(self) -> bytes:
        """What the child has reported; empty where that is nothing."""
        return _read(self._metrics_path)

    def progress(self) -> bytes:
        """What the child has told of its jobs."""
        return _read(self.progress_path)

    def log(self) -> bytes:
        """What it printed, where the order names no log; of a very long one the end."""
        return b"" if self._order.log_path else _read(self.log_path)[-LOG_LIMIT_BYTES:]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
