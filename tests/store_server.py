"""An HTTP server of ours that serves a folder the way object stores do, slowly and with faults where that is wanted.

In tests: `with serving_store(folder, latency_seconds=0.05) as server: ... server.url ...`. As a program it speaks the
protocol of bench/_process.py: the first line that it prints holds its URL, each line of JSON that it is given
({"do": "serve", "folder": ..., "latency_seconds": 0.05}, {"do": "set", ...}, {"do": "counts"}, {"do": "forget"}) is
answered with one, and at the end of its input it ends.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import dataclasses
import email.utils
import json
import os
import random
import re
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

_STEP_SECONDS = 0.02  # a limited connection is fed so often: smooth, and few enough wake-ups for a hundred of them
_BLOCK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_LINGER_NOT = struct.pack("ii", 1, 0)  # closing sends RST
_PATIENCE_SECONDS = 60.0  # of a test that waits for a request


@dataclass
class Settings:
    """How it serves. May be changed while it runs; a request takes what it finds when it comes.

    Rates are shares of requests, drawn one after the other from one seeded source.
    """

    latency_seconds: float = 0.0
    """To the first byte."""
    bytes_per_second: float = 0.0
    """Of one connection; 0 has no limit."""
    unavailable: float = 0.0
    """Answered with 503."""
    reset: float = 0.0
    """RST, half of them before the answer, half amid its body."""
    truncated: float = 0.0
    """Closed in good order amid the body."""
    slow: float = 0.0
    """Silent for `hang_seconds` before the answer."""
    hang_seconds: float = 30.0
    seed: int = 0
    etags: str = "strong"
    """"strong", "weak" or "off"."""
    last_modified: bool = True
    ranges: bool = True
    lengths: bool = True
    """Without, bodies are chunked."""
    queries: bool = False
    """Queries name objects, and files: "/a?id=1" is the file "a?id=1"."""
    head_status: int = 0
    """What HEAD is answered with; 0: properly."""
    bearer: str = ""
    basic: str = ""
    """The token, or "user:password", without which the answer is 401."""


@dataclass
class Counts:
    """What came and went since the start, or since they were last forgotten. Bytes count before they are sent."""

    requests: int = 0
    heads: int = 0
    faults: int = 0
    bytes_sent: int = 0
    open_connections: int = 0
    by_path: collections.Counter[str] = field(default_factory=collections.Counter)
    bytes_by_path: collections.Counter[str] = field(default_factory=collections.Counter)


class StoreServer:
    """Serves from a thread of its own while the block runs; nothing of it is left when the block ends.

    Attributes:
        url: Where it is; objects are `url/path below folder`.
        settings: See `Settings`.
        counts: See `Counts`.
        requests: The path, with its query, and the headers of each request, while `keeps_requests`.
    """

    def __init__(self, folder: Path | None = None, **settings: Any) -> None:
        self.folder = folder
        self.settings = Settings(**settings)
        self.counts = Counts()
        self.keeps_requests = True
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""
        self._changed = threading.Condition()  # a count
        self._gate: asyncio.Event | None = None  # that answers wait for
        self._random = random.Random(self.settings.seed)
        self._scripts: dict[str, collections.deque[str | int]] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-server")

    def __enter__(self) -> StoreServer:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def set(self, **settings: Any) -> None:
        """Change settings; a `seed` begins the faults anew."""
        self.settings = dataclasses.replace(self.settings, **settings)
        if "seed" in settings:
            self._random = random.Random(self.settings.seed)

    def script(self, path: str, *faults: str | int) -> None:
        """Say what becomes of the next GETs of a path, one after the other; then they are answered properly.

        Args:
            path: As in the URL, with "/" in front, without query.
            faults: A status, or one of "ok", "reset", "reset amid", "truncated", "hang", "hang amid", "whole" (for a
                range, too), "short" (fewer bytes than asked for, said to be all).
        """
        self._scripts[path] = collections.deque(faults)

    def wait_until(self, is_so: Callable[[Counts], bool]) -> None:
        """Wait until the counts say so."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_so(self.counts), _PATIENCE_SECONDS), self.counts

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Requests that come are not answered before the block ends; that they came is counted."""
        gate = self._gate = asyncio.Event()
        try:
            yield
        finally:
            self._gate = None
            self._loop.call_soon_threadsafe(gate.set)

    def forget(self) -> None:
        """Count from zero again."""
        open_connections = self.counts.open_connections
        self.counts = Counts(open_connections=open_connections)
        self.requests = []

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(handler_args={"keepalive_timeout": 600.0, "handler_cancellation": True})
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        self._loop.run_until_complete(self._listen(runner))
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        self._loop.close()

    async def _listen(self, runner: web.AppRunner) -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        settings, counts, path = self.settings, self.counts, request.path
        counts.requests += 1
        counts.by_path[path] += 1
        if self.keeps_requests:
            self.requests.append((request.method, request.raw_path, dict(request.headers)))
        if request.method == "HEAD":
            counts.heads += 1
        counts.open_connections += 1
        self._tell()
        try:
            if request.method == "HEAD" and settings.head_status:
                return web.Response(status=settings.head_status)
            if self._gate is not None:
                await self._gate.wait()
            return await self._served(request, settings, self._fault(request, settings))
        except ConnectionError:  # the client gave up
            return web.Response(status=500)
        finally:
            self.counts.open_connections -= 1  # those of now: they may have been forgotten meanwhile
            self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _fault(self, request: web.Request, settings: Settings) -> str | int:
        """What becomes of this request."""
        script = self._scripts.get(request.path)
        if script and request.method == "GET":
            return script.popleft()
        draw = self._random.random()
        halves = "reset" if draw * 1e6 % 2 < 1 else "reset amid"
        chances: tuple[tuple[float, str | int], ...] = (
            (settings.unavailable, 503),
            (settings.reset, halves),
            (settings.truncated, "truncated"),
            (settings.slow, "hang"),
        )
        for chance, fault in chances:
            if draw < chance:
                return fault
            draw -= chance
        return "ok"

    async def _served(self, request: web.Request, settings: Settings, fault: str | int) -> web.StreamResponse:
        if fault != "ok":
            self.counts.faults += 1
        if settings.latency_seconds:
            await asyncio.sleep(settings.latency_seconds)
        if fault == "hang":
            await asyncio.sleep(settings.hang_seconds)
        if fault == "reset":
            return _reset(request)
        if not _is_allowed(request, settings):
            return web.Response(status=401, text="who are you")
        if isinstance(fault, int):
            return web.Response(status=fault, text="a fault of the server")
        if request.path.startswith("/to/"):
            return web.Response(status=302, headers={"Location": request.raw_path.removeprefix("/to/")})
        assert self.folder is not None, "no folder to serve"
        try:
            name = request.path + (f"?{request.query_string}" if settings.queries and request.query_string else "")
            descriptor = os.open(self.folder / name.lstrip("/"), os.O_RDONLY)
        except OSError:
            return web.Response(status=404)
        try:
            return await self._send(request, settings, fault, descriptor)
        finally:
            os.close(descriptor)

    async def _send(self, request: web.Request, settings: Settings, fault: str, descriptor: int) -> web.StreamResponse:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return web.Response(status=404)
        size, headers = status.st_size, _headers(status, settings)
        if (wanted := request.headers.get("If-Match")) is not None and wanted != headers.get("ETag"):
            return web.Response(status=412)
        start, stop = 0, size
        code = 200
        if settings.ranges and fault != "whole" and (match := _RANGE.fullmatch(request.headers.get("Range", ""))):
            start, stop = _bounds(match, size)
            if start >= size or start >= stop:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
            stop -= fault == "short"
            code, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{size}"
        response = web.StreamResponse(status=code, headers=headers)
        if settings.lengths:
            response.content_length = stop - start
        elif request.method != "HEAD":
            response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if fault in ("reset amid", "truncated", "hang amid"):
            await self._body(request, response, settings, descriptor, start, start + (stop - start) // 2)
            if fault == "hang amid":
                await asyncio.sleep(settings.hang_seconds)
            return _reset(request) if fault == "reset amid" else _closed(request, response)
        await self._body(request, response, settings, descriptor, start, stop)
        await response.write_eof()
        return response

    async def _body(
        self,
        request: web.Request,
        response: web.StreamResponse,
        settings: Settings,
        descriptor: int,
        start: int,
        stop: int,
    ) -> None:
        speed = settings.bytes_per_second
        block_bytes = max(int(speed * _STEP_SECONDS), 1) if speed else _BLOCK_BYTES
        began, first = self._loop.time(), start
        while start < stop:
            block = os.pread(descriptor, min(block_bytes, stop - start), start)
            self.counts.bytes_sent += len(block)  # ahead: who has got them may look
            self.counts.bytes_by_path[request.path] += len(block)
            await response.write(block)
            start += len(block)
            if speed and start < stop:
                await asyncio.sleep(began + (start - first) / speed - self._loop.time())


def _is_allowed(request: web.Request, settings: Settings) -> bool:
    given = request.headers.get("Authorization", "")
    if settings.bearer:
        return given == f"Bearer {settings.bearer}"
    return not settings.basic or given == f"Basic {base64.b64encode(settings.basic.encode()).decode()}"


def _headers(status: os.stat_result, settings: Settings) -> dict[str, str]:
    headers = {"Content-Type": "application/octet-stream"}
    if settings.etags != "off":
        weak = "W/" if settings.etags == "weak" else ""
        headers["ETag"] = f'{weak}"{status.st_size:x}-{status.st_mtime_ns:x}"'
    if settings.last_modified:
        headers["Last-Modified"] = email.utils.formatdate(status.st_mtime, usegmt=True)
    if settings.ranges:
        headers["Accept-Ranges"] = "bytes"
    return headers


def _bounds(match: re.Match[str], size: int) -> tuple[int, int]:
    """The half-open range that a header asks for."""
    if not match[1]:
        return max(size - int(match[2] or 0), 0), size
    return int(match[1]), min(int(match[2]) + 1, size) if match[2] else size


def _reset(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        request.transport.abort()
    return web.Response(status=500)


def _closed(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return response


@contextlib.contextmanager
def serving_store(folder: Path, **settings: Any) -> Iterator[StoreServer]:
    """A server that is gone, with its thread, when the block ends; no proxy stands before it."""
    import pytest  # as a program it needs none

    with pytest.MonkeyPatch.context() as bypass:
        for name in ("no_proxy", "NO_PROXY"):
            bypass.setenv(name, "127.0.0.1,localhost")
        with StoreServer(folder, **settings) as server:
            yield server


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """The URL of a port where nobody listens, nor will: it is bound."""
    import pytest

    with pytest.MonkeyPatch.context() as bypass, socket.socket() as bound:
        for name in ("no_proxy", "NO_PROXY"):
            bypass.setenv(name, "127.0.0.1,localhost")
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def main() -> None:
    """Serve as a program; see above."""
    with StoreServer(Path(sys.argv[1]) if len(sys.argv) > 1 else None) as server:
        server.keeps_requests = False
        print(json.dumps({"url": server.url, "pid": os.getpid()}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_do(server, json.loads(line))), flush=True)


def _do(server: StoreServer, order: dict[str, Any]) -> dict[str, Any]:
    what = order.pop("do")
    if what == "serve":
        server.folder = Path(order.pop("folder"))
    if what in ("serve", "set"):
        server.set(**order)
        return dataclasses.asdict(server.settings)
    if what == "forget":
        server.forget()
    return vars(server.counts)  # not asdict, which takes counters apart


if __name__ == "__main__":
    main()
