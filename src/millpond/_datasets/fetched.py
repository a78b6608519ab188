"""Bytes that were fetched before the task that reads them began."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from millpond._datasets.base import FetchedRange, Progress
from millpond._values import ByteRange, no_progress
from millpond.errors import DataError


class Fetched(threading.local):
    """What is there for the task of one part, and what was not and had to be fetched while it ran; of each thread.

    Attributes:
        counters: Requests and bytes that a task made by itself: "late_requests", "late_bytes".
        progress: Called while the task waits for a request of its own.
    """

    def __init__(self) -> None:
        self._ranges: list[FetchedRange] = []
        self.counters: Counter[str] = Counter()
        self.progress: Progress = no_progress

    def provide(self, ranges: Sequence[FetchedRange]) -> None:
        """What is there from now on, in place of what was."""
        self._ranges = list(ranges)

    def find(self, file: int, wanted: ByteRange) -> bytes | None:
        """A copy of the bytes of a range, if it was fetched.

        Raises:
            DataError: Fetching it has failed.
        """
        for (_, of_file, start, stop), outcome in self._ranges:
            if of_file == file and start <= wanted.start and wanted.stop <= stop:
                if isinstance(outcome, DataError):
                    raise outcome
                return bytes(outcome[wanted.start - start : wanted.stop - start])
        return None
