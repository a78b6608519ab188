"""An HTTP server on this machine that serves bytes, or fails as servers fail."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class MediaServer(ThreadingHTTPServer):
    """`objects` is served by path; `/hang` never answers, `/stall` stops in the middle, `/short` closes early.

    `/dribble` never ends its headers, `/torn` breaks off a chunked body, `/askew` sends other ranges than asked for.
    """

    daemon_threads = False  # so that `server_close` waits for them

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = objects
        self.released = threading.Event()
        self.requests: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: MediaServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        if path == "/hang":
            self.server.released.wait(60)
        elif path in ("/stall", "/short"):
            self._answer(200, b"x" * 10, length=1000)
            if path == "/stall":
                self.server.released.wait(60)
        elif path == "/drip":
            self._answer(200, b"", length=1 << 40)
            while not self.server.released.is_set():
                self.wfile.write(b"x")
        elif path == "/dribble":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not self.server.released.wait(0.01):
                self.wfile.write(b"x")
        elif path == "/askew":
            is_range = "Range" in self.headers
            self.send_response(206 if is_range else 200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "1000")
            self.send_header("Content-Range", "bytes 0-999/1010" if is_range else "none")
            self.end_headers()
            self.wfile.write(b"x" * (1000 if is_range else 10))
        elif path in ("/chunked", "/torn"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            parts = (self.server.objects["/clip"][:100], self.server.objects["/clip"][100:], b"")
            for data in parts if path == "/chunked" else parts[:1]:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        elif path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/status/"):
            self._answer(int(path.rpartition("/")[2]), b"no")
        elif path in self.server.objects:
            self._answer(200, self.server.objects[path])
        else:
            self._answer(404, b"")

    def _answer(self, status: int, data: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def serving(objects: dict[str, bytes]) -> Iterator[MediaServer]:
    """A server that is gone, with its threads, when the block ends."""
    server = MediaServer(objects)
    bypass = pytest.MonkeyPatch()
    bypass.setenv("no_proxy", "127.0.0.1")  # whatever proxy this machine has
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
        bypass.undo()
