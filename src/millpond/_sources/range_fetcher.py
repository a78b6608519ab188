"""Ranges of one object, for users who want nothing else."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from millpond._sources.fetch_errors import changed
from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._sources.statistics import FetchStatistics
from millpond._urls import scheme_of
from millpond._values import ByteRange, FileIdentity


class RangeFetcher:
    """Fetches byte ranges of one object by URL. Any thread may use it; a pickled copy has connections of its own.

    The first call learns the object's version (its entity tag, or size and time), and every range is of that version:
    an object that changes is a `CorruptMedia` error, never a mix. (fsspec's file systems do not say which version a
    range is of: through them a change is noticed within 30 seconds.)

    Args:
        url: s3://, gs://, az://, http(s)://, file://, a local path, hf://, or whatever else fsspec reads.
        storage_options: Access to the store: fsspec's names, or obstore's own.
        token: A bearer token for http(s), gs and az, the user's token for hf://, a session token for s3.
        timeout: Seconds that a call may take, all of its tries together.
        max_concurrency: Requests of one `read_ranges` at a time.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        timeout: float = 60.0,
        max_concurrency: int = 16,
    ) -> None:
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        limits = dataclasses.replace(FetchLimits(), timeout_seconds=float(timeout))
        place = os.fspath(url)
        if scheme_of(place) is None:
            place = os.path.abspath(place)  # also after a chdir
        self._store = ObjectStore(place, storage_options=storage_options, token=token, limits=limits)
        self._max_concurrency = max_concurrency
        self._seen: dict[str, FileIdentity] = {}  # "" -> the version of the first call: setdefault is one step

    def __repr__(self) -> str:
        return f"RangeFetcher({self._store.url!r})"

    def __enter__(self) -> RangeFetcher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def identity(self) -> FileIdentity:
        """The version that all ranges are of; asked for once.

        Raises:
            ObjectMissing, FetchError, FetchTimeout, UnsupportedFormat: See `fetch`.
        """
        return self._seen.get("") or self._require_first(self._store.identity(""))

    @property
    def size_bytes(self) -> int:
        """How large the object is. Raises what `identity` raises."""
        return self.identity.size_bytes

    @property
    def statistics(self) -> FetchStatistics:
        """Requests, retries, hedges and bytes since this object was made."""
        return self._store.statistics

    def fetch(self, lo: int, hi: int) -> bytes:
        """Fetch bytes `lo` to `hi`, both included, in one GET. Everything else in millpond takes half-open ranges.

        Args:
            lo: The first byte.
            hi: The last one. Before `lo`: there is nothing to fetch, and nothing is asked of the store.

        Raises:
            ValueError: `lo` is negative.
            DataError: The range is not in the object; the error says how large that is.
            ObjectMissing: No such object.
            FetchError: Refused, or failing after every try. Facts: path, tries, status.
            FetchTimeout: The time was not enough.
            CorruptMedia: The object changed since the first call.
            UnsupportedFormat: Nothing reads such URLs, or a package for them is missing.
        """
        if lo < 0:
            raise ValueError(f"lo must be at least 0, not {lo}")
        if hi < lo:
            return b""
        wanted = ByteRange(lo, hi + 1)
        if not self._seen:
            data, identity = self._store.read_and_identify("", wanted)
            self._require_first(identity)
            return data
        return self._store.read("", wanted, identity=self.identity)

    def read_ranges(self, ranges: Sequence[ByteRange | tuple[int, int]]) -> list[bytes]:
        """Fetch many ranges in as few requests as pay off, several at a time, under one deadline.

        Args:
            ranges: Half-open, (start, stop); any order, overlaps allowed.

        Returns:
            The bytes of each, in the order given.

        Raises:
            ValueError: One is no range.
            DataError, ObjectMissing, FetchError, FetchTimeout, CorruptMedia, UnsupportedFormat: See `fetch`.
        """
        wanted = [one if isinstance(one, ByteRange) else ByteRange(*one) for one in ranges]
        return self._store.read_ranges("", wanted, identity=self.identity, max_concurrency=self._max_concurrency)

    def _require_first(self, identity: FileIdentity) -> FileIdentity:
        """The version that the first of all calls has seen; this one must have seen the same."""
        first = self._seen.setdefault("", identity)
        if identity.differs_from(first):
            raise changed(self._store.url, first, identity)
        return first

    def close(self) -> None:
        """End the connections; what is in flight is cancelled. Idempotent; used again, it opens again."""
        self._store.close()
