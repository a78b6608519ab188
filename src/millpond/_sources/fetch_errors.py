"""What users are told when a fetch fails for good: which object, after how many tries and how long, and why."""

from __future__ import annotations

from dataclasses import dataclass

from millpond._sources.failures import Kind, TryFailed
from millpond._urls import shortened
from millpond._values import ByteRange, FileIdentity
from millpond.errors import (
    CorruptMedia,
    DataError,
    FetchError,
    FetchTimeout,
    MillpondError,
    ObjectMissing,
    UnsupportedFormat,
    UsageError,
)


@dataclass(slots=True)
class Fetch:
    """One fetch under way: what it is of, and how it goes.

    Attributes:
        name: Of the object, redacted.
        started: On the loop's clock.
        limit_seconds: For all of its tries.
        wanted: The range, where it is of one.
        identity: The version that is wanted, where one is.
        tries: Begun so far.
        last: How the last that failed did so.
    """

    name: str
    started: float
    limit_seconds: float
    wanted: ByteRange | None = None
    identity: FileIdentity | None = None
    tries: int = 0
    last: TryFailed | None = None

    @property
    def what(self) -> str:
        """The object, and what of it was wanted."""
        part = f" (bytes {self.wanted.start:,} to {self.wanted.stop:,})" if self.wanted else ""
        return f"{shortened(self.name)!r}{part}"


def too_slow(fetch: Fetch, now: float, limit_seconds: float | None = None, what: str = "") -> FetchTimeout:
    """The error for a limit that passed: the deadline, or another one."""
    elapsed_seconds = now - fetch.started
    limit_seconds = fetch.limit_seconds if limit_seconds is None else limit_seconds
    reason = what or (f"the last failed: {fetch.last.reason}" if fetch.last else "nothing came")
    return FetchTimeout(
        f"fetching {fetch.what} was given up after {elapsed_seconds:.1f} s (limit {limit_seconds:g} s) and "
        f"{_tries(fetch.tries)}: {reason}",
        path=fetch.name,
        tries=fetch.tries,
        limit_seconds=limit_seconds,
        elapsed_seconds=elapsed_seconds,
    )


def changed(name: str, expected: FileIdentity | None, found: FileIdentity | None) -> CorruptMedia:
    """The error for an object that is not the version that was there before."""
    return CorruptMedia(
        f"{shortened(name)!r} changed while it was in use: expected {_version(expected)}, found {_version(found)}; "
        "open the dataset again",
        path=name,
        expected=expected,
        found=found,
    )


def forked(name: str) -> UsageError:
    """The error for a store whose connections stayed with the parent."""
    return UsageError(
        f"{shortened(name)!r} cannot be read in this process: it was forked from one that had fetched, and "
        "connections do not survive that; start processes by spawn or forkserver, as DataLoader(..., "
        'multiprocessing_context="spawn") does, or use millpond.torch.DataLoader or millpond.Loader'
    )


def error_of(fetch: Fetch, failure: TryFailed, now: float) -> MillpondError:
    """The error for a try that failed for good, or was the last."""
    path, name = fetch.name, shortened(fetch.name)
    if failure.kind is Kind.MISSING:
        return ObjectMissing(f"no object at {name!r} ({failure.reason})", path=path, status=failure.status)
    if failure.kind is Kind.FORKED:
        return forked(path)
    if failure.kind is Kind.UNREADABLE:
        return UnsupportedFormat(f"{name!r} cannot be fetched: {failure.reason}", path=path)
    if failure.kind is Kind.CHANGED:
        return changed(path, fetch.identity, failure.found)
    if failure.kind is Kind.BEYOND:
        size = f"has {failure.found.size_bytes:,} bytes" if failure.found else "is shorter"
        return DataError(
            f"{fetch.what} cannot be read: it {size}",
            path=path,
            size_bytes=failure.found.size_bytes if failure.found else None,
        )
    if failure.kind is Kind.AGAIN and failure.silent_seconds is not None:
        return too_slow(fetch, now)
    seconds = f" in {now - fetch.started:.1f} s" if fetch.tries > 1 else ""
    return FetchError(
        f"{fetch.what} could not be fetched ({_tries(fetch.tries)}{seconds}): {failure.reason}",
        path=path,
        tries=fetch.tries,
        status=failure.status,
    )


def _tries(count: int) -> str:
    return "1 try" if count == 1 else f"{count} tries"


def _version(identity: FileIdentity | None) -> str:
    if identity is None:
        return "another version"
    words = f"{identity.size_bytes:,} bytes"
    if identity.etag:
        return f"{words} with etag {identity.etag}"
    return f"{words} written at {identity.mtime_ns} ns" if identity.mtime_ns else words
