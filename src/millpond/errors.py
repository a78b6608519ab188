"""The whole error tree, sorted by what the caller does next.

::

    MillpondError
      DataError              this sample is bad: skip it, or mend the data
        CorruptMedia         bytes that do not decode, or not to what the tables promise
        ObjectMissing        no such file or object            (also FileNotFoundError)
        FrameTimestampError  no frame within the tolerance of the time asked for (also ValueError, as LeRobot's)
        FetchError           an object that cannot be had: refused, or gone for good
      UnsupportedFormat      a layout or version we do not read (also ValueError)
      DeadlineExceeded       skip it, or raise the limit       (also TimeoutError)
        FetchTimeout         (also DataError)
        DecodeTimeout
        BatchTimeout         a batch of the drop-in DataLoader      (also RuntimeError)
      TooManyErrors          mend the data, or allow for more
      WorkerDied             the restart budget decides      (also RuntimeError)
      JobFailed              a job of a sweep: mend it, and resume
      ArenaFull              hold fewer batches, or give more memory
        EpisodeTooLarge      take fewer cameras at once, or raise max_bytes (also ValueError)
      RemoteError            an exception of user code in a worker that does not unpickle (also RuntimeError)
      UsageError             a call that cannot work in this state (also RuntimeError)
        ClosedError          used after close
      InternalError          our bug: please report it

Misuse is ValueError or TypeError at construction. Every message says what failed, on which item, the limit against
the actual value, and what was done; the same facts are attributes. Every class survives pickle.
"""

from __future__ import annotations

from typing import Any, TypeVar


def _rebuild(cls: type[MillpondError], message: str, facts: dict[str, Any], notes: list[str]) -> MillpondError:
    error = cls(message, **facts)
    for note in notes:
        error.add_note(note)
    return error


class MillpondError(Exception):
    """The base of every error that millpond raises on purpose.

    Args:
        message: The whole sentence that the user reads.
        **facts: The same facts by name; each becomes an attribute, and survives pickle.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def message(self) -> str:
        """The sentence without the facts."""
        return str(self.args[0])

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.facts, list(getattr(self, "__notes__", ())))


class DataError(MillpondError):
    """This sample is bad. Facts, where known: path, episode, camera, frame."""


class CorruptMedia(DataError):
    """Media that does not decode, or not to what its tables promise."""


class ObjectMissing(DataError, FileNotFoundError):
    """No object at this path."""


class FrameTimestampError(DataError, ValueError):
    """No frame lies within the tolerance of the time asked for."""


class FetchError(DataError):
    """An object that is not to be had: refused, or failing after every try. Facts: path, tries, status where known."""


class UnsupportedFormat(MillpondError, ValueError):
    """A layout or version that millpond does not read."""


class DeadlineExceeded(MillpondError, TimeoutError):
    """A limit passed. Facts: limit_seconds, elapsed_seconds."""


class FetchTimeout(DeadlineExceeded, DataError):
    """Bytes did not come in time. Facts: path, tries, limit_seconds, elapsed_seconds."""


class DecodeTimeout(DeadlineExceeded):
    """A decode did not end, or made no progress, in time."""


class BatchTimeout(DeadlineExceeded, RuntimeError):
    """A batch did not come in time, as torch's DataLoader has it. Facts: worker_id, stack."""


class TooManyErrors(MillpondError):
    """More samples were skipped than `max_errors` allows. Facts: skipped, limit, epoch; its cause is the last error."""


class WorkerDied(MillpondError, RuntimeError):
    """A worker ended by itself; a RuntimeError as with torch's DataLoader. Facts: pid, exit_code, signal_name, task."""


class JobFailed(MillpondError):
    """A job of a sweep failed, and the sweep was to stop. Facts: job, chunk, folder, exit_code."""


class ArenaFull(MillpondError):
    """More memory is wanted than the budget has. Facts: wanted_bytes, free_bytes, holders."""


class EpisodeTooLarge(ArenaFull, ValueError):
    """Bytes that have no room even in an empty cache. Facts: wanted_bytes, free_bytes, holders, episode."""


class RemoteError(MillpondError, RuntimeError):
    """An exception in a worker that could not travel. Facts: type_name, text, traceback_text."""


class UsageError(MillpondError, RuntimeError):
    """A call that cannot work in this state: in a forked child, beside another iterator, ..."""


class ClosedError(UsageError):
    """Used after close."""


class InternalError(MillpondError):
    """A bug in millpond."""


ErrorT = TypeVar("ErrorT", bound=MillpondError)


def without_frames(error: ErrorT) -> ErrorT:
    """The same error and causes, without their tracebacks: what is kept, or was given up, keeps no frames alive.

    A frame that holds the error that passed it is a cycle, and holds what its callers do, batches too, until garbage is
    collected.
    """
    one: BaseException | None = error
    passed: list[BaseException] = []
    while one is not None and one not in passed:
        passed.append(one)
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error


def retold(error: ErrorT, prefix: str, **facts: Any) -> ErrorT:
    """The same error told of one item: its class, its message behind a prefix, its notes, its cause, more facts."""
    told = type(error)(f"{prefix}: {error.message}", **{**error.facts, **facts})
    told.__cause__ = error.__cause__
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
