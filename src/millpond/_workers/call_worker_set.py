"""The workers of calls, which the main thread drives itself, where a signal handler may raise at any moment."""

from __future__ import annotations

from functools import partial

from millpond._workers.undisturbed import undisturbed
from millpond._workers.worker import Worker
from millpond._workers.worker_set import WorkerSet


class CallWorkerSet(WorkerSet):
    """Opens and closes the descriptors of workers undisturbed. What is sent to them and read from them is not."""

    def spawn(self, handler: bytes | None = None) -> Worker:
        return undisturbed(partial(super().spawn, handler))

    def _on_report(self, worker: Worker, ready: int) -> None:
        undisturbed(partial(super()._on_report, worker, ready))

    def _on_sentinel(self, worker: Worker, ready: int) -> None:
        undisturbed(partial(super()._on_sentinel, worker, ready))

    def _on_channel_end(self, worker: Worker) -> None:
        undisturbed(partial(super()._on_channel_end, worker))

    def _on_due(self, worker: Worker, now: float) -> None:
        undisturbed(partial(super()._on_due, worker, now))
