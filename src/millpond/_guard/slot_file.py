"""A file of slots that lives in memory: huge and sparse, one descriptor, each slot mapped when it is first used.

A slot is so wide that whatever fits into the machine fits into it; only pages that were written to take memory. Nothing
here knows what lies in a slot, nor who has it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import select
import sys
import threading
from collections.abc import Iterator

SLOT_BYTES = 1 << 40
"""A slot's width."""
_FILE_BYTES = 1 << 62
_LEAST_MAPPING_BYTES = 1 << 20
_PROT_READ_WRITE, _MAP_SHARED, _MAP_FIXED = 3, 1, 16
_FALLOC_KEEP_SIZE_PUNCH_HOLE = 3
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    _libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    _libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def create_slot_file() -> int:
    """A descriptor of a file of slots, which the caller closes.

    Raises:
        OSError: There is none here: no memfd, or a limit of file sizes (`ulimit -f`).
    """
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) < 8:
        raise OSError("files of slots need a memfd and 64-bit addresses")
    descriptor = os.memfd_create("millpond-results", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, _FILE_BYTES)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@functools.cache
def _chars(count: int) -> type[ctypes.Array[ctypes.c_char]]:
    """Kept, as there are few: a type is a cycle, which only the garbage collector ends."""
    return ctypes.c_char * count


class Mapping:
    """The first bytes of a slot in this process's memory, writable; unmapped with the last reference.

    It is no `mmap.mmap`, which costs a descriptor of its own each up to Python 3.12. `bytes` is valid only while the
    mapping is held.

    Raises:
        OSError: There is no room for it (`ulimit -v`).
    """

    __slots__ = ("address", "bytes", "size_bytes")

    def __init__(self, descriptor: int, slot: int, size_bytes: int) -> None:
        self.address: int | None = None
        address = _libc.mmap(None, size_bytes, _PROT_READ_WRITE, _MAP_SHARED, descriptor, slot * SLOT_BYTES)
        if address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot map {size_bytes} bytes of a slot: {os.strerror(number)}")
        self.address = address
        self.size_bytes = size_bytes
        self.bytes = memoryview(_chars(size_bytes).from_address(address)).cast("B")

    def detach(self, size_bytes: int) -> None:
        """Make the first bytes this process's own, at the same address, with what they hold: for who still uses them.

        Raises:
            OSError: No room.
        """
        kept = bytes(self.bytes[:size_bytes])
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        address = _libc.mmap(self.address, size_bytes, _PROT_READ_WRITE, flags, -1, 0)
        if address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot copy {size_bytes} bytes of a slot: {os.strerror(number)}")
        self.bytes[:size_bytes] = kept

    def __del__(self) -> None:
        if self.address is not None:
            _libc.munmap(self.address, self.size_bytes)


class SlotFile:
    """The slots of a file, mapped here as far as they were asked for; whoever has a slot may ask for its mapping.

    Args:
        descriptor: Of the file; owned, and closed with this object.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Closes any descriptor when it goes, in C: an interrupt that came in a `__del__` would be dropped, and what the
        # finalizer was for with it.
        self._keeper = select.epoll.fromfd(descriptor)
        self._is_closed = False
        self._mappings: dict[int, Mapping] = {}
        # Else a descriptor that is closed, and somebody else's by now, might be mapped. A finalizer may come here, too.
        self._lock = threading.RLock()

    def mapping(self, slot: int, size_bytes: int) -> Mapping:
        """At least so many bytes of a slot; the same memory as long as it is large enough.

        Raises:
            OSError: It cannot be mapped, or the file is closed.
        """
        known = self._mappings.get(slot)
        if known is not None and known.size_bytes >= size_bytes:
            return known
        # Powers of two: a slot is mapped anew only a few times. What is not touched costs addresses, no memory.
        wanted = min(SLOT_BYTES, max(_LEAST_MAPPING_BYTES, 1 << (size_bytes - 1).bit_length()))
        with self._open() as descriptor:
            mapping = self._mappings[slot] = Mapping(descriptor, slot, wanted)
        return mapping

    def read(self, slot: int, start: int, stop: int) -> bytearray:
        """A copy of a part of a slot that cannot be mapped; OSError if the file is closed."""
        data = bytearray(stop - start)
        rest = memoryview(data)
        with self._open() as descriptor:
            while rest:
                count = os.preadv(descriptor, [rest], slot * SLOT_BYTES + stop - len(rest))
                rest = rest[count:]
        return data

    def view(self, slot: int, start: int, stop: int) -> memoryview | bytearray:
        """A part of a slot, to be read at once: the slot itself, or a copy where it cannot be mapped."""
        try:
            return self.mapping(slot, stop).bytes[start:stop]
        except OSError:
            return self.read(slot, start, stop)

    def forget(self, slot: int) -> None:
        """Let go of a slot's mapping, which stays as long as somebody holds it; the next one is another."""
        self._mappings.pop(slot, None)

    def empty(self, slot: int) -> None:
        """Give all memory of a slot back to the machine, whoever has written how much to it."""
        self.forget(slot)
        with contextlib.suppress(OSError), self._open() as descriptor:
            _libc.fallocate(descriptor, _FALLOC_KEEP_SIZE_PUNCH_HOLE, slot * SLOT_BYTES, SLOT_BYTES)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        with self._lock:
            if self._is_closed:
                raise OSError(errno.EBADF, "the file of slots is closed")
            yield self._descriptor

    def close(self) -> None:
        """Close the descriptor; what is mapped stays until nobody holds it. Idempotent."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._keeper.close()
