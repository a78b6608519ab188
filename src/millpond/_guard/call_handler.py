"""What a guard's workers do: unpack a call, run it, pack its result."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from millpond._guard.adoption import Adopter
from millpond._guard.calls import pack_result, unpack_function
from millpond._guard.functions import running
from millpond._guard.parcels import unpack
from millpond._guard.slot_file import SlotFile
from millpond._guard.slot_writer import SlotWriter
from millpond._media.heap import keep_freed_memory

_HEAD = struct.Struct("<qI")  # slot, bytes of the surroundings that follow
NO_SLOT = -1


def pack_task(slot: int, surroundings: bytes, message: bytes) -> bytes:
    """A task for `CallHandler`: the call's slot, what changed around it (see `adoption`), its parcel's message."""
    return b"".join((_HEAD.pack(slot, len(surroundings)), surroundings, message))


class CallHandler:
    """Runs calls; its results lie in the slot that came with the call, where they are large."""

    def attach(self, descriptors: Sequence[int], worker_index: int) -> None:
        """In the worker, once: `descriptors` is the file of slots, or nothing."""
        keep_freed_memory()  # results are copied out of the heap, and their pages serve the next one
        self._file = SlotFile(descriptors[0]) if descriptors else None
        self._adopter = Adopter()

    def __call__(self, payload: bytes, progress: Callable[[], None]) -> bytes:
        """One call, whose time counts from when it is unpacked (see `TaskLimits.begin_timeout_seconds`)."""
        slot, size = _HEAD.unpack_from(payload)
        self._adopter.adopt(payload[_HEAD.size : _HEAD.size + size])
        function, args, kwargs = self._unpack(slot, memoryview(payload)[_HEAD.size + size :])
        running.append(function)
        progress()
        try:
            result = function(*args, **kwargs)
        finally:
            running.pop()
        return self._pack(slot, result, function)

    def _unpack(self, slot: int, message: memoryview) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        reader = None if self._file is None or slot == NO_SLOT else _ArgumentReader(self._file, slot)
        try:
            function, args, kwargs = unpack(message, reader)
            return unpack_function(function), args, kwargs
        except Exception as error:
            error.add_note("raised in the worker while the call was unpickled: the function did not begin")
            raise

    def _pack(self, slot: int, result: object, function: Callable[..., Any]) -> bytes:
        parcel = pack_result(result, function)
        if self._file is None or slot == NO_SLOT:
            return parcel.send()
        return parcel.send(SlotWriter(partial(self._file.mapping, slot)))


class _ArgumentReader:
    """Reads arguments out of the slot, to which the result is written after that; see `parcels.SlotReader`."""

    def __init__(self, file: SlotFile, slot: int) -> None:
        self._file = file
        self._slot = slot

    def view(self, start: int, stop: int) -> memoryview | bytearray:
        """A part, to be read at once."""
        return self._file.view(self._slot, start, stop)

    def take(self, parts: Sequence[tuple[int, int]]) -> list[bytearray]:
        """Parts that stay, as long as the function likes."""
        return [bytearray(self.view(*part)) for part in parts]
