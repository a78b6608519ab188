"""Chunks on this machine: a thread and a keeper for each that runs at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from millpond._sweep.cancel import Cancel
from millpond._sweep.chunk_run import run_chunk
from millpond._sweep.keeper import Keeper
from millpond._sweep.orders import ChunkOrder, ChunkOutcome, Look
from millpond.errors import ClosedError


class LocalEngine:
    """An `Engine`.

    Args:
        parallel: Chunks at a time.
        keep: Descriptors that stay open until every process of every chunk is gone, also if this process is killed.
        looked: Called with a chunk's number and a look at it, in any thread.
        printed: Called with a chunk's number and a piece of its output, in any thread; None where nobody listens.
    """

    def __init__(
        self,
        parallel: int,
        *,
        keep: Sequence[int] = (),
        looked: Callable[[int, Look], None] | None = None,
        printed: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._parallel = parallel
        self._keep = tuple(keep)
        self._looked, self._printed = looked, printed
        self._cancel = Cancel()
        self._orders: queue.SimpleQueue[tuple[ChunkOrder, Future[ChunkOutcome]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    @property
    def capacity(self) -> int:
        """As `parallel`."""
        return self._parallel

    def submit(self, orders: Sequence[ChunkOrder]) -> list[Future[ChunkOutcome]]:
        """See `Engine`."""
        if self._is_closed:
            raise ClosedError("this engine has been closed")
        futures = [Future[ChunkOutcome]() for _ in orders]
        for order, future in zip(orders, futures, strict=True):
            self._orders.put((order, future))
            if len(self._threads) < self._parallel:
                self._add_thread()
        return futures

    def _add_thread(self) -> None:
        name = f"millpond-sweep-{len(self._threads)}"
        self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
        self._threads[-1].start()

    def _serve(self) -> None:
        """Run one order after the other; a keeper that was lost is replaced."""
        keeper: Keeper | None = None
        try:
            while (given := self._orders.get()) is not None:
                order, future = given
                if not future.set_running_or_notify_cancel():
                    continue
                if keeper is not None and not keeper.is_alive:
                    keeper.close()
                    keeper = None
                try:
                    keeper = keeper or Keeper(self._keep)
                    future.set_result(self._run(order, keeper))
                except BaseException as error:  # noqa: BLE001 - who waits for the future is to see it
                    future.set_exception(error)
        finally:
            if keeper is not None:
                keeper.close()

    def _run(self, order: ChunkOrder, keeper: Keeper) -> ChunkOutcome:
        looked = None if self._looked is None else partial(self._looked, order.number)
        printed = None if self._printed is None else partial(self._printed, order.number)
        return run_chunk(order, keeper, cancel=self._cancel, looked=looked, printed=printed)

    def cancel(self, number: int) -> None:
        """See `Engine`."""
        self._cancel.request(number)

    def kill(self) -> None:
        """See `Engine`."""
        self._cancel.kill()

    def handles(self) -> Mapping[int, str]:
        """None: chunks end with this process."""
        return {}

    def abandon(self, handles: Sequence[str]) -> None:
        """Nothing is left of a sweep that was killed."""

    def close(self) -> None:
        """See `Engine`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._cancel.kill()
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()
        self._cancel.close()
