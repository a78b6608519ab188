"""A few threads for calls that may block: daemons, so that one that never returns keeps no process from ending."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")
_Job = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads:
    """Up to so many threads, begun as they are wanted. `concurrent.futures` waits for its own at exit."""

    def __init__(self, num_threads: int, name: str) -> None:
        self._num_threads, self._name = num_threads, name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._num_idle = 0
        self._is_ended = False

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Have it done; cancelled where the threads have ended."""
        future: Future[_T] = Future()
        with self._lock:
            if self._is_ended:
                future.cancel()
                return future
            if self._jobs.qsize() >= self._num_idle and len(self._threads) < self._num_threads:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._jobs.put((future, work))
        return future

    async def run(self, work: Callable[[], _T]) -> _T:
        """Have it done, and wait for it in an event loop; when that is cancelled, a call that has begun goes on."""
        return await asyncio.wrap_future(self.submit(work))

    @property
    def num_waiting(self) -> int:
        """Calls that have not begun."""
        return self._jobs.qsize()

    def end(self, *, finish: bool = False, cancel: bool = True) -> None:
        """Let the threads end.

        Args:
            finish: After all that was submitted, and wait for that.
            cancel: Where not: after what they do now, not after all that was submitted.
        """
        with self._lock:
            self._is_ended = True
            threads, self._threads = self._threads, []
        while cancel and not finish:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job[0].cancel()
        for _ in threads:
            self._jobs.put(None)
        for thread in threads if finish else ():
            if thread is not threading.current_thread():
                thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._num_idle += 1
            job = self._jobs.get()
            with self._lock:
                self._num_idle -= 1
            if job is None:
                return
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is for whoever waits
                future.set_exception(error)
            del job, future, work
