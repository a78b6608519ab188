"""The service itself: lease a job, load, look, hand in; `python -m examples.queue_worker` runs it.

It leases a job, loads the images of its tasks, looks at them and hands in an outcome for each.

It keeps no state that matters: what it has not handed in is the queue's again when its lease ends. So it may be killed
at any moment, and when it goes in good order (a signal, too much memory) it only saves the others the wait.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any

import httpx

import millpond
from examples.queue_worker.client import Job, QueueClient
from examples.queue_worker.images import ImageBatch, TaskImages, collate
from examples.queue_worker.memory import private_bytes
from examples.queue_worker.settings import WorkerSettings
from examples.queue_worker.stopping import is_told_to_stop
from examples.queue_worker.vision import Vision
from millpond.torch import DataLoader

_log = logging.getLogger("queue_worker")
_LIFE = "QUEUE_WORKER_LIFE"


class Service:
    """Serves jobs until it is told to drain, or has grown too large.

    Args:
        settings: Of it.
        queue: Where jobs are leased.

    Attributes:
        name: In every outcome: host, process, and which of its lives.

    Raises:
        ValueError: The memory limit leaves no room for a job.
    """

    def __init__(self, settings: WorkerSettings, queue: QueueClient) -> None:
        self._settings, self._queue = settings, queue
        self._vision = Vision()
        self._leaked: list[bytes] = []
        self.name = f"{socket.gethostname()}-{os.getpid()}.{_life()}"
        self._require_room()

    @property
    def is_too_large(self) -> bool:
        """Whether its private memory is beyond the limit."""
        return private_bytes() > self._settings.memory_limit

    def run(self) -> None:
        """Serve. Returns with no lease held, and no loader open."""
        while not self._is_ending():
            try:
                job = self._queue.lease(
                    self._settings.tasks_per_job,
                    self._settings.lease_seconds,
                    wait_seconds=self._settings.poll_seconds,
                )
                if job is not None:
                    self._serve(job)
            except httpx.HTTPError as error:  # a lease that it could not give back ends by itself
                _log.warning("the queue cannot be reached: %s", error)

    def _serve(self, job: Job) -> None:
        """Go through one job. What is left of it, for whatever reason, goes back to the queue."""
        counts = False
        try:
            if not is_told_to_stop():
                self._load_and_look(job)
        except httpx.HTTPError:
            raise
        except Exception:  # noqa: BLE001 - the job or a bug is to blame: the service goes on, and it was an attempt
            _log.exception("a job of %d tasks failed", len(job["tasks"]))
            counts = True
        released = self._queue.release(job["lease"], counts=counts)
        _log.info("served a job of %d tasks, gave back %d", len(job["tasks"]), released)

    def _load_and_look(self, job: Job) -> None:
        """Hand in outcomes as they come, and an error for each task that the loader left out."""
        open_positions = set(range(len(job["tasks"])))
        with _loader(job, self._settings) as loader:
            for batch in loader:
                outcomes = self._outcomes(batch)
                del batch  # its memory is the loader's again
                open_positions -= set(outcomes)
                if not self._hand_in(job, outcomes) or self._is_ending():
                    return
        if not open_positions:
            return
        message = f"the loader worker that tried it died or hung, twice; {self._settings.quarantine} has the stack"
        self._hand_in(job, {position: _error("left_out", message) for position in sorted(open_positions)})

    def _outcomes(self, batch: ImageBatch) -> dict[int, dict[str, Any]]:
        """By position in the job: a result, or an error."""
        found = self._vision.look(batch["images"])
        outcomes: dict[int, dict[str, Any]] = {
            int(position): {"result": {"objects": objects}}
            for position, objects in zip(batch["positions"], found, strict=True)
        }
        for position, kind, message in batch["errors"]:
            outcomes[position] = _error(kind, message)
        if self._settings.leak_per_task:
            self._leaked += [b"x" * self._settings.leak_per_task for _ in outcomes]
        return outcomes

    def _hand_in(self, job: Job, outcomes: dict[int, dict[str, Any]]) -> int:
        """Hand in, which renews the lease. Returns how many tasks it still holds."""
        named = [
            {"id": job["tasks"][position]["id"], "worker": self.name, **outcome}
            for position, outcome in outcomes.items()
        ]
        return self._queue.finish(job["lease"], named, self._settings.lease_seconds)

    def _is_ending(self) -> bool:
        return is_told_to_stop() or self.is_too_large

    def _require_room(self) -> None:
        """A limit below what it needs to begin would have it begin for ever."""
        if self.is_too_large:
            raise ValueError(
                f"QUEUE_WORKER_MEMORY_LIMIT is {self._settings.memory_limit >> 20} MiB, and the service has "
                f"{private_bytes() >> 20} MiB before its first job: raise the limit"
            )


def _loader(job: Job, settings: WorkerSettings) -> DataLoader:
    """One per job. A task that ends its worker twice is left out: the others of its batch come."""
    return DataLoader(
        TaskImages(job["tasks"], settings.image_timeout_seconds, settings.max_image_bytes),
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        collate_fn=collate,
        timeout=settings.batch_timeout_seconds,
        stall_timeout=settings.stall_timeout_seconds,
        on_error="skip",
        quarantine=settings.quarantine,
    )


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message}}


def _life() -> int:
    """1, and one more each time that this process began anew."""
    return int(os.environ.get(_LIFE, "1"))


def begin_anew() -> None:
    """Become a fresh process under the same number."""
    millpond.shutdown()
    os.environ[_LIFE] = str(_life() + 1)
    os.execv(sys.executable, sys.orig_argv)


def main() -> None:
    """Serve until a signal ends it; begin anew when there is too much memory."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    settings = WorkerSettings()
    with QueueClient(settings.queue_url) as queue:
        service = Service(settings, queue)
        _log.info("%s serves %s", service.name, settings.queue_url)
        service.run()
    if is_told_to_stop():
        _log.info("%s ends: it was told to", service.name)
        return
    _log.info("%s begins anew: %d MiB, limit %d MiB", service.name, private_bytes() >> 20, settings.memory_limit >> 20)
    begin_anew()
