"""The arena: layouts that do not overlap, memory without a name, leases that end with the last view."""

from __future__ import annotations

import gc
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond._arena.layout import SlotLayout, SlotPool
from millpond._arena.leases import Lease, field_of
from millpond._arena.memory import ArenaMemory
from millpond._values import Field
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
    """A lease of two fields on the heap, and how often it was released."""

    def __init__(self) -> None:
        self.releases = 0
        self.heap = np.arange(12, dtype=np.uint8)
        whole = Lease(self.heap, self.heap.ctypes.data, 12, self._release).bytes()
        self.first: Any = field_of(whole, 0, (3, 2), np.dtype(np.uint8))
        self.second: Any = field_of(whole, 6, (6,), np.dtype(np.uint8))

    def _release(self) -> None:
        self.releases += 1


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
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_lease_whose_making_was_interrupted_says_and_releases_nothing() -> None:
    half_made = Lease.__new__(Lease)
    released: list[int] = []
    half_made._release = lambda: released.append(1)
    del half_made  # what a finalizer raises fails the test
    assert not released


def test_fields_dropped_by_many_threads_release_once() -> None:
    released: list[int] = []
    for _ in range(50):
        heap = np.zeros(8, np.uint8)
        whole = Lease(heap, heap.ctypes.data, 8, lambda: released.append(1)).bytes()
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
    assert len(released) == 50
