"""What travels between caller and worker: a pickle with the buffers of its arrays beside it.

A parcel becomes a message, and what is large of it lies in a slot: buffers, each on a cache line's boundary, and last
the pickle itself if it is large, too. The message says where. Where there is no slot, all is in the message.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from millpond._guard.by_value import ByValuePickler
from millpond._guard.reducers import is_plain, reducers
from millpond._guard.slot_writer import SlotWriter

LARGE_BYTES = 32 << 10
"""Buffers and pickles of this size and more lie in the slot: a call with a result of 16 KiB took 149 us by message and
160 by slot, with one of 32 KiB 165 and 162, and much beyond that a socket does not hold a message as a whole. Less than
64 KiB, from which on pickle writes buffers as objects without a length."""
_HEAD = struct.Struct("<II")  # flags, number of parts
_PICKLE_IS_A_PART, _PARTS_IN_MESSAGE, _IS_ARRAY = 1, 2, 4


class SlotReader(Protocol):
    """The receiver's side of a slot. Parts are (start, stop) in bytes."""

    def view(self, start: int, stop: int) -> Any:
        """A part as a buffer that is read at once."""

    def take(self, parts: Sequence[tuple[int, int]]) -> Sequence[Any]:
        """Parts as writable buffers that stay."""


@dataclass(slots=True)
class Parcel:
    """A pickled value: the pieces of the pickle, and the buffers beside it.

    `is_array`: the value is one array, and the pickle just says what kind of array the buffer is.
    """

    pieces: list[Any]
    buffers: list[memoryview]
    is_array: bool = False

    def detach(self) -> None:
        """Copy what is the caller's, who may change it before the parcel is sent."""
        self.buffers = [memoryview(bytes(buffer)) for buffer in self.buffers]
        self.pieces = [bytes(piece) for piece in self.pieces]

    def send(self, slot: SlotWriter | None = None) -> bytes:
        """Put what is large into the slot; the message for the rest.

        Args:
            slot: None where there is none.

        Raises:
            ArenaFull: The slot's limit does not allow for it.
        """
        is_large = sum(map(len, self.pieces)) >= LARGE_BYTES
        if not is_large and not self.buffers:
            return b"".join((_HEAD.pack(0, 0), *self.pieces))
        if slot is not None:
            with contextlib.suppress(OSError):  # no room for the mapping
                return self._send_by_slot(slot, is_large)
        parts, at = [], 0
        for buffer in self.buffers:
            parts.append((at, at + buffer.nbytes))
            at += buffer.nbytes
        return b"".join((self._head(_PARTS_IN_MESSAGE, parts), *self.buffers, *self.pieces))

    def _send_by_slot(self, slot: SlotWriter, is_large: bool) -> bytes:
        parts = [slot.put((buffer,)) for buffer in self.buffers]
        if not is_large:
            return b"".join((self._head(0, parts), *self.pieces))
        parts.append(slot.put(self.pieces))
        return self._head(_PICKLE_IS_A_PART, parts)

    def _head(self, flags: int, parts: Sequence[tuple[int, int]]) -> bytes:
        ends = itertools.chain.from_iterable(parts)
        return _HEAD.pack(flags | self.is_array * _IS_ARRAY, len(parts)) + struct.pack(f"<{2 * len(parts)}Q", *ends)


def pack(value: object, *, by_value: bool) -> Parcel:
    """Pickle a value.

    Args:
        value: Anything.
        by_value: What comes from `__main__`, and what has no name to be imported by, travels by value.

    Raises:
        Exception: It does not pickle; whatever its own methods raise.
    """
    if type(value) is np.ndarray and value.nbytes >= LARGE_BYTES and is_plain(value):
        kind = pickle.dumps((value.dtype.str, value.shape, value.flags.writeable), 5)
        return Parcel([kind], [memoryview(value).cast("B")], is_array=True)  # type: ignore[arg-type]
    file = Pieces()
    buffers: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        """For pickle: whether a buffer is to be in the pickle."""
        raw = buffer.raw()
        if raw.nbytes < LARGE_BYTES:
            return True
        buffers.append(raw)
        return False

    if by_value:
        ByValuePickler(file, is_small).dump(value)
    else:
        pickler = pickle.Pickler(file, 5, buffer_callback=is_small)
        pickler.dispatch_table = reducers()
        pickler.dump(value)
    return Parcel(file, buffers)


def unpack(message: bytes | memoryview, reader: SlotReader | None = None) -> Any:
    """The value of a parcel's message.

    Args:
        message: What `Parcel.send` returned.
        reader: Of the slot; None where there is none.
    """
    message = memoryview(message)
    flags, count = _HEAD.unpack_from(message)
    if not count:
        return pickle.loads(message[_HEAD.size :])
    ends = struct.unpack_from(f"<{2 * count}Q", message, _HEAD.size)
    parts = list(zip(ends[::2], ends[1::2], strict=True))
    rest = message[_HEAD.size + 16 * count :]
    buffers: Sequence[Any]
    if flags & _PARTS_IN_MESSAGE or reader is None:
        data, buffers = rest[parts[-1][1] :], [bytearray(rest[start:stop]) for start, stop in parts]
    else:
        data = reader.view(*parts.pop()) if flags & _PICKLE_IS_A_PART else rest
        buffers = reader.take(parts) if parts else ()
    if flags & _IS_ARRAY:
        dtype, shape, is_writeable = pickle.loads(data)
        return _make_array(buffers[0], dtype, shape, is_writeable)
    return pickle.loads(data, buffers=buffers)


def _make_array(buffer: Any, dtype: str, shape: tuple[int, ...], is_writeable: bool) -> NDArray[Any]:
    array: NDArray[Any] = np.ndarray(shape, dtype, buffer)
    if not is_writeable:
        array.flags.writeable = False
    return array


class Pieces(list[Any]):
    """A file for a pickler that keeps large objects as they are, instead of copying them into one stream."""

    write = list.append
