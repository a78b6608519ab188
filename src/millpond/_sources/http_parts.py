"""Objects behind HTTP read front to back: with the standard library, in the thread that wants them.

obstore does not serve for this. It refuses an answer whose length is not said beforehand (a chunked one); it tells the
server that a redirect leads to the URL that it came from, with the signature that may be in it; and the thread of its
loop, begun for one small image, costs more than the request.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import io
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from millpond._sources.failures import Kind, TryFailed, failed_with_status
from millpond._urls import scheme_of
from millpond._values import FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PART_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16
"""For headers and what comes with them: a small image is there after one call."""
_CHARACTERS = "/%~:;=@!$&'()*+,-._?"
"""Left as they are when a URL is made fit for a request line; blanks and letters beyond ASCII are not."""


class HttpParts:
    """One answer. See `millpond._sources.whole_reads.PartReader`.

    Args:
        url: Without user and fragment.
        headers: Sent to this host, and to no other that a redirect leads to.
        start: The first byte wanted.
        identity: The version that it must be of, if a server can be told so; None takes what is there.
        stall_seconds: Without a byte, also while the connection is made; of all headers together.

    Raises:
        TryFailed: It is not to be had.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], start: int, identity: FileIdentity | None, stall_seconds: float
    ) -> None:
        self.identity: FileIdentity | None = None
        self.size_bytes: int | None = None
        self._patience = _Patience(stall_seconds)
        asked = {"User-Agent": "millpond", "Accept": "*/*"}
        if start:
            asked["Range"] = f"bytes={start}-"
        if identity is not None and identity.has_strong_etag:
            asked["If-Match"] = identity.etag
        with self._telling():
            request = _Request(_quoted(url), asked, headers, self._patience)
            self._response: Any = _opener(tuple(map(os.environ.get, _PROXY_VARIABLES))).open(request)
        try:
            self._look(start)
        except BaseException:
            self.close()
            raise

    def part(self) -> bytes | None:
        """What has come, at least a byte; None at the end."""
        with self._telling():
            data: bytes = self._response.read1(_PART_BYTES)
            return data or None

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        self._response.close()

    def _look(self, start: int) -> None:
        headers, length = self._response.headers, self._response.length
        if start and self._response.status != http.client.PARTIAL_CONTENT:
            raise TryFailed(Kind.UNRANGED, "the server sends the whole object where a byte range is asked for")
        if start and not headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise TryFailed(Kind.UNRANGED, "the server sends another byte range than was asked for")
        if length is not None:
            self.size_bytes = start + length
            etag = headers.get("ETag", "")
            self.identity = FileIdentity(self.size_bytes, 0 if etag else _modified_ns(headers), etag)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        self._patience.begin()
        try:
            yield
        except urllib.error.HTTPError as error:
            error.close()
            raise failed_with_status(error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # none of these is chained: their texts may hold the URL
            raise self._failure_of(error.reason if isinstance(error, urllib.error.URLError) else error) from None

    def _failure_of(self, error: object) -> TryFailed:
        if isinstance(error, TimeoutError):
            return TryFailed(Kind.AGAIN, "nothing came", silent_seconds=self._patience.seconds)
        for kind, means, reason in _REASONS:
            if isinstance(error, kind):
                return TryFailed(means, reason)
        number = error.errno if isinstance(error, OSError) else None
        return TryFailed(Kind.AGAIN, os.strerror(number) if number and number > 0 else type(error).__name__)


_REASONS: tuple[tuple[type[Exception], Kind, str], ...] = (
    (ssl.SSLCertVerificationError, Kind.REFUSED, "the server's certificate is not trusted"),
    (socket.gaierror, Kind.AGAIN, "the name of the host is not known"),
    (http.client.RemoteDisconnected, Kind.AGAIN, "the connection was closed without an answer"),
    (http.client.IncompleteRead, Kind.AGAIN, "the connection was closed before all bytes came"),
    (http.client.InvalidURL, Kind.REFUSED, "it is no valid address"),
    (ValueError, Kind.REFUSED, "it is no valid address, or a header of storage_options has no valid value"),
)


def _modified_ns(headers: Mapping[str, str]) -> int:
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("Last-Modified", ""))
    except ValueError:
        return 0
    return int(moment.timestamp()) * 10**9


class _Patience:
    """Until when something must have come. A limit of the socket alone begins anew with every byte of a header."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = 0.0

    def begin(self) -> None:
        self._until = time.monotonic() + self.seconds

    def left_seconds(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _PatientSocket(io.RawIOBase):
    """What a socket receives, under a limit that does not begin anew."""

    def __init__(self, raw: io.RawIOBase, connected: socket.socket, patience: _Patience) -> None:
        self._raw, self._socket, self._patience = raw, connected, patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        self._socket.settimeout(self._patience.left_seconds())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, connected: socket.socket, *arguments: Any, patience: _Patience, **options: Any) -> None:
        super().__init__(connected, *arguments, **options)
        raw: Any = self.fp.detach()
        self.fp = io.BufferedReader(_PatientSocket(raw, connected, patience), _BUFFER_BYTES)


class _Patient(http.client.HTTPConnection):
    """A connection that is made, and whose answer is read, under a limit."""

    def __init__(self, *arguments: Any, patience: _Patience, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience = patience
        self.response_class: Any = functools.partial(_Response, patience=patience)

    def connect(self) -> None:
        self.timeout = self._patience.left_seconds()
        super().connect()


class _PatientTls(_Patient, http.client.HTTPSConnection):
    pass


class _Request(urllib.request.Request):
    """A GET.

    Args:
        url: Fit for a request line.
        asked: Headers that are also sent to where a redirect leads.
        own: Headers that are not, unless it leads to the same host: they may be secret.
        patience: With all of it, redirects included.
    """

    def __init__(self, url: str, asked: Mapping[str, str], own: Mapping[str, str], patience: _Patience) -> None:
        super().__init__(url)
        self.asked, self.own, self.patience = asked, own, patience
        for name, value in {**asked, **own}.items():
            self.add_header(name, value)

    def redirected(self, url: str) -> _Request:
        is_at_home = urlsplit(url)[:2] == urlsplit(self.full_url)[:2]
        return _Request(url, self.asked, self.own if is_at_home else {}, self.patience)


class _Connections(urllib.request.AbstractHTTPHandler):
    def http_open(self, request: _Request) -> Any:
        return self.do_open(functools.partial(_Patient, patience=request.patience), request)

    def https_open(self, request: _Request) -> Any:
        make = functools.partial(_PatientTls, patience=request.patience)
        return self.do_open(make, request, context=_trust())

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not to another scheme: the library's own would go to ftp."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> _Request | None:
        if scheme_of(newurl) not in ("http", "https"):
            return None
        request: _Request = req
        return request.redirected(newurl)


_PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "REQUEST_METHOD")


@functools.lru_cache(maxsize=4)
def _opener(proxy_variables: tuple[str | None, ...]) -> urllib.request.OpenerDirector:
    """One that knows HTTP alone: `urlopen` would also open files and ftp. Any thread; made once per set of proxies."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Connections(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


@functools.cache
def _trust() -> ssl.SSLContext:
    """Made once: reading the certificates takes 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _quoted(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    path, query = quote(parts.path, safe=_CHARACTERS), quote(parts.query, safe=_CHARACTERS)
    return urlunsplit((parts.scheme, host, path, query, ""))
