"""Chunks as tasks of Ray: in a Ray of this machine's own, or on the nodes of a cluster that is there already.

Each chunk is a task with `max_calls=1`, after which Ray ends its worker: every chunk has a fresh one. Nodes of a
cluster are not taken to share a file system: an order brings its files, and metrics and output come back with the
outcome, so what a chunk has reported is lost with its worker there. Ray imports the function that a task runs by name:
every node needs millpond, of the same version.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from millpond._sweep.engines.far import cancelled, lost, run_until_signal
from millpond._sweep.orders import ChunkOrder, ChunkOutcome
from millpond.errors import ClosedError, UsageError

_LOCAL = "local"
_STORE_BYTES = 128 * 2**20
"""Of a Ray of our own, where only orders and outcomes pass through; it takes 30 % of the memory if not told."""
_ANSWER_SECONDS = 10.0
_KILLS_CHILDREN = "kill_child_processes_on_worker_exit"
"""A worker that ends kills its children first, that is the keeper, before that could kill all that is below it."""
_MOST_CHARACTERS = 42
"""Of a Ray's folder: its sockets lie up to 65 characters below, and the address of a socket has at most 107."""


class RayEngine:
    """Runs chunks as Ray's tasks.

    One of our own is started where no address is given, nor `$RAY_ADDRESS` set, and ended by `close`. A program that is
    connected already stays so. Construct it on a thread that lives as long as the engine: the kernel ends Ray's
    processes with the thread that started them.

    Args:
        address: Of a cluster, as `ray.init` takes it; "auto": one that runs on this machine.
        parallel: Chunks at a time; None: as many as the cluster has CPUs for.
        num_cpus: That Ray sets aside for a chunk. Ray also sets `$OMP_NUM_THREADS` to it, unless that is set.
        num_gpus: That Ray sets aside for a chunk, which sees no others.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: Nothing answers at the address.
        UsageError: This machine does not have what a chunk is to have.
    """

    def __init__(
        self, address: str | None = None, *, parallel: int | None = None, num_cpus: float = 1.0, num_gpus: float = 0.0
    ) -> None:
        self._ray = imported_ray()
        self._sent: dict[int, _Sent] = {}
        self._is_cancelled = self._is_closed = False
        self._folder: str | None = None
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._connect(address or os.environ.get("RAY_ADDRESS") or _LOCAL, parallel, num_cpus)
        try:
            resources = self._ray.cluster_resources()
            _check_resources(resources, {"CPU": num_cpus, "GPU": num_gpus}, is_local=self._folder is not None)
        except BaseException:
            self.close()
            raise
        self._capacity = parallel or max(1, int(resources.get("CPU", 1) / num_cpus) if num_cpus else 1)
        options: dict[str, Any] = {"max_calls": 1, "max_retries": 0, "num_cpus": num_cpus, "num_gpus": num_gpus}
        if self._folder is None:  # the setting of a cluster that is not ours; costs half a second per worker
            options["runtime_env"] = {"env_vars": {f"RAY_{_KILLS_CHILDREN}": "0"}}
        self._task = self._ray.remote(**options)(run_in_worker)

    @property
    def capacity(self) -> int:
        """Chunks that run at a time; where the cluster has no room for as many, Ray has them wait."""
        return self._capacity

    def submit(self, orders: Sequence[ChunkOrder]) -> list[Future[ChunkOutcome]]:
        """Hand chunks to Ray; see `Engine`."""
        if self._is_closed:
            raise ClosedError("this sweep's Ray has been closed")
        return [self._submit(order) for order in orders]

    def cancel(self, number: int) -> None:
        """Have Ray interrupt what runs and forget what waits; see `Engine`.

        Ray has one interruption only: a chunk's processes are sent SIGTERM, whatever `number` is.
        """
        if not self._is_cancelled:  # a second one, while the first is being handled, crashes the worker
            self._is_cancelled = True
            for sent in list(self._sent.values()):
                self._ray.cancel(sent.reference, force=False, recursive=False)

    def kill(self) -> None:
        """Have Ray kill the workers, with which keepers kill what runs below them; see `Engine`."""
        self._is_cancelled = True
        for sent in list(self._sent.values()):
            self._ray.cancel(sent.reference, force=True, recursive=False)

    def handles(self) -> Mapping[int, str]:
        """None: Ray ends the tasks of a program that is gone."""
        return {}

    def abandon(self, handles: Sequence[str]) -> None:
        """Nothing outlives a sweep."""

    def close(self) -> None:
        """Kill what runs, let go of the cluster, and end it if it is ours; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.kill()
        for sent in list(self._sent.values()):
            self._resolve(sent, partial(cancelled, sent.order, began_at=sent.at))
        if self._is_ours:
            with _handler_of_sigterm_kept():
                self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, address: str, parallel: int | None, num_cpus: float) -> None:
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
        if address == _LOCAL:
            self._folder = _new_folder()
            room = None if parallel is None else max(1, math.ceil(parallel * num_cpus))
            options |= {"num_cpus": room, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
            options |= {"_temp_dir": self._folder, "_system_config": {_KILLS_CHILDREN: False, "worker_niceness": 0}}
        try:
            _check_answers(address)
            with _handler_of_sigterm_kept():
                self._ray.init(**options)
        except OSError as error:
            raise ConnectionError(
                f"no Ray cluster answers at {address!r}: start one there with 'ray start --head', or give no address "
                "and have one started on this machine for the sweep"
            ) from error

    def _submit(self, order: ChunkOrder) -> Future[ChunkOutcome]:
        outcome: Future[ChunkOutcome] = Future()
        if self._is_cancelled:
            outcome.set_result(cancelled(order))
            return outcome
        is_here = self._folder is not None
        reference = self._task.remote(order if is_here else replace(order, work_folder=None, log_path=None))
        self._sent[order.number] = _Sent(order, reference, outcome, time.time())
        reference.future().add_done_callback(partial(self._ended, self._sent[order.number]))
        return outcome

    def _ended(self, sent: _Sent, result: Future[ChunkOutcome]) -> None:
        """On a thread of Ray's."""
        error = result.exception()
        self._resolve(sent, result.result if error is None else partial(self._without_result, sent, error))

    def _resolve(self, sent: _Sent, outcome_of: Callable[[], ChunkOutcome]) -> None:
        if self._sent.pop(sent.order.number, None) is None:  # closed meanwhile
            return
        try:
            outcome = outcome_of()
            if sent.order.log_path is not None and outcome.log:
                _append(sent.order.log_path, outcome.log)
                outcome = replace(outcome, log=b"")
        except BaseException as failure:  # noqa: BLE001 - whoever waits for this chunk must learn of it
            sent.outcome.set_exception(failure)
        else:
            sent.outcome.set_result(outcome)

    def _without_result(self, sent: _Sent, error: BaseException) -> ChunkOutcome:
        if self._is_cancelled:
            return cancelled(sent.order, began_at=sent.at)
        return lost(sent.order, reason_in_words(error), began_at=sent.at)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A chunk that Ray has.

    Attributes:
        order: As it was given to the engine.
        reference: To the task's result.
        outcome: For whoever submitted it.
        at: When, in seconds since the epoch.
    """

    order: ChunkOrder
    reference: Any
    outcome: Future[ChunkOutcome]
    at: float


def run_in_worker(order: ChunkOrder) -> ChunkOutcome:
    """Run a chunk in a worker of Ray's, which `ray.cancel` interrupts as Ctrl-C does."""
    outcome, _ = run_until_signal(order, [signal.SIGINT])
    return outcome


