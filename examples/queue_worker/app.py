"""The queue behind HTTP: `python -m examples.queue_worker.app tasks.db`.

    POST   /tasks             [{id, image_url, reply_subject}]           -> {new}
    PUT    /leases/{lease}    {max_tasks, seconds, wait_seconds}         -> {tasks}; waits while there are none
    PATCH  /leases/{lease}    {seconds}                                  -> {held}
    DELETE /leases/{lease}    ?counts=0|1                                -> {released}
    POST   /outcomes          {lease, seconds, outcomes: [{id, worker, result | error}]} -> {recorded, held}
    GET    /replies/{subject} ?after=N&limit=N&wait_seconds=S            -> {replies}; waits while there are none
    GET    /stats                                                        -> counts

Every request may be sent again: whoever leases names the lease, and an outcome is written down once. Posting outcomes
renews the lease.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.queue_worker.agreed import Task
from examples.queue_worker.requests import Extension, LeaseRequest, NewTasks, Outcomes, RepliesRequest
from examples.queue_worker.store import TaskStore

_T = TypeVar("_T")
_LONGEST_WAIT_SECONDS = 30.0


class Queue:
    """The endpoints. The store answers within milliseconds, so it is asked in the event loop: one thread, in turn."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._changed = asyncio.Event()

    def app(self) -> Starlette:
        """For any ASGI server, one process of it."""
        routes = [
            Route("/tasks", self._enqueue, methods=["POST"]),
            Route("/leases/{lease}", self._lease, methods=["PUT"]),
            Route("/leases/{lease}", self._extend, methods=["PATCH"]),
            Route("/leases/{lease}", self._release, methods=["DELETE"]),
            Route("/outcomes", self._finish, methods=["POST"]),
            Route("/replies/{subject}", self._replies),
            Route("/stats", self._statistics),
        ]
        return Starlette(routes=routes, exception_handlers={ValidationError: _refused})

    async def _enqueue(self, request: Request) -> Response:
        tasks = NewTasks.validate_json(await request.body())
        new = self._store.enqueue(
            [Task(id=task.id, image_url=task.image_url, reply_subject=task.reply_subject) for task in tasks]
        )
        self._tell()
        return JSONResponse({"new": new})

    async def _lease(self, request: Request) -> Response:
        asked, lease = LeaseRequest.model_validate_json(await request.body()), request.path_params["lease"]
        found = await self._first(
            lambda: self._store.lease(lease, asked.max_tasks, asked.seconds), request, asked.wait_seconds
        )
        return JSONResponse({"tasks": found})

    async def _extend(self, request: Request) -> Response:
        asked = Extension.model_validate_json(await request.body())
        return JSONResponse({"held": self._store.extend(request.path_params["lease"], asked.seconds)})

    async def _release(self, request: Request) -> Response:
        counts = request.query_params.get("counts", "1") != "0"
        released = self._store.release(request.path_params["lease"], counts=counts)
        self._tell()
        return JSONResponse({"released": released})

    async def _finish(self, request: Request) -> Response:
        asked = Outcomes.model_validate_json(await request.body())
        outcomes = [(each.id, each.model_dump(exclude={"id"}, exclude_none=True)) for each in asked.outcomes]
        recorded = self._store.finish(outcomes)
        held = self._store.extend(asked.lease, asked.seconds)
        self._tell()
        return JSONResponse({"recorded": recorded, "held": held})

    async def _replies(self, request: Request) -> Response:
        asked, subject = RepliesRequest.model_validate(dict(request.query_params)), request.path_params["subject"]
        found = await self._first(
            lambda: self._store.replies(subject, asked.after, asked.limit), request, asked.wait_seconds
        )
        return JSONResponse({"replies": found})

    async def _statistics(self, request: Request) -> Response:
        return JSONResponse(self._store.statistics())

    async def _first(self, look: Callable[[], list[_T]], request: Request, wait_seconds: float) -> list[_T]:
        """What there is, as soon as there is something. Nothing is leased to somebody who has hung up."""
        until = time.monotonic() + min(wait_seconds, _LONGEST_WAIT_SECONDS)
        while not await request.is_disconnected():
            changed = self._changed  # before looking: no change is missed
            self._store.end_expired()
            if found := look():
                return found
            left = until - time.monotonic()
            if left <= 0:
                break
            expiry = self._store.seconds_to_expiry()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left if expiry is None else min(left, expiry + 0.01))
        return []

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _refused(request: Request, error: Exception) -> Response:
    return Response(str(error), 422, media_type="text/plain")


@contextlib.contextmanager
def serving_queue(path: Path, clock: Callable[[], float] = time.time) -> Iterator[str]:
    """Serve the queue from a thread of this process, on a port of its own; gives the URL."""
    with contextlib.closing(TaskStore(path, clock)) as store, socket.create_server(("127.0.0.1", 0)) as listening:
        server = _server(store)
        # Until it serves, connections wait in the backlog of the socket.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="queue")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _server(store: TaskStore) -> uvicorn.Server:
    app = Queue(store).app()
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    )


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(description="A queue of image tasks.")
    parser.add_argument("path", type=Path, help="the SQLite file; made if it is not there")
    parser.add_argument("--port", type=int, default=8400)
    parser.add_argument("--fd", type=int, help="a listening socket, inherited: clients wait there while this restarts")
    arguments = parser.parse_args()
    if arguments.fd is None:
        listening = socket.create_server(("127.0.0.1", arguments.port))
    else:
        listening = socket.socket(fileno=arguments.fd)
    with contextlib.closing(TaskStore(arguments.path)) as store, listening:
        _server(store).run(sockets=[listening])


if __name__ == "__main__":
    main()
