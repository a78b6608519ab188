"""A server of images as the world has them: good, missing, corrupt, slow, and such as never come.

The path says which: /good/7.jpg, /missing/7.jpg, /corrupt/7.jpg, /slow/7.jpg, /hanging/7.jpg. Pictures of the same
number are the same.
"""

from __future__ import annotations

import queue
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from examples.queue_worker.pictures import picture

KINDS = ("good", "missing", "corrupt", "slow", "hanging")
_SLOW_SECONDS = 0.3
_LOOK_SECONDS = 0.1  # whether a client that waits for what hangs is still there


class Asked(NamedTuple):
    """A request for an image that hangs: the path, and the port from which it came."""

    path: str
    client_port: int


class ImageServer(ThreadingHTTPServer):
    """On a port of its own.

    Attributes:
        hanging: Requests for images that hang, as they come.
        released: Once set, images that hang come after all.
    """

    daemon_threads = False  # so that `server_close` waits for them
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hanging: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        self.released = threading.Event()

    def url(self, kind: str, number: int) -> str:
        """Of one image."""
        return f"http://127.0.0.1:{self.server_address[1]}/{kind}/{number}.jpg"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: ImageServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        _, kind, name = self.path.split("/")
        if kind == "missing":
            self.send_error(404)
            return
        data = picture(int(name.removesuffix(".jpg"))).jpeg
        if kind == "corrupt":
            data = data[: len(data) // 2]
        if kind == "hanging":
            self.server.hanging.put(Asked(self.path, self.client_address[1]))
            self._hang()
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if kind == "slow":
            self.wfile.write(data[:100])
            self.server.released.wait(_SLOW_SECONDS)
            data = data[100:]
        self.wfile.write(data)

    def _hang(self) -> None:
        """Until it is released, or the client has hung up: a killed one must not keep a thread here."""
        while not self.server.released.wait(_LOOK_SECONDS):
            is_readable, _, _ = select.select([self.connection], [], [], 0)
            if is_readable and not self.connection.recv(1, socket.MSG_PEEK):
                return


@contextmanager
def serving_images() -> Iterator[ImageServer]:
    """Serve from threads of this process, which are gone when the block ends."""
    server = ImageServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="images")
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