def reason_in_words(error: BaseException) -> str:
    """Why a chunk's task came back without an outcome."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if "failed to import on the worker" in text or "No module named 'millpond" in text:
        return (
            "the chunk's node has no millpond, or one of another version: install the one of this machine on every "
            f"node of the Ray cluster (Ray said: {text[-300:]})"
        )
    if kind == "OutOfMemoryError":
        return f"killed by Ray, whose node was nearly out of memory: {_beginning(text)}"
    if kind == "NodeDiedError":
        return f"its Ray node died: {_beginning(text)}"
    if kind == "WorkerCrashedError":
        return f"its Ray worker was killed, possibly out of memory, or its node went away: {_beginning(text)}"
    return f"Ray gave no outcome ({kind}): {_beginning(text)}"


def _beginning(text: str) -> str:
    return text if len(text) <= 300 else text[:299] + "…"


def imported_ray() -> Any:
    """The package; ImportError with the remedy where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("chunks run as tasks of Ray, which is not installed: pip install 'millpond[ray]'") from error
    return ray


def _check_resources(there: Mapping[str, float], needed: Mapping[str, float], *, is_local: bool) -> None:
    """Refuse what this machine can never run, and Ray would have wait for ever; a cluster may grow."""
    for name, amount in needed.items():
        if is_local and amount > there.get(name, 0.0):
            raise UsageError(
                f"a chunk is to have {amount:g} {name}, and Ray finds {there.get(name, 0.0):g} on this machine: "
                "ask for less, or give the address of a cluster that has them"
            )


def _check_answers(address: str) -> None:
    """Where nobody listens, Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()


def _new_folder() -> str:
    """For a Ray of our own: short enough for its sockets."""
    folder = tempfile.mkdtemp(prefix="millpond-ray-")
    if len(folder) > _MOST_CHARACTERS and os.path.isdir("/tmp"):
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="millpond-ray-", dir="/tmp")
    return folder


@contextmanager
def _handler_of_sigterm_kept() -> Iterator[None]:
    """Ray takes the handler of SIGTERM for itself, and the sweep has one."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _append(path: str, output: bytes) -> None:
    with open(path, "ab") as log:
        log.write(output)
