"""One thread with an event loop, for the requests of one store."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")


class LoopThread:
    """Begun when it is made, ended once. A daemon: a process that ends waits for no request.

    Whatever ends it need not be the thread that made it, and may be the loop's own.

    Args:
        name: Of the thread.
        settle: Waited for at the end, when everything has been cancelled.
    """

    def __init__(self, name: str, settle: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_ended = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop, settle), name=name, daemon=True)
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """Whether it runs in this process: a forked child inherits the object, but no thread."""
        return self._pid == os.getpid()

    def begin(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run a coroutine; cancelling what is returned cancels it. After the end it is cancelled at once."""
        with self._lock:
            if not self._is_ended:
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        coroutine.close()
        cancelled: Future[_T] = Future()
        cancelled.cancel()
        return cancelled

    def end(self) -> None:
        """Cancel what runs, and end the thread. Idempotent; in a forked child nothing happens."""
        if not self.is_ours:
            return
        with self._lock:
            if not self._is_ended:
                self._is_ended = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _run(loop: asyncio.AbstractEventLoop, settle: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_others())
        loop.run_until_complete(settle())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
