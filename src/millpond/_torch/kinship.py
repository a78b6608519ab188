"""What makes a worker one of multiprocessing's family, whoever started it."""

from __future__ import annotations

from multiprocessing import process, resource_tracker
from multiprocessing.reduction import DupFd
from typing import Any


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


def _tracker() -> Any:
    return resource_tracker._resource_tracker
