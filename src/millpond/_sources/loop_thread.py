"""One thread with an event loop, for the requests of one store."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")
_EXIT_SECONDS = 2.0
_running: set[LoopThread] = set()


class LoopThread:
    """Begun when it is made, ended once. A daemon: a process that ends waits for no request.

    Args:
        name: Of the thread.
        tear_down: Called and waited for in the thread, after everything was cancelled, as the last that it does.
    """

    def __init__(self, name: str, tear_down: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_ended = False
        self._loop = asyncio.new_event_loop()
        self._tear_down = tear_down
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system gives no more threads
            self._loop.close()
            raise
        _running.add(self)

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
        """Have it cancel what runs, and end. Idempotent; in a forked child nothing happens.

        Nothing is waited for: a finalizer may call this amid anything, in any thread.
        """
        if not self.is_ours:
            return
        with self._lock:
            if not self._is_ended:
                self._is_ended = True
                self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self, timeout_seconds: float | None = None) -> None:
        """Wait until it has ended; its own thread does not."""
        if self.is_ours and threading.current_thread() is not self._thread:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_others())
            self._loop.run_until_complete(self._tear_down())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
            _running.discard(self)


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _end_all() -> None:
    """Before the interpreter ends: what threads of other languages bring home later would meet nobody."""
    threads = list(_running)
    for thread in threads:
        thread.end()
    for thread in threads:
        thread.join(_EXIT_SECONDS)


atexit.register(_end_all)
