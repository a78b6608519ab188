"""Objects behind HTTP read front to back: with the standard library, in the thread that wants them.

obstore does not serve for this. It refuses an answer whose length is not said beforehand (a chunked one); it tells the
server that a redirect leads to the URL that it came from, with the signature that may be in it; and the thread of its
loop, begun for one small image, costs more than the request.
"""

from __future__ import annotations

import email.utils
import functools
import http.client
import io
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from millpond._sources.failures import Kind, TryFailed, failed_with_status
from millpond._urls import scheme_of
from millpond._values import FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")
_PART_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16
"""For headers and what comes with them: a small image is there after one call."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_COMPRESSED = ("gzip", "x-gzip", "deflate", "compress", "br", "zstd")
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
        elif identity is not None and identity.mtime_ns:
            asked["If-Unmodified-Since"] = email.utils.formatdate(identity.mtime_ns / 10**9, usegmt=True)
        request = self._told(lambda: _Request(_quoted(url), asked, headers, self._patience))
        opener = _opener(tuple(map(os.environ.get, _PROXY_VARIABLES)))
        self._response: Any = self._told(lambda: opener.open(request))
        try:
            self._look(start)
        except BaseException:
            self.close()
            raise

    def part(self) -> bytes | None:
        """What has come, at least a byte; None at the end."""
        data: bytes = self._told(lambda: self._response.read1(_PART_BYTES))
        return data or None

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        self._response.close()

    def _look(self, start: int) -> None:
        headers, length = self._response.headers, self._response.length
        _require_plain(headers)
        if start and self._response.status != http.client.PARTIAL_CONTENT:
            raise TryFailed(Kind.UNRANGED, "the server sends the whole object where a byte range is asked for")
        if self._response.status == http.client.PARTIAL_CONTENT:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
            if match is None or int(match[1]) != start:
                raise TryFailed(Kind.UNRANGED, "the server sends another byte range than was asked for")
            self.size_bytes = int(match[2])
        elif length is not None:
            self.size_bytes = int(length)
        if self.size_bytes is not None:
            etag = headers.get("ETag", "")
            self.identity = FileIdentity(self.size_bytes, 0 if etag else _modified_ns(headers), etag)

    def _told(self, work: Callable[[], _T]) -> _T:
        self._patience.begin()
        try:
            return work()
        except urllib.error.HTTPError as error:
            error.close()
            failure = failed_with_status(error.code)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = self._failure_of(error.reason if isinstance(error, urllib.error.URLError) else error)
        raise failure  # not within the except: no text that may hold the URL, and no frame that has a socket

    def _failure_of(self, error: object) -> TryFailed:
        if isinstance(error, TimeoutError):
            return TryFailed(Kind.AGAIN, "nothing came", silent_seconds=self._patience.seconds)
        for kind, means, reason in _REASONS:
            if isinstance(error, kind):
                return TryFailed(means, reason)
        if isinstance(error, str):  # of urllib: no host
            return TryFailed(Kind.REFUSED, "it is no valid address")
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, OSError) and number is None and str(error).startswith("Tunnel connection failed"):
            return TryFailed(Kind.REFUSED, "the proxy refuses the connection")
        return TryFailed(Kind.AGAIN, os.strerror(number) if number and number > 0 else type(error).__name__)


_REASONS: tuple[tuple[type[Exception], Kind, str], ...] = (
    (ssl.SSLCertVerificationError, Kind.REFUSED, "the server's certificate is not trusted"),
    (ssl.SSLError, Kind.REFUSED, "no encrypted connection can be made: does the server speak https?"),
    (socket.gaierror, Kind.AGAIN, "the name of the host is not known"),
    (http.client.RemoteDisconnected, Kind.AGAIN, "the connection was closed without an answer"),
    (http.client.IncompleteRead, Kind.AGAIN, "the connection was closed before all bytes came"),
    (http.client.InvalidURL, Kind.REFUSED, "it is no valid address"),
    (ValueError, Kind.REFUSED, "it is no valid address, or a header of storage_options has no valid value"),
)


def _require_plain(headers: Any) -> None:
    """Refuse what the standard library would hand on as it comes."""
    codings = ", ".join(headers.get_all("Transfer-Encoding", [])).lower()
    if codings not in ("", "chunked"):
        raise TryFailed(Kind.REFUSED, f"the server sends it in a transfer coding ({codings!r}) that is not understood")
    contents = headers.get("Content-Encoding", "").strip().lower()
    if contents in _COMPRESSED:
        raise TryFailed(Kind.REFUSED, f"the server sends it compressed ({contents}), which was not asked for")
    if len(set(headers.get_all("Content-Length", []))) > 1:
        raise TryFailed(Kind.REFUSED, "the server says two lengths of it")


def _modified_ns(headers: Mapping[str, str]) -> int:
    try:
        return int(email.utils.parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp()) * 10**9
    except (ValueError, OverflowError):  # dates of the year 10**9
        return 0


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


def _connected(address: tuple[str, int], timeout: object, source: object, *, patience: _Patience) -> socket.socket:
    """As `socket.create_connection`, whose limit begins anew with every address that a host has."""
    host, port = address
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, place) in enumerate(found):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(patience.left_seconds() / (len(found) - number))
            made.connect(place)
        except OSError:
            made.close()
            if number == len(found) - 1:
                raise
        else:
            return made
    raise OSError("a host without an address")


class _Patient(http.client.HTTPConnection):
    """A connection that is made, and whose answer is read, under a limit."""

    def __init__(self, *arguments: Any, patience: _Patience, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience = patience
        self._create_connection = functools.partial(_connected, patience=patience)
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


class _Unread:
    """An answer without its body."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def read(self, *_: Any) -> bytes:
        self._answer.close()
        return b""

    def close(self) -> None:
        self._answer.close()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not to another scheme: the library's own would go to ftp."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Whatever its body is, it is not read: the library would read all of it."""
        return super().http_error_302(req, _Unread(fp), code, msg, headers)  # type: ignore[arg-type]

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

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
    host, colon, port = parts.netloc.partition(":")
    if not host.isascii():  # then it is no address in brackets
        host = host.encode("idna").decode()
    path, query = quote(parts.path, safe=_CHARACTERS), quote(parts.query, safe=_CHARACTERS)
    return urlunsplit((parts.scheme, host + colon + port, path, query, ""))
