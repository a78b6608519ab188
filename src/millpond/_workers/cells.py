"""One cache line of shared memory for each worker: how far it is, and what it runs.

The worker writes COUNT, PROGRESS_NS, SERIAL and ANON_BYTES; the supervisor writes STOP, and reads all of them at any
time. Each cell is an aligned 64-bit word, so no read sees half a write.
"""

from __future__ import annotations

import itertools
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass

ROW_CELLS = 8  # 64 bytes: workers on different cores do not share a cache line
COUNT, PROGRESS_NS, SERIAL, STOP, ANON_BYTES = range(5)
_CELL_BYTES = 8


def cells_bytes(num_workers: int) -> int:
    """Size of the file that holds a row for each worker."""
    return num_workers * ROW_CELLS * _CELL_BYTES


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker's row says: progress() calls of the task it runs, time of the last one, the task's serial."""

    count: int
    at_seconds: float
    serial: int


class Cells:
    """The mapped rows of all workers; `close()` unmaps them."""

    def __init__(self, descriptor: int, num_workers: int) -> None:
        self._map = mmap.mmap(descriptor, cells_bytes(num_workers))
        self._cells = memoryview(self._map).cast("Q")

    def read(self, worker_index: int) -> Progress:
        """The row of one worker. `at_seconds` is on the clock of time.monotonic(), which processes share."""
        row = worker_index * ROW_CELLS
        count, at_ns, serial = self._cells[row + COUNT], self._cells[row + PROGRESS_NS], self._cells[row + SERIAL]
        return Progress(count, at_ns / 1e9, serial)

    def clear(self, worker_index: int) -> None:
        """Forget what the former worker of this row did."""
        row = worker_index * ROW_CELLS
        for cell in range(ROW_CELLS):
            self._cells[row + cell] = 0

    def set_anon_bytes(self, worker_index: int, anon_bytes: int) -> None:
        """The worker's side: tell how much anonymous memory it has."""
        self._cells[worker_index * ROW_CELLS + ANON_BYTES] = anon_bytes

    def anon_bytes(self, worker_index: int) -> int:
        """What the worker told after its last task; 0 if it is not asked to."""
        return self._cells[worker_index * ROW_CELLS + ANON_BYTES]

    def ask_to_stop(self, worker_index: int) -> None:
        """Let the worker begin no further task."""
        self._cells[worker_index * ROW_CELLS + STOP] = 1

    def is_stopped(self, worker_index: int) -> bool:
        """Whether the supervisor wants no further task begun."""
        return self._cells[worker_index * ROW_CELLS + STOP] != 0

    def recorder(self, worker_index: int) -> tuple[Callable[[int], None], Callable[[], None]]:
        """The worker's side: `begin(serial)` before a task, `progress()` within it (bench/worker_start.py times it)."""
        row = self._cells[worker_index * ROW_CELLS : (worker_index + 1) * ROW_CELLS]
        now_ns = time.monotonic_ns
        # A counter that is called is faster than a number that is added to: 0.14 against 0.22 us a call.
        next_count = itertools.count(1).__next__

        def begin(serial: int) -> None:
            nonlocal next_count
            next_count = itertools.count(1).__next__
            row[COUNT] = 0
            row[PROGRESS_NS] = now_ns()
            row[SERIAL] = serial  # last: a reader that sees the serial sees this task's count and time

        def progress() -> None:
            row[0] = next_count()  # COUNT
            row[1] = now_ns()  # PROGRESS_NS

        return begin, progress

    def close(self) -> None:
        """Unmap the rows."""
        self._cells.release()
        self._map.close()
