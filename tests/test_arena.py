"""The arena: layouts that do not overlap, memory without a name, leases that end with the last view."""

from __future__ import annotations

import gc
import io
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond._arena.layout import SlotLayout, SlotPool
from millpond._arena.leases import Leases, field_of
from millpond._arena.memory import ArenaMemory
from millpond._values import Field
from millpond._workers.wakeup import Waker, Wakeup
from millpond.errors import ArenaFull

FIELDS = (Field("front", (4, 6, 3), "uint8", frames=True), Field("state", (7,), "float32"), Field("done", (), "bool"))
LAYOUT = SlotLayout.of([(field, 5) for field in FIELDS])


@pytest.fixture(params=["memfd", "posix"])
def arena(request: pytest.FixtureRequest) -> Iterator[ArenaMemory]:
    memory = ArenaMemory.create(LAYOUT.slot_bytes * 3, posix=request.param == "posix")
    yield memory
    memory.close()


def test_no_two_fields_of_any_slot_share_a_byte(arena: ArenaMemory) -> None:
    pool = SlotPool(LAYOUT, 0, 3)
    views = [pool.view(arena.buffer, slot, field.name) for slot in range(3) for field in FIELDS]
    for number, view in enumerate(views):
        view.view(np.uint8)[...] = number
    assert [set(view.view(np.uint8).reshape(-1).tolist()) for view in views] == [{number} for number in range(9)]
    assert [view.shape for view in views[:3]] == [(5, 4, 6, 3), (5, 7), (5,)]


def test_a_slot_that_is_not_there_is_refused(arena: ArenaMemory) -> None:
    with pytest.raises(IndexError, match="slot 3 of 3"):
        SlotPool(LAYOUT, 0, 3).view(arena.buffer, 3, "front")


def test_two_mappings_of_one_descriptor_see_each_other(arena: ArenaMemory) -> None:
    other = ArenaMemory(os.dup(arena.descriptor), arena.size_bytes)
    np.frombuffer(other.buffer, np.uint8)[17] = 42
    assert np.frombuffer(arena.buffer, np.uint8)[17] == 42
    other.close()


def test_memory_has_no_name_to_be_left_behind(arena: ArenaMemory) -> None:
    shared = Path("/dev/shm")
    assert not shared.is_dir() or not list(shared.glob("millpond*"))


def test_closing_twice_is_fine_and_views_live_on() -> None:
    memory = ArenaMemory.create(4096)
    view = np.frombuffer(memory.buffer, np.uint8)
    memory.close()
    memory.close()
    assert view.sum() == 0


def test_more_memory_than_the_machine_has_is_an_error_at_once() -> None:
    with pytest.raises(ArenaFull, match="lower memory="):
        ArenaMemory.create(1 << 60)


class Lent:
    """A lease of two fields on the heap, and how often it ended."""

    def __init__(self) -> None:
        self.leases: Leases[int] = Leases()
        self.heap = np.arange(12, dtype=np.uint8)
        whole = self.leases.lend(1, self.heap, self.heap.ctypes.data, 12)
        self.first: Any = field_of(whole, 0, (3, 2), np.dtype(np.uint8))
        self.second: Any = field_of(whole, 6, (6,), np.dtype(np.uint8))

    @property
    def releases(self) -> int:
        return len(self.leases._ended)


def test_a_lease_ends_with_the_last_view_of_its_last_field() -> None:
    lent = Lent()
    row = lent.first[1:][0]
    lent.second = None
    lent.first = None
    gc.collect()
    assert lent.releases == 0
    assert row.tolist() == [2, 3]
    del row
    assert lent.releases == 1


def test_a_tensor_and_what_is_made_of_it_keep_the_lease() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    lent = Lent()
    tensor = torch.from_numpy(lent.first)
    view = tensor.movedim(0, 1)[1:]
    lent.first = lent.second = tensor = None
    gc.collect()
    assert lent.releases == 0
    del view
    gc.collect()
    assert lent.releases == 1


def test_a_saved_tensor_holds_its_own_field_and_no_more() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    lent = Lent()
    assert torch.from_numpy(lent.first).untyped_storage().nbytes() == 6
    file = io.BytesIO()
    torch.save(torch.from_numpy(lent.first)[:1], file)
    file.seek(0)
    assert torch.load(file).tolist() == [[0, 1]]


def test_a_forked_child_gives_nothing_away() -> None:
    lent = Lent()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        lent.first = lent.second = None
        gc.collect()
        os._exit(lent.releases)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1  # told to the child alone
    assert lent.releases == 0


def test_no_python_runs_at_the_end_of_a_lease() -> None:
    # An interrupt in a finalizer is dropped by the interpreter: Ctrl-C would be lost, and the slot, too.
    readable, writable = os.pipe()
    waker, lent = Waker(readable, writable), Lent()
    lent.leases._waker = waker
    whole = lent.leases.lend(2, lent.heap, lent.heap.ctypes.data, 12)
    called: list[str] = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_qualname) if event == "call" else None)
    try:
        lent.first = lent.second = None
        del whole
    finally:
        sys.setprofile(None)
    assert called == []
    assert os.read(readable, 10) == b"\0"
    assert lent.leases.held() == []
    assert list(lent.leases.ended()) == [1, 2]
    assert list(lent.leases.ended()) == []
    os.close(readable)
    os.close(writable)


def test_the_end_of_a_lease_is_there_before_its_wake_up_is() -> None:
    class Looks:
        def __init__(self) -> None:
            self.seen: list[int] = []
            self.leases: Leases[int] = Leases(self)
            self.give: Callable[[], object] = self.look

        def look(self) -> None:
            self.seen += self.leases.ended()

    owner = Looks()
    heap = np.zeros(8, np.uint8)
    for number in range(3):
        owner.leases.lend(number, heap, heap.ctypes.data, 8)
        assert owner.seen == list(range(number + 1))


def test_ends_of_leases_tell_nobody_once_they_are_closed() -> None:
    wakeup = Wakeup()
    leases: Leases[int] = Leases(wakeup.waker())
    heap = np.zeros(8, np.uint8)
    lent = leases.lend(1, heap, heap.ctypes.data, 8)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    leases.close()
    assert before is None or len(os.listdir("/proc/self/fd")) == before - 2
    wakeup.close()
    del lent
    assert list(leases.ended()) == []


def test_a_waker_that_is_given_too_late_breaks_nothing() -> None:
    wakeup = Wakeup()
    waker = wakeup.waker()
    wakeup.close()
    waker.give()  # a pipe without a reader would raise, or send SIGPIPE


def test_fields_dropped_by_many_threads_release_once() -> None:
    leases: Leases[int] = Leases()
    for number in range(50):
        heap = np.zeros(8, np.uint8)
        whole = leases.lend(number, heap, heap.ctypes.data, 8)
        fields: list[Any] = [field_of(whole, at, (1,), np.dtype(np.uint8)) for at in range(8)]
        del whole
        barrier = threading.Barrier(8)

        def drop(at: int, fields: list[Any] = fields, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            fields[at] = None

        threads = [threading.Thread(target=drop, args=(at,)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(leases.ended()) == list(range(50))
