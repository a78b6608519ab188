"""What a store has fetched, counted."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FetchStatistics:
    """A snapshot.

    Attributes:
        requests: Sent, retries and hedges included.
        retries: Requests that followed one that failed.
        hedges: Second requests beside a slow first one.
        bytes_fetched: That came over the network and were whole.
        bytes_from_cache: That a `RangeCache` had.
    """

    requests: int = 0
    retries: int = 0
    hedges: int = 0
    bytes_fetched: int = 0
    bytes_from_cache: int = 0


class FetchCounters:
    """Counts for one store. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._retries = self._hedges = self._fetched = self._cached = 0

    def add(self, *, requests: int = 0, retries: int = 0, hedges: int = 0, fetched: int = 0, cached: int = 0) -> None:
        """Count up; bytes are what was `fetched`, and what was `cached`."""
        with self._lock:
            self._requests += requests
            self._retries += retries
            self._hedges += hedges
            self._fetched += fetched
            self._cached += cached

    def snapshot(self) -> FetchStatistics:
        """All counts of one moment."""
        with self._lock:
            return FetchStatistics(self._requests, self._retries, self._hedges, self._fetched, self._cached)
