"""A few threads for calls that may block: daemons, so that one that never returns keeps no process from ending."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")
_Job = tuple[Future[Any], Callable[[], Any]]
_MAX_LOST = 64


class DaemonThreads:
    """Up to so many threads, begun as they are wanted. `concurrent.futures` waits for its own at exit.

    A thread whose caller gave up waiting is *lost* until its call returns, if it ever does: another takes its place.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._num_threads, self._name = num_threads, name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._num_idle = 0  # less than what waits: jobs that nobody is about to take
        self._lost: set[Future[Any]] = set()
        self._is_ended = False

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Have it done; cancelled where the threads have ended."""
        future: Future[_T] = Future()
        with self._lock:
            if self._is_ended:
                future.cancel()
                return future
            self._num_idle -= 1
            try:
                self._begin_threads()
            except RuntimeError as error:
                self._num_idle += 1
                future.set_exception(error)
                return future
            self._jobs.put((future, work))
        return future

    async def run(self, work: Callable[[], _T]) -> _T:
        """Have it done, and wait for it in an event loop; when that is cancelled, a call that has begun goes on."""
        future = self.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            with self._lock:
                if future.running():
                    self._lost.add(future)
                    self._begin_threads()
            raise

    def end(self, *, finish_seconds: float = 0.0) -> None:
        """Let the threads end after what they do; what has not begun is cancelled.

        Args:
            finish_seconds: To begin, and end, everything that was submitted: it is waited for so long.
        """
        with self._lock:
            self._is_ended = True
            threads, self._threads = self._threads, []
        if finish_seconds <= 0:
            self._cancel_waiting()
        for _ in threads:
            self._jobs.put(None)
        deadline = time.monotonic() + finish_seconds
        for thread in threads if finish_seconds > 0 else ():
            if thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0))
        if finish_seconds > 0:
            self._cancel_waiting()
            for _ in threads:
                self._jobs.put(None)

    def _cancel_waiting(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job[0].cancel()

    def _begin_threads(self) -> None:
        """Under the lock."""
        most = self._num_threads + min(len(self._lost), _MAX_LOST)
        while self._num_idle < 0 and len(self._threads) < most and not self._is_ended:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more
                if not self._threads:
                    raise
                return
            self._threads.append(thread)
            self._num_idle += 1

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            future, work = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001 - it is for whoever waits
                    future.set_exception(error)
            with self._lock:
                self._num_idle += 1
                self._lost.discard(future)
            del job, future, work
