"""What goes between the iterator and its workers: tasks and answers.

An answer is a head, the state of an iterable dataset (opaque here), and a parcel, of which large parts lie in the slot.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import cloudpickle

NO_SLOT = -1
NO_BATCH = -1
"""As the turn of a task: just be ready."""
_PLAIN_TYPES = frozenset((str, int, float, bool, type(None)))


class FetchTask(NamedTuple):
    """One batch for a worker to make.

    Attributes:
        epoch: Of the iterator, from 0; workers that live on begin their dataset anew with each.
        turn: How many batches of this seat there were before it, in this epoch; or NO_BATCH.
        slot: Where it goes; NO_SLOT: into the answer.
        limit_bytes: Most bytes of it; None: any.
        indices: As the sampler gave them.
        left_out: Places in it that are not fetched.
        one_by_one: Not by `__getitems__`.
        place: Where an iterable dataset goes on, if the worker is not there: see `Place`.
        shared_seed: Of this epoch, for datapipes; None: the one that the iterator began with.
    """

    epoch: int
    turn: int
    slot: int = NO_SLOT
    limit_bytes: int | None = None
    indices: Any = None
    left_out: tuple[int, ...] = ()
    one_by_one: bool = False
    place: Place | None = None
    shared_seed: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an iterable dataset of one worker is.

    Attributes:
        turn: Batches before it.
        state: Of its fetcher, as the worker packed it; None: the dataset cannot tell, and is gone through from
            its start.
    """

    turn: int
    state: bytes | None = None


class Kind(IntEnum):
    """What an answer is, and the value of its parcel."""

    BATCH = 1  # Batch
    EXHAUSTED = 2  # an iterable dataset has ended; what was left out, as in Batch
    ERROR = 3  # Trouble
    READY = 4  # set up; None
    OUT_OF_PLACE = 5  # an iterable dataset in a new worker, and nothing was done; None


class Batch(NamedTuple):
    """What a worker made.

    Attributes:
        data: What the collate function returned; None without samples.
        num_samples: In it.
        bad: What was left out: place among the indices, and the error as `messages.encode_error` packs it.
        is_left_out: Whether no sample of it is left.
    """

    data: Any
    num_samples: int
    bad: list[tuple[int, bytes]]
    is_left_out: bool


class Trouble(NamedTuple):
    """What the user's code raised.

    Attributes:
        wrapper: torch's ExceptionWrapper.
        error: The error itself, as `messages.encode_error` packs it.
    """

    wrapper: Any
    error: bytes


class Answer(NamedTuple):
    """An answer taken apart; `message` is of the parcel."""

    kind: Kind
    state: bytes | None
    message: memoryview


_HEAD = struct.Struct("<BI")


def pack_answer(kind: Kind, message: bytes, state: bytes | None = None) -> bytes:
    """An answer as bytes."""
    return b"".join((_HEAD.pack(kind, len(state or b"")), state or b"", message))


def unpack_answer(answer: bytes) -> Answer:
    """Its parts; the parcel is as it was."""
    kind, size = _HEAD.unpack_from(answer)
    stop = _HEAD.size + size
    return Answer(Kind(kind), answer[_HEAD.size : stop] or None, memoryview(answer)[stop:])


def pack_task(task: FetchTask) -> bytes:
    """A task as bytes; by value what is from `__main__`."""
    indices = task.indices
    is_plain = type(indices) in _PLAIN_TYPES or (type(indices) is list and _PLAIN_TYPES.issuperset(map(type, indices)))
    dumps: Callable[..., bytes] = pickle.dumps if is_plain and task.place is None else cloudpickle.dumps
    return dumps(tuple(task), protocol=5)


def unpack_task(payload: bytes) -> FetchTask:
    """The task."""
    return FetchTask(*pickle.loads(payload))
