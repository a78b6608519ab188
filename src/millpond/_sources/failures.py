"""What can go wrong with one try, in words of ours: those of the libraries hold URLs, and with them secrets."""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus

from millpond._values import FileIdentity


class Kind(Enum):
    """What a failed try means for the fetch."""

    AGAIN = auto()
    """Another try may succeed."""
    REFUSED = auto()
    """Every other try would fail the same way."""
    MISSING = auto()
    """There is no such object."""
    CHANGED = auto()
    """It is not the version that was asked for."""
    BEYOND = auto()
    """The range is not in the object."""
    UNRANGED = auto()
    """The server does not serve ranges of it."""
    UNSIZED = auto()
    """The server does not say its length."""
    UNREADABLE = auto()
    """Nothing here reads such URLs."""
    FORKED = auto()
    """It cannot be asked from this process, which was forked from one that had asked."""


class TryFailed(Exception):
    """One try failed. Never leaves `_sources`, and is never chained to what a library raised.

    Attributes:
        kind: See `Kind`.
        reason: Behind a colon, for people: "HTTP status 503 Service Unavailable". No URL is in it.
        status: Of HTTP, where there was one.
        found: The version that is there, where a try learnt it.
        silent_seconds: Nothing came for so long; None where that was not the reason.
    """

    def __init__(
        self,
        kind: Kind,
        reason: str,
        *,
        status: int | None = None,
        found: FileIdentity | None = None,
        silent_seconds: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.status = status
        self.found = found
        self.silent_seconds = silent_seconds


_KINDS = {404: Kind.MISSING, 410: Kind.MISSING, 412: Kind.CHANGED, 416: Kind.BEYOND, 408: Kind.AGAIN, 429: Kind.AGAIN}


def failed_with_status(status: int) -> TryFailed:
    """What an HTTP status says: 5xx, 408 and 429 pass; other refusals stay."""
    kind = _KINDS.get(status, Kind.AGAIN if status >= 500 and status != 501 else Kind.REFUSED)
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:  # of a proxy that has statuses of its own
        phrase = ""
    remedy = ": check the credentials in storage_options= or token=" if status in (401, 403) else ""
    return TryFailed(kind, f"HTTP status {status}{phrase}{remedy}", status=status)
