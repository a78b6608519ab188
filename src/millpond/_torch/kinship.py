"""What makes a worker one of multiprocessing's family, whoever started it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from multiprocessing import process, resource_tracker
from multiprocessing.reduction import DupFd
from typing import Any

from millpond._workers.zygote import has_pidfd


class Kinship:
    """To be pickled for a worker, before what is sent to it; unpickling it is all that the worker has to do.

    The worker gets the training process's key, with which it may talk to managers and listeners of that, and its
    resource tracker, if it has one. A worker that opened shared memory by name would else start a tracker of its own,
    which removes that memory when the worker ends.
    """

    def __reduce__(self) -> Any:
        tracker = _tracker()._fd
        passed = None if tracker is None else DupFd(tracker)
        return _adopt, (bytes(process.current_process().authkey), passed)


def _adopt(authkey: bytes, tracker: Any) -> None:
    process.current_process().authkey = authkey
    if tracker is not None and _tracker()._fd is None:
        _tracker()._fd = tracker.detach()


@dataclass(frozen=True, slots=True)
class Introduction:
    """What multiprocessing tells its own processes of the one that wants them; a zygote's are told by this.

    Attributes:
        parent_pid: Of the training process.
        arguments: Of its program.
    """

    parent_pid: int
    arguments: list[str]

    @classmethod
    def of_this_process(cls) -> Introduction:
        """For its workers."""
        return cls(os.getpid(), list(sys.argv))

    def be_known(self, name: str) -> None:
        """In a worker, once: the program's arguments, its name, and that it has a parent, as in any child."""
        process.current_process().name = name
        if process.parent_process() is None:
            sys.argv[:] = self.arguments
            if has_pidfd():
                parent = process._ParentProcess("MainProcess", self.parent_pid, os.pidfd_open(self.parent_pid))  # type: ignore[attr-defined]
                process._parent_process = parent  # type: ignore[attr-defined]


def _tracker() -> Any:
    return resource_tracker._resource_tracker
