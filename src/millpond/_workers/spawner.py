"""Starts workers, and owns the files that stay when one worker takes the place of another: cells and stack dumps."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from millpond._workers.cells import Cells, cells_bytes
from millpond._workers.descriptors import anonymous_file, close_all
from millpond._workers.messages import START, Start, encode, pack
from millpond._workers.starter import Starter
from millpond._workers.surroundings import Surroundings
from millpond._workers.worker import Worker
from millpond._workers.zygote import zygote_for
from millpond.errors import WorkerDied

_DUMP_BYTES = 65536
_BELOW_A_TASK = re.compile(r'  File "[^"\n]*_workers/child\.py", line \d+ in _answer\n(?:  File [^\n]*\n)*')
"""Frames of a dump: how the worker came to call what it was given, the same every time."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What every worker of a supervisor is started with; see `Supervisor`.

    There are more places than workers: one where a successor starts before the worker that it follows has ended, and
    those of workers that were lost.
    """

    handler: bytes
    num_places: int
    descriptors: tuple[int, ...]
    preload: tuple[str, ...]
    use_pidfd: bool
    reports_memory: bool
    starter: Starter | None = None


class Spawner:
    """Asks the starter for workers, and for another zygote if that has died."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._files: list[int] = []
        try:
            self._cells_file = self._open_file("millpond-cells", cells_bytes(options.num_places))
            self._dump_files: dict[int, int] = {}
            self.starter = options.starter or self._zygote()
            self.cells = Cells(self._cells_file, options.num_places)
        except BaseException:
            close_all(self._files)
            raise

    def _zygote(self) -> Starter:
        return zygote_for(self._options.preload, use_pidfd=self._options.use_pidfd)

    def _open_file(self, name: str, size_bytes: int) -> int:
        self._files.append(anonymous_file(name, size_bytes, use_memfd=self._options.use_pidfd))
        return self._files[-1]

    def spawn(self, index: int, now_seconds: float, handler: bytes | None = None) -> Worker:
        """Ask for a worker in this place, and tell it what to run; does not wait for it.

        Args:
            index: The place, which is free.
            now_seconds: On the clock of time.monotonic().
            handler: What it runs; None: what all run.

        Raises:
            ClosedError: `millpond.shutdown()` ended the starter.
            WorkerDied: The zygote died, and so did the next.
            OSError: No process or descriptor is to be had.
        """
        self.cells.clear(index)
        if index not in self._dump_files:
            self._dump_files[index] = self._open_file("millpond-stack", 0)
        dump_file = self._dump_files[index]
        os.ftruncate(dump_file, 0)
        os.lseek(dump_file, 0, os.SEEK_SET)  # the offset is shared with the worker
        descriptors = [dump_file, self._cells_file, *self._options.descriptors]
        try:
            spawned = self.starter.spawn(descriptors)
        except WorkerDied:
            if self._options.starter is not None:
                raise
            self.starter = self._zygote()
            spawned = self.starter.spawn(descriptors)
        worker = Worker(index, spawned, self.starter, now_seconds)
        worker.send(pack(START, 0, encode(self._start_message(index, handler))))
        return worker

    def _start_message(self, index: int, handler: bytes | None) -> Start:
        options = self._options
        handler = options.handler if handler is None else handler
        return Start(index, options.num_places, options.reports_memory, handler, Surroundings.now())

    def read_stack(self, index: int) -> str:
        """What the worker in this place wrote when it was asked for its stack, or crashed; empty if it did not.

        Down to where its task begins.
        """
        dump = os.pread(self._dump_files[index], _DUMP_BYTES, 0).decode(errors="replace")
        return _BELOW_A_TASK.sub("", dump)

    def close(self) -> None:
        """Give the files back; the zygote stays warm for others."""
        self.starter.release()
        self.cells.close()
        close_all(self._files)
        self._files = []
