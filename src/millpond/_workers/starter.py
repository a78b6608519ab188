"""What starts workers: a zygote, or a start method of multiprocessing."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker that was asked for: its task socket, and the socket on which its pid and its end are reported.

    The caller closes both.
    """

    channel: socket.socket
    report: socket.socket


class Starter(Protocol):
    """Starts workers when asked to, and reports their pids and ends as `zygote_process.REPORT` says."""

    @property
    def pid(self) -> int | None:
        """Of the process that forks workers, where it is ours."""

    @property
    def was_shut_down(self) -> bool:
        """Whether `millpond.shutdown()` has ended it: its workers are gone, and no more can be had."""

    def spawn(self, descriptors: list[int]) -> Spawned:
        """Ask for a worker.

        Args:
            descriptors: What the worker gets after its task socket (see `child`); the caller keeps its own.

        Raises:
            ClosedError: It was shut down.
            WorkerDied: It is dead.
            OSError: No process or descriptor is to be had.
        """

    def resume(self) -> None:
        """A worker is gone, or is to go: see to it that this is reported soon, whatever state this starter is in."""

    def release(self) -> None:
        """A supervisor has let go of its workers, by closing their sockets: those that are left end now."""

    def failure(self) -> Exception | None:
        """Why no worker will ever become ready; None if one may."""

    def doing(self) -> str:
        """What holds up a worker that is not ready, as far as it is known: "the zygote was importing torch"."""

    def give_up(self) -> None:
        """It has a `failure`; whoever wants workers next gets another starter."""
