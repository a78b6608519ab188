"""The dataset's way to the workers: pickled once for any number of them, its arrays in memory that all share.

::

    memfd:  | array | (pages nobody wrote) | array | ... | pickle | table |

A worker maps it privately: what nobody writes to is there once for all workers, and who writes gets pages of his own,
as after a fork. Nothing of it has a name, and it goes with the last process that has it.
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from millpond._guard.functions import send_main_by_value
from millpond._guard.parcels import Pieces
from millpond._torch import stowage
from millpond._torch.kinship import Kinship
from millpond._torch.stowage import Stowage, Stowed
from millpond._torch.unsendable import unsendable
from millpond._workers.descriptors import anonymous_file, close_all

_ALIGNMENT = 64
"""What torch's own allocator gives."""


class Ticket(NamedTuple):
    """What a worker opens a cargo with.

    Attributes:
        key: Of a cargo that forked workers inherit; None: it lies in the first descriptor.
        table: Where the table lies, (start, stop) in bytes.
    """

    key: int | None
    table: tuple[int, int] = (0, 0)


class Cargo:
    """What every worker of an iterator needs, for as long as new ones may be started.

    Args:
        parts: By the names under which errors mention them.
        inherited: Workers are forked from this process: they have everything already, and nothing is pickled.

    Attributes:
        ticket: Small, and pickles.
        descriptors: Handed to every worker, in this order; they stay open here until `close`.

    Raises:
        TypeError: Something cannot be sent; it says what, where it is, and what helps.
        OSError: There is not so much memory.
    """

    def __init__(self, parts: dict[str, Any], *, inherited: bool) -> None:
        self.descriptors: list[int] = []
        self.ticket = Ticket(None)
        # What is shared by its name (semaphores) exists as long as what it was made of.
        self._parts = parts
        if inherited:
            self.ticket = Ticket(next(_keys))
            _inherited[self.ticket.key] = parts
        else:
            self._pack()

    def _pack(self) -> None:
        send_main_by_value()  # in a process that was spawned, as those of distributed jobs are
        pieces = Pieces()
        packing = Stowage()
        try:
            with packing:
                packing.dump((Kinship(), self._parts), pieces)
        except (MemoryError, OSError):
            raise
        except Exception as error:
            if _can_be_sent(self._parts):  # it was an interrupt
                raise
            raise unsendable(self._parts, error, _can_be_sent) from error
        try:
            file, table = _write(packing.stowed, pieces)
        except BaseException:
            close_all(packing.descriptors)
            raise
        self.ticket, self.descriptors = Ticket(None, table), [file, *packing.descriptors]

    def close(self) -> None:
        """No more workers will be started; those that are there keep what they have. Idempotent."""
        _inherited.pop(self.ticket.key, None)
        close_all(self.descriptors)
        self.descriptors = []
        self._parts = {}


_keys = itertools.count()
_inherited: dict[int | None, dict[str, Any]] = {}


def open_cargo(ticket: Ticket, descriptors: Sequence[int]) -> dict[str, Any]:
    """In a worker: the parts of a cargo, once.

    Args:
        ticket: Of the cargo.
        descriptors: That came with it; closed here.

    Raises:
        Exception: It does not unpickle; whatever its own methods raise.
    """
    if ticket.key is not None:
        return _inherited[ticket.key]
    stowage.arrived[:] = descriptors[1:]
    try:
        size = ticket.table[1]
        memory = memoryview(mmap.mmap(descriptors[0], size, flags=_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
        at, (start, stop) = pickle.loads(memory[slice(*ticket.table)])
        buffers = [_view(memory, *place) for place in at]
        _, parts = pickle.loads(memory[start:stop], buffers=buffers)
    finally:
        stowage.arrived.clear()
        close_all(descriptors)
    opened: dict[str, Any] = parts
    return opened


_PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)


def _view(memory: memoryview, start: int, stop: int, is_readonly: bool) -> memoryview:
    return memory[start:stop].toreadonly() if is_readonly else memory[start:stop]


def _write(stowed: Sequence[Stowed], pieces: Sequence[Any]) -> tuple[int, tuple[int, int]]:
    """A file with everything in it, and where its table lies."""
    file = anonymous_file("millpond-cargo", 0)
    try:
        places, end = [], 0
        for item in stowed:
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = start + item.data.nbytes
            places.append((start, end, item.data.readonly))
            for first, last in _joined(item):
                _write_at(file, item.data[first:last], start + first)
        start = end
        for piece in pieces:
            end = _write_at(file, memoryview(piece), end)
        table = end, _write_at(file, memoryview(pickle.dumps((places, (start, end)), 5)), end)
    except BaseException:
        os.close(file)
        raise
    return file, table


def _joined(item: Stowed) -> list[tuple[int, int]]:
    """The spans to be written, ascending, none twice."""
    if item.spans is None:
        return [(0, item.data.nbytes)]
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(item.spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


def _write_at(file: int, data: memoryview, at: int) -> int:
    """Where it ends. Writing takes half the time of copying into a mapping, which faults on each page."""
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written
    return at


def _can_be_sent(value: Any) -> bool:
    attempt = Stowage()
    try:
        with attempt:
            attempt.dump(value, _Nowhere)
    except Exception:  # noqa: BLE001 - the user's own methods may raise anything
        return False
    close_all(attempt.descriptors)
    return True


class _Nowhere:
    """A file for what is not kept."""

    write = len
