"""What goes over the task socket: frames of a 16-byte header and a pickled body.

Objects are pickled with cloudpickle, both ways: what was defined in the user's `__main__` travels by value, because
no worker ever imports that.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import traceback
from dataclasses import dataclass
from typing import Any, NamedTuple

import cloudpickle

from millpond._workers.surroundings import Surroundings
from millpond.errors import RemoteError

# To the worker.
START, TASK, END = 1, 2, 3
# From the worker.
READY, RESULT, ERROR, UNUSABLE = 16, 17, 18, 19
# From the zygote, on its control socket: what it does, that it forks from now on, why it cannot.
NOTE, WARM, FAILED = 32, 33, 34

_HEADER = struct.Struct("<BxxxIQ")
_CHUNK_BYTES = 65536
# Above this a body is sent and received in place; below, one copy is cheaper than a second system call.
_LARGE_BYTES = 32768


class Frame(NamedTuple):
    """One message: its kind, the serial of the task it is about (0: none), its body."""

    kind: int
    serial: int
    body: bytes | bytearray


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a worker: what to run, and the surroundings to run it in.

    `worker_index` is its place, of `num_places`; with `reports_memory` it tells its anonymous memory after each task.
    """

    worker_index: int
    num_places: int
    reports_memory: bool
    handler: bytes
    surroundings: Surroundings


def encode(value: object) -> bytes:
    """Pickle a value, by value where it comes from `__main__`."""
    if type(value) is bytes:  # what a caller has packed already
        return pickle.dumps(value, protocol=5)
    data: bytes = cloudpickle.dumps(value, protocol=5)
    return data


def decode(body: bytes | bytearray) -> Any:
    """The value that was encoded."""
    return pickle.loads(body)


def pack(kind: int, serial: int = 0, body: bytes = b"") -> list[bytes]:
    """A frame as the buffers to send, in order."""
    header = _HEADER.pack(kind, serial, len(body))
    return [header, body] if len(body) > _LARGE_BYTES else [header + body]


class Inbox:
    """Takes the bytes that come over a socket apart into frames. The socket may be blocking or not.

    Attributes:
        received_bytes: So far.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._large: tuple[int, int, bytearray] | None = None  # kind, serial, body
        self._filled = 0
        self.received_bytes = 0

    @property
    def is_amid_frame(self) -> bool:
        """Whether a frame has begun to come, and not ended."""
        return self._large is not None or bool(self._rest)

    def receive(self) -> list[Frame]:
        """One receive call; the frames that are complete now, possibly none.

        Raises:
            EOFError: The other end is closed. What it sent before was returned by earlier calls.
            BlockingIOError: Nothing is there, on a non-blocking socket.
        """
        if self._large is not None:
            return self._receive_large(*self._large)
        data = self._sock.recv(_CHUNK_BYTES)
        if not data:
            raise EOFError
        self.received_bytes += len(data)
        return self._split(self._rest + data if self._rest else data)

    def _receive_large(self, kind: int, serial: int, body: bytearray) -> list[Frame]:
        received = self._sock.recv_into(memoryview(body)[self._filled :])
        if not received:
            raise EOFError
        self._filled += received
        self.received_bytes += received
        if self._filled < len(body):
            return []
        self._large = None
        return [Frame(kind, serial, body)]

    def _split(self, data: bytes) -> list[Frame]:
        frames = []
        at, size = 0, len(data)
        while size - at >= _HEADER.size:
            kind, serial, length = _HEADER.unpack_from(data, at)
            start = at + _HEADER.size
            if start + length > size:
                if length > _LARGE_BYTES:
                    self._begin_large(kind, serial, length, data[start:])
                    at = size
                break
            frames.append(Frame(kind, serial, data[start : start + length]))
            at = start + length
        self._rest = data[at:]
        return frames

    def _begin_large(self, kind: int, serial: int, length: int, head: bytes) -> None:
        body = bytearray(length)
        body[: len(head)] = head
        self._large, self._filled = (kind, serial, body), len(head)


def encode_error(error: BaseException) -> bytes:
    """An exception of a worker, with its traceback and, if it pickles, itself."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - the user's own __str__ or __notes__ may raise anything
        text = "".join(traceback.format_tb(error.__traceback__))
    try:
        pickled = encode(error)
    except BaseException:  # noqa: BLE001 - the user's own __reduce__ may raise anything
        pickled = None
    return pickle.dumps((type(error).__qualname__, _text_of(error), text, pickled), protocol=5)


def decode_error(body: bytes | bytearray) -> Exception:
    """The exception as itself with the worker's traceback as a note; RemoteError where it does not unpickle.

    What would end the interpreter (SystemExit, KeyboardInterrupt) also comes as a RemoteError: data must not be lost
    with exit code 0.
    """
    type_name, text, traceback_text, pickled = pickle.loads(body)
    note = f"traceback in the worker:\n{traceback_text.rstrip()}"
    with contextlib.suppress(Exception, SystemExit):  # the user's own methods may raise anything
        error = pickle.loads(pickled) if pickled is not None else None
        if isinstance(error, Exception):
            error.add_note(note)
            return error
    message = f"{type_name} in a worker: {text} (it cannot travel between processes; its traceback is below)"
    remote = RemoteError(message, type_name=type_name, text=text, traceback_text=traceback_text)
    remote.add_note(note)
    return remote


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - the user's own __str__ may raise anything
        return "(its __str__ raises)"
