"""One object from its first byte to its last, in parts, for whoever reads it front to back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from millpond._sources.failures import Kind, TryFailed
from millpond._sources.fetch_errors import Fetch, error_of, too_slow
from millpond._sources.statistics import FetchCounters
from millpond._urls import shortened
from millpond._values import FileIdentity, no_progress
from millpond.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class PartReader(Protocol):
    """One answer that comes in parts, asked for from the thread that wants them. What fails is a `TryFailed`.

    Attributes:
        identity: Of the object; None where the server says nothing of it.
        size_bytes: Of the whole object; None where the server does not say.
    """

    identity: FileIdentity | None
    size_bytes: int | None

    def part(self) -> Buffer | None:
        """What comes next; None at the end."""

    def close(self) -> None:
        """Let go of the connection. Idempotent."""


class WholeRead:
    """One reading of one object, a part at a time.

    A connection that breaks is followed by another one that goes on where the first broke off, if both say that they
    are of one version. A server that goes silent is given up at once: who reads a whole object says how long is too
    long.

    Args:
        open_parts: Opens an answer: (the first byte wanted, the version that it must be of if one is known).
        name: Of the object, redacted.
        counters: Of the store.
        max_tries: The first included; of all connections together.
        max_bytes: Of a larger one nothing more is read; None reads any.
        timeout_seconds: For all of it; None has no limit.
        progress: Called before each try, and per part.

    Attributes:
        identity: The version, once the first part is there; None where the server says nothing of it.
    """

    def __init__(
        self,
        open_parts: Callable[[int, FileIdentity | None], PartReader],
        name: str,
        counters: FetchCounters,
        *,
        max_tries: int,
        max_bytes: int | None,
        timeout_seconds: float | None,
        progress: Callable[[], None] | None = None,
    ) -> None:
        self.identity: FileIdentity | None = None
        self._open_parts, self._counters = open_parts, counters
        self._max_tries, self._max_bytes, self._progress = max_tries, max_bytes, progress or no_progress
        self._fetch = Fetch(name, time.monotonic(), float("inf") if timeout_seconds is None else timeout_seconds)
        self._parts: PartReader | None = None
        self._num_bytes = 0

    def part(self) -> Buffer | None:
        """What comes next; None at the end. The errors are those of `ObjectStore.read_whole`."""
        try:
            part = self._some_try()
        except TryFailed as failure:
            if failure.silent_seconds is not None:
                raise too_slow(self._fetch, time.monotonic(), failure.silent_seconds, failure.reason) from None
            raise error_of(self._fetch, failure, time.monotonic()) from None
        if part is None:
            return None
        num_bytes = memoryview(part).nbytes
        self._num_bytes += num_bytes
        self._counters.add(fetched=num_bytes)
        self._progress()
        self._require_size(self._num_bytes)
        if self.identity is not None and self._num_bytes > self.identity.size_bytes:
            self._fetch.identity = self.identity
            longer = TryFailed(Kind.CHANGED, "more came", found=FileIdentity(self._num_bytes, 0))
            raise error_of(self._fetch, longer, time.monotonic())
        if self._is_over:
            raise too_slow(self._fetch, time.monotonic(), what=f"{self._num_bytes:,} bytes came")
        return part

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.close()

    @property
    def _is_over(self) -> bool:
        return time.monotonic() - self._fetch.started > self._fetch.limit_seconds

    def _some_try(self) -> Buffer | None:
        try:
            return self._try()
        except TryFailed as failure:
            if not self._may_go_on(failure):
                raise
            first = failure
        from millpond._sources.retrying import retry_in_thread

        return retry_in_thread(first, self._retry, self._may_go_on)

    def _may_go_on(self, failure: TryFailed) -> bool:
        is_known = self.identity is not None and self.identity.is_surely(self.identity)
        passes = failure.kind is Kind.AGAIN and failure.silent_seconds is None
        has_tries = self._fetch.tries < self._max_tries and not self._is_over
        return passes and has_tries and (self._num_bytes == 0 or is_known)

    def _retry(self) -> Buffer | None:
        self._counters.add(retries=1)
        return self._try()

    def _try(self) -> Buffer | None:
        try:
            if self._parts is None:
                self._open()
            assert self._parts is not None
            part = self._parts.part()
            size_bytes = self._parts.size_bytes
            if part is None and size_bytes is not None and self._num_bytes < size_bytes:
                raise TryFailed(Kind.AGAIN, "")
            return part
        except TryFailed as failure:
            size_bytes = self._parts.size_bytes if self._parts is not None else None
            if failure.kind is Kind.AGAIN and size_bytes is not None and failure.silent_seconds is None:
                failure.reason = f"{self._num_bytes:,} of {size_bytes:,} bytes came before the connection closed"
            self._fetch.last = failure
            self.close()
            raise

    def _open(self) -> None:
        self._fetch.tries += 1
        self._counters.add(requests=1)
        self._progress()
        parts = self._parts = self._open_parts(self._num_bytes, self.identity)
        if self.identity is None or self._num_bytes == 0:
            self.identity = parts.identity
        elif parts.identity is None or not parts.identity.is_surely(self.identity):
            self._fetch.identity = self.identity
            raise TryFailed(Kind.CHANGED, "another version is there", found=parts.identity)
        self._require_size(parts.size_bytes or 0)

    def _require_size(self, size_bytes: int) -> None:
        if self._max_bytes is not None and size_bytes > self._max_bytes:
            raise DataError(
                f"{shortened(self._fetch.name)!r} has at least {size_bytes:,} bytes, more than the "
                f"{self._max_bytes:,} that are fetched into memory; download it and give its path",
                path=self._fetch.name,
                size_bytes=size_bytes,
                limit_bytes=self._max_bytes,
            )
