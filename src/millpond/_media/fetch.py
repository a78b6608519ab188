"""Whole files by URL: HTTP with the standard library, other schemes through fsspec where it is installed."""

from __future__ import annotations

import base64
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from millpond._urls import redacted, scheme_of, shortened
from millpond.errors import DataError, FetchTimeout, ObjectMissing, UnsupportedFormat

Progress = Callable[[], None]

_CHUNK_BYTES = 1 << 20
_MISSING_STATUSES = (404, 410)
_URL_CHARACTERS = "/%~:;=@!$&'()*+,-._?"
"""Left as they are when a URL is made fit for a request line; blanks and letters beyond ASCII are not."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long a fetch may take and how much it may bring.

    Attributes:
        stall_seconds: Without a byte, also while the connection is made.
        total_seconds: For all of it.
        size_bytes: Of a larger object nothing is kept.
    """

    stall_seconds: float = 30.0
    total_seconds: float = 600.0
    size_bytes: int = 2 << 30


FETCH_LIMITS = FetchLimits()


def fetch(url: str, take: Callable[[bytes], object], progress: Progress, limits: FetchLimits = FETCH_LIMITS) -> None:
    """Fetch the object at a URL, in parts.

    Args:
        url: http, https, or a scheme that fsspec knows. User and password in it are sent as Basic authentication.
        take: Called with each part.
        progress: Called per part.
        limits: Of time and size.

    Raises:
        ObjectMissing: The server has no such object.
        FetchTimeout: A limit of time passed.
        UnsupportedFormat: No such scheme, or what reads it is not installed.
        DataError: It cannot be fetched, comes incomplete, or is too large. No message holds a secret of the URL.
    """
    parts = _from_http if scheme_of(url) in ("http", "https") else _from_fsspec
    started, taken_bytes = time.monotonic(), 0
    for part in parts(url, limits):
        taken_bytes += len(part)
        _require_size(url, taken_bytes, limits)
        take(part)
        progress()
        elapsed_seconds = time.monotonic() - started
        if elapsed_seconds > limits.total_seconds:
            raise _too_slow(url, f"{taken_bytes:,} bytes came", elapsed_seconds, limits.total_seconds)


def _from_http(url: str, limits: FetchLimits) -> Iterator[bytes]:
    started = time.monotonic()
    try:
        with _opener().open(_request(url), timeout=limits.stall_seconds) as response:
            expected = response.length
            _require_size(url, expected or 0, limits)
            received_bytes = 0
            while part := response.read1(_CHUNK_BYTES):
                received_bytes += len(part)
                yield part
        # `read1` takes a connection that closed early for the end
        if expected is not None and received_bytes < expected:
            raise _failed(url, f"{received_bytes:,} of {expected:,} bytes came before the connection closed")
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused(url, error.code) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # none of these is chained: their texts may hold the URL, and with it a password
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise _too_slow(url, "nothing came", time.monotonic() - started, limits.stall_seconds) from None
        raise _failed(url, str(reason) if isinstance(reason, OSError) else type(reason).__name__) from None


class _HttpRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not to another scheme: the library's own would go to ftp."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if scheme_of(newurl) not in ("http", "https"):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """One that knows HTTP alone: `urlopen` would also open files and ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _HttpRedirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _request(url: str) -> urllib.request.Request:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    path, query = quote(parts.path, safe=_URL_CHARACTERS), quote(parts.query, safe=_URL_CHARACTERS)
    request = urllib.request.Request(
        urlunsplit((parts.scheme, host.encode("idna").decode() if not host.isascii() else host, path, query, "")),
        headers={"User-Agent": "millpond", "Accept": "*/*"},
    )
    if at:
        # unredirected: the library would hand it on to whatever host it is sent to
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    return request


def _from_fsspec(url: str, limits: FetchLimits) -> Iterator[bytes]:
    scheme = scheme_of(url)
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        # fsspec's own text says which package reads the scheme
        raise UnsupportedFormat(
            f"{_name(url)} cannot be fetched: URLs with {scheme}:// are read through fsspec ({error}); install "
            f"fsspec and its package for {scheme}",
            path=redacted(url),
        ) from None
    try:
        with fsspec.open(url, "rb") as file:
            _require_size(url, getattr(file, "size", None) or 0, limits)
            while part := file.read(_CHUNK_BYTES):
                yield part
    except FileNotFoundError:
        raise ObjectMissing(f"no object at {_name(url)}", path=redacted(url)) from None
    except TimeoutError:
        raise _too_slow(url, "it stalled", limits.stall_seconds, limits.stall_seconds) from None
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - every file system raises errors of its own
        raise _failed(url, type(error).__name__) from None


def _name(url: str) -> str:
    return repr(shortened(redacted(url)))


def _require_size(url: str, size_bytes: int, limits: FetchLimits) -> None:
    if size_bytes > limits.size_bytes:
        raise DataError(
            f"{_name(url)} has at least {size_bytes:,} bytes, more than the {limits.size_bytes:,} that are "
            "fetched into memory; download it and give its path",
            path=redacted(url),
            size_bytes=size_bytes,
            limit_bytes=limits.size_bytes,
        )


def _refused(url: str, status: int) -> DataError:
    words = f"HTTP status {status} {http.client.responses.get(status, '')}".rstrip()
    if status in _MISSING_STATUSES:
        return ObjectMissing(f"no object at {_name(url)} ({words})", path=redacted(url), status=status)
    error = _failed(url, words)
    error.facts["status"] = status
    return error


def _failed(url: str, reason: str) -> DataError:
    return DataError(f"{_name(url)} could not be fetched: {reason}", path=redacted(url))


def _too_slow(url: str, what: str, elapsed_seconds: float, limit_seconds: float) -> FetchTimeout:
    return FetchTimeout(
        f"fetching {_name(url)} was given up after {elapsed_seconds:.1f} s (limit {limit_seconds:g} s): {what}",
        path=redacted(url),
        elapsed_seconds=elapsed_seconds,
        limit_seconds=limit_seconds,
    )
