"""HTTP answers whose length the server does not say beforehand (chunked ones), with the standard library.

obstore refuses them. Nothing but reading such an object front to back goes this way.
"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from millpond._sources.failures import Kind, TryFailed, failed_with_status
from millpond._sources.threads import DaemonThreads
from millpond._urls import scheme_of
from millpond._values import FileIdentity

_T = TypeVar("_T")
_PART_BYTES = 1 << 20
_CHARACTERS = "/%~:;=@!$&'()*+,-._?"
"""Left as they are when a URL is made fit for a request line; blanks and letters beyond ASCII are not."""


class UnsizedParts:
    """One answer, read in a thread. See `Parts`."""

    identity: FileIdentity | None = None
    size_bytes: int | None = None

    def __init__(self, url: str, headers: Mapping[str, str], stall_seconds: float) -> None:
        self._url, self._headers, self._stall_seconds = url, headers, stall_seconds
        self._threads = DaemonThreads(1, "millpond-http")
        self._response: Any = None

    async def part(self) -> bytes | None:
        """See `Parts`. The first one sends the request."""
        return await self._threads.run(lambda: self._telling(self._read))

    async def close(self) -> None:
        """Lets go of the connection, when a call that waits on it has returned: its own limit sees to that."""
        self._threads.submit(self._close)
        self._threads.end(finish_seconds=0.0)

    def _read(self) -> bytes | None:
        if self._response is None:
            self._response = _opener().open(_request(self._url, self._headers), timeout=self._stall_seconds)
        data: bytes = self._response.read1(_PART_BYTES)
        return data or None

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()

    def _telling(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except urllib.error.HTTPError as error:
            error.close()
            raise failed_with_status(error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # none of these is chained: their texts may hold the URL
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                raise TryFailed(Kind.AGAIN, "nothing came", silent_seconds=self._stall_seconds) from None
            number = reason.errno if isinstance(reason, OSError) else None
            raise TryFailed(Kind.AGAIN, os.strerror(number) if number else type(reason).__name__) from None


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


def _request(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    parts = urlsplit(url)
    host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    path, query = quote(parts.path, safe=_CHARACTERS), quote(parts.query, safe=_CHARACTERS)
    request = urllib.request.Request(urlunsplit((parts.scheme, host, path, query, "")))
    for name, value in {"User-Agent": "millpond", "Accept": "*/*", **headers}.items():
        request.add_unredirected_header(name, value)  # the library would hand secrets on to wherever it is sent
    return request
